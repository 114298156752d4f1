"""Search for a net as people do it: by chance, or by Optuna, for as many operations or CPU seconds as growth took.

A trial draws depth, width, activation and rate, and where convolutions read the data their kernel and number. It trains
on four fifths of the training data for as many epochs as growth's final fit has, and is judged by what it scores on the
last fifth, of equal scores by its loss. The best is trained once more on all training data, which the limit includes: a
trial that would leave too little for that is not begun, or not gone on with.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch

from experiments.yardsticks.nets import ACTIVATIONS, Design
from experiments.yardsticks.training import Prepared, Scores
from growir.data.memory import ArraySource
from growir.errors import RunError

HELD_OUT = 5  # a fifth of the training data judges
RATES = (3e-4, 1e-1)
DEPTHS, STAGES, CONVOLUTIONS, KERNELS = (0, 3), (1, 3), (1, 2), (3, 5)
NARROWEST = 2
REDUCTION = 3  # of successive halving: a third of the trials goes on to three times the epochs
MOST_TRIALS = 1000  # that are begun: where nets are tiny, the operations of growth would pay for more
REDRAWN = 200  # draws in a row that are too dear before a search ends
TIE = 1e-4  # of the loss beside the share of errors

Unit = Literal["FLOPs", "CPU"]


class Draws(Protocol):
    """What draws a trial; as Optuna has it."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """An integer, both ends included."""
        ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""
        ...

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of some."""
        ...


class Chance:
    """Draws by chance alone."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """An integer, both ends included."""
        return int(self.generator.integers(low, high + 1))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number, uniform or uniform in its logarithm."""
        if log:
            return float(np.exp(self.generator.uniform(np.log(low), np.log(high))))
        return float(self.generator.uniform(low, high))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of some."""
        return choices[int(self.generator.integers(len(choices)))]


class Choice(NamedTuple):
    """What one trial tries.

    Attributes:
        design: The net.
        rate: The peak of its learning rates.
    """

    design: Design
    rate: float


class Limits(NamedTuple):
    """The largest net that is searched for.

    Attributes:
        parameters: Learned numbers.
        macs: Multiply-accumulates for one sample; None for no limit.
    """

    parameters: int
    macs: int | None = None


def drawn(trial: Draws, data: Prepared, limits: Limits) -> Choice:
    """A net within the limits; widths are uniform in their logarithm up to what the limits allow at this depth."""
    maps = len(data.shape) == 3
    depth = trial.suggest_int("depth", *(STAGES if maps else DEPTHS))
    design = Design(data.shape, data.outputs, depth, 1, trial.suggest_categorical("activation", list(ACTIVATIONS)))
    if maps:
        kernel = trial.suggest_categorical("kernel", list(KERNELS))
        convolutions = trial.suggest_int("convolutions", *CONVOLUTIONS)
        design = Design(data.shape, data.outputs, depth, 1, design.activation, kernel, convolutions)
    share = trial.suggest_float("width", 0.0, 1.0)
    high = design.widest(*limits)
    low = min(NARROWEST, high)
    rate = trial.suggest_float("rate", *RATES, log=True)
    return Choice(design.of_width(round(low * (high / low) ** share)), rate)


class Asked(Protocol):
    """Where trials come from, and go back to."""

    each_epoch: bool  # whether a trial is judged after each epoch

    def ask(self) -> Draws:
        """A new trial."""
        ...

    def hopeless(self, epochs: int, value: float) -> bool:
        """Whether the last trial should end, which after so many epochs is at this value; the smaller, the better."""
        ...

    def tell(self, value: float | None, *, pruned: bool = False) -> None:
        """What came of the last trial: its value, or None if it failed, was pruned or was too dear."""
        ...


class ByChance:
    """Random search."""

    each_epoch = False

    def __init__(self, seed: int) -> None:
        self.chance = Chance(np.random.default_rng([seed, 3]))

    def ask(self) -> Draws:
        """A new trial."""
        return self.chance

    def hopeless(self, epochs: int, value: float) -> bool:
        """Never."""
        return False

    def tell(self, value: float | None, *, pruned: bool = False) -> None:
        """Nothing is learned from it."""


class ByOptuna:
    """Optuna's tree-structured Parzen estimator with successive halving, in memory."""

    each_epoch = True

    def __init__(self, seed: int, epochs: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.states = optuna.trial.TrialState
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=max(1, epochs // REDUCTION**2), reduction_factor=REDUCTION
        )
        self.study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner)
        self.trial: Any = None

    def ask(self) -> Draws:
        """A new trial."""
        self.trial = self.study.ask()
        found: Draws = self.trial
        return found

    def hopeless(self, epochs: int, value: float) -> bool:
        """As the pruner says."""
        self.trial.report(value, epochs)
        return bool(self.trial.should_prune())

    def tell(self, value: float | None, *, pruned: bool = False) -> None:
        """What the sampler learns from."""
        if value is not None:
            self.study.tell(self.trial, value)
        else:
            self.study.tell(self.trial, state=self.states.PRUNED if pruned else self.states.FAIL)


@dataclass(slots=True)
class Ledger:
    """What a search has spent.

    Attributes:
        unit: In what it is limited.
        limit: By how much.
        flops: Operations so far.
        began: CPU seconds of this process when it began.
    """

    unit: Unit
    limit: float
    flops: float = 0.0
    began: float = field(default_factory=time.process_time)

    @property
    def seconds(self) -> float:
        """CPU seconds so far."""
        return time.process_time() - self.began

    @property
    def left(self) -> float:
        """What may still be spent."""
        return self.limit - (self.flops if self.unit == "FLOPs" else self.seconds)


class _Stopped(Exception):
    """A trial ends before its last epoch; why is in its argument."""


@dataclass(slots=True)
class _Trial:
    """A trial under way, or done.

    Attributes:
        choice: What it tries.
        done: Epochs.
        first: CPU seconds of the first of them and of all that comes before it.
        seconds: CPU seconds of all of them.
        value: On the held-out fifth; the smaller, the better.
    """

    choice: Choice
    done: int = 0
    first: float = 0.0
    seconds: float = 0.0
    value: float | None = None

    @property
    def each(self) -> float:
        """CPU seconds of an epoch; 0 before the second, since the first tells too much."""
        return (self.seconds - self.first) / (self.done - 1) if self.done > 1 else 0.0


class Search:
    """One search on its way.

    Args:
        data: What is learned.
        limits: The largest net.
        asked: Where trials come from.
        ledger: What may be spent.
        seed: Of everything random.
    """

    def __init__(self, data: Prepared, limits: Limits, asked: Asked, ledger: Ledger, seed: int) -> None:
        order = torch.from_numpy(np.random.default_rng([seed, 4]).permutation(len(data.train)))
        cut = len(order) - len(order) // HELD_OUT
        self.data, self.limits, self.asked, self.ledger, self.seed = data, limits, asked, ledger, seed
        self.learns: ArraySource = data.train.part(order[:cut])
        self.judges: ArraySource = data.train.part(order[cut:])
        self.best: _Trial | None = None
        self.cheapest: _Trial | None = None  # which is taken where no trial came to its end
        self.ended: Counter[str] = Counter()

    def run(self) -> dict[str, Any]:
        """Search, and train the best on all training data; what came of it."""
        begun, redrawn = 0, 0
        # By what is left of CPU seconds, one draw is as dear as another until it has begun.
        while begun < MOST_TRIALS and redrawn <= (REDRAWN if self.ledger.unit == "FLOPs" else 0):
            trial = _Trial(drawn(self.asked.ask(), self.data, self.limits))
            if self.fits(trial):
                begun, redrawn = begun + 1, 0
                self.try_out(trial)
            else:
                redrawn += 1
                self.leave(trial, "too dear")
        return self.end()

    def leave(self, trial: _Trial, why: str) -> None:
        """Have done with a trial that has not come to its end."""
        self.ended[why] += 1
        self.asked.tell(None, pruned=why == "pruned")
        if why == "too dear" and (self.cheapest is None or trial.choice.design.macs < self.cheapest.choice.design.macs):
            self.cheapest = trial

    def try_out(self, trial: _Trial) -> None:
        """Train one, as far as it should go."""
        design, rate = trial.choice
        began, number = self.ledger.seconds, sum(self.ended.values())
        torch.manual_seed(1000 * self.seed + number)
        module = design.module()
        value: float | None = None

        def after(done: int) -> None:
            nonlocal value
            self.ledger.flops += self.data.flops(design.macs, 1, len(self.learns))
            trial.done = done
            if self.asked.each_epoch or done == self.data.epochs:
                value = self.judged(self.data.measured(module, self.judges))
                self.ledger.flops += 2.0 * design.macs * len(self.judges)
                if not math.isfinite(value):
                    raise _Stopped("diverged")
            trial.seconds = self.ledger.seconds - began
            trial.first = trial.first or trial.seconds
            if done < self.data.epochs:
                if not self.fits(trial):
                    raise _Stopped("too dear")
                if value is not None and self.asked.hopeless(done, value):
                    raise _Stopped("pruned")

        try:
            self.data.fit(module, self.learns, self.data.epochs, self.seed, rate=rate, after=after)
        except _Stopped as stopped:
            self.leave(trial, str(stopped))
            return
        except RunError:  # its loss is no longer finite: of this rate nothing comes
            self.leave(trial, "diverged")
            return
        trial.value = value
        self.ended["done"] += 1
        self.asked.tell(value)
        if value is not None and (self.best is None or self.best.value is None or value < self.best.value):
            self.best = trial

    def judged(self, scores: Scores) -> float:
        """What makes one trial better than another: its errors, and of equal ones the loss."""
        return 1.0 - scores.score + TIE * scores.loss

    def fits(self, trial: _Trial) -> bool:
        """Whether the rest of a trial, and after it the training of the best, may still be spent."""
        kept = [trial] if self.best is None else [trial, self.best]
        return self.rest(trial) + max(map(self.anew, kept)) <= self.ledger.left

    def rest(self, trial: _Trial) -> float:
        """What a trial must still be able to spend; of CPU seconds 0 while nothing is known of it."""
        ahead = self.data.epochs - trial.done
        if self.asked.each_epoch and self.best is not None:
            ahead = min(ahead, 1)  # most are pruned: to want all of it would leave much unspent
        if self.ledger.unit == "CPU":
            return trial.each * ahead
        macs, judged = trial.choice.design.macs, ahead if self.asked.each_epoch else 1
        return self.data.flops(macs, ahead, len(self.learns)) + 2.0 * macs * len(self.judges) * judged

    def anew(self, trial: _Trial) -> float:
        """What it takes to train a trial's net on all training data."""
        if self.ledger.unit == "FLOPs":
            return self.data.flops(trial.choice.design.macs, self.data.epochs)
        return trial.first + trial.each * (self.data.epochs - 1) * len(self.data.train) / len(self.learns)

    def end(self) -> dict[str, Any]:
        """Train the best once more, on all training data."""
        best = self.best or self.cheapest
        assert best is not None, "something was drawn"
        whole, most = self.anew(best), self.data.epochs
        epochs = max(1, min(most, int(most * self.ledger.left / whole))) if whole else most
        design, rate = best.choice
        torch.manual_seed(self.seed)
        module = design.module()
        self.data.fit(module, self.data.train, epochs, self.seed, rate=rate)
        self.ledger.flops += self.data.flops(design.macs, epochs)
        seconds = self.ledger.seconds
        scores = self.data.measured(module, self.data.test)
        return {
            "score": scores.score,
            "loss": scores.loss,
            "parameters": design.parameters,
            "macs": design.macs,
            "flops": self.ledger.flops,
            "cpu": round(seconds, 3),
            "found": f"{design.words}, rate {rate:.2g}",
            "epochs": epochs,
            "held_out": best.value,
            "trials": dict(self.ended),
        }


def searched(asked: Asked, data: Prepared, limits: Limits, unit: Unit, limit: float, seed: int) -> dict[str, Any]:
    """What a search finds for so many operations or CPU seconds."""
    return Search(data, limits, asked, Ledger(unit, limit), seed).run()
