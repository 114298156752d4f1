"""When a training run grows: at shares of its compute or its tokens, or where its loss stops paying for them.

A run has a budget. `Schedule.step` is called once behind each step of the optimizer, counts what it cost, and grows the
module when the next growth is due. Compute is counted as the document counts it: two operations for a
multiply-accumulate, and a training step three times a forward pass. So a small network spends its budget on more
tokens, and runs that grow and runs that do not end at the same compute.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
from torch import nn
from torch.optim import Optimizer

from growir.costs import costs_of
from growir.errors import ModelError, PassRefused, cut
from growir.graph import Graph
from growir.live.growing import grow
from growir.live.modules import find
from growir.live.report import Report
from growir.rewrite import Pass
from growir.shapes import shapes_of

Unit = Literal["compute", "tokens", "steps"]
FLOPS_PER_MAC = 6  # two operations, and a backward pass costs twice a forward one
RESOLUTION = 2000  # means of the loss that are kept of a whole budget


@dataclass(frozen=True, slots=True)
class Progress:
    """What a rule decides by.

    Attributes:
        share: The part of the budget that is spent.
        since: The part that was spent when the network last grew; 0 if it never did.
        losses: Since then, the mean loss of each two-thousandth of the budget, (share, loss), the latest last.
    """

    share: float
    since: float
    losses: Sequence[tuple[float, float]]

    def last(self, window: float) -> Sequence[tuple[float, float]] | None:
        """The losses of the last part of the budget; None if there are not yet as many."""
        if self.share - self.since < window:
            return None
        return [each for each in self.losses if each[0] > self.share - window]


class Rule(Protocol):
    """Says that a growth is due."""

    def __call__(self, progress: Progress, /) -> bool:
        """Whether it is."""
        ...


@dataclass(frozen=True, slots=True)
class Plateau:
    """Growth is due where the loss has hardly fallen over a window.

    Attributes:
        window: A part of the budget; its two halves are compared.
        least: By which part of itself the mean loss of the second half is below that of the first, if it still falls.
    """

    window: float = 0.1
    least: float = 0.01

    def __post_init__(self) -> None:
        _check_share("Plateau", "window", self.window)

    def __call__(self, progress: Progress, /) -> bool:
        losses = progress.last(self.window)
        if losses is None:
            return False
        middle = progress.share - self.window / 2
        halves = [[loss for at, loss in losses if (at > middle) == late] for late in (False, True)]
        if not all(halves):
            return False
        first, second = (float(np.mean(half)) for half in halves)
        return second > first - self.least * abs(first)


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth is due where the loss falls by less than so much for each share of the budget.

    Attributes:
        below: By how much the loss would have to fall if all of the budget were spent at this rate.
        window: The part of the budget over which a line is fitted to the losses.
    """

    below: float
    window: float = 0.1

    def __post_init__(self) -> None:
        _check_share("Slope", "window", self.window)

    def __call__(self, progress: Progress, /) -> bool:
        losses = progress.last(self.window)
        if losses is None or len(losses) < 3:
            return False
        at, loss = np.array(losses).T
        at = at - at.mean()
        return bool((at * loss).sum() / (at * at).sum() > -self.below)


@dataclass(frozen=True, slots=True)
class Growth:
    """One growth of a run.

    Attributes:
        at: The part of the budget after which it is due, from 0 to 1, or a rule such as `Plateau`.
        step: The pass, or a function of the graph of then that gives one.
    """

    at: float | Rule
    step: Pass | Callable[[Graph], Pass]

    def due(self, progress: Progress) -> bool:
        """Whether it is due."""
        return self.at(progress) if callable(self.at) else progress.share >= self.at


@dataclass(slots=True)
class _Window:
    """The losses since the last growth, by two-thousandths of the budget."""

    losses: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    count: int = 0
    bucket: int = -1

    def add(self, share: float, loss: float) -> None:
        bucket = int(share * RESOLUTION)
        if bucket == self.bucket and self.losses:
            self.count += 1
            mean = self.losses[-1][1]
            self.losses[-1] = share, mean + (loss - mean) / self.count
        else:
            self.losses.append((share, loss))
            self.bucket, self.count = bucket, 1


class Schedule:
    """A run's growths, in order, and its budget.

    Args:
        growths: What is grown when; one behind the other.
        budget: How much the run may spend, in its unit: floating-point operations, tokens, or steps.
        unit: What is counted.
        warmup: The part of the budget over which `factor` rises.
        decay: The part of the budget at its end over which `factor` falls to zero.
        options: What `live.grow` gets at each growth, such as `groups`.

    Raises:
        ModelError: A share does not lie between 0 and 1, growths are not in order, or the budget is no positive number.
    """

    def __init__(
        self,
        growths: Sequence[Growth],
        *,
        budget: float,
        unit: Unit = "compute",
        warmup: float = 0.0,
        decay: float = 0.0,
        **options: Any,
    ) -> None:
        if unit not in get_args(Unit):
            raise ModelError(f"unit={unit!r} is none of {', '.join(get_args(Unit))}")
        if not (math.isfinite(budget) and budget > 0):
            raise ModelError(f"budget={budget!r}: a positive number of {_WHAT[unit]} is needed")
        shares = [each.at for each in growths if not callable(each.at)]
        for share in shares:
            _check_share("Growth", "at", share, zero=True)
        if shares != sorted(shares):
            raise ModelError(f"growths are due in their order, but their shares are {shares}")
        for name, value in (("warmup", warmup), ("decay", decay)):
            _check_share("Schedule", name, value, zero=True)
        if warmup + decay > 1:
            raise ModelError(f"warmup={warmup:g} and decay={decay:g} are more than the whole budget")
        self.growths = tuple(growths)
        self.budget = float(budget)
        self.unit: Unit = unit
        self.warmup, self.decay = warmup, decay
        self.options = options
        self.spent = 0.0
        self.grown: list[float] = []
        self._window = _Window()
        self._graph: tuple[weakref.ref[nn.Module], Graph] | None = None

    @property
    def share(self) -> float:
        """The part of the budget that is spent."""
        return self.spent / self.budget

    @property
    def ended(self) -> bool:
        """Whether the budget is spent."""
        return self.spent >= self.budget

    def factor(self) -> float:
        """The learning rate now as a part of its peak: warm-up, stable, and linear decay to zero, by what is spent."""
        rise = min(1.0, self.share / self.warmup) if self.warmup else 1.0
        left = max(0.0, 1.0 - self.share)
        return min(rise, left / self.decay) if self.decay else rise

    def step(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        tokens: int | None = None,
        *,
        samples: int | None = None,
        loss: float | None = None,
    ) -> tuple[nn.Module, Report | None]:
        """Count one step of the optimizer, and grow if a growth is due.

        Args:
            module: A growir module.
            optimizer: What trains it; changed in place where it grows.
            tokens: How many tokens the step was over: entries of the network's first input, which are whole numbers.
            samples: How many samples it was over, in place of tokens.
            loss: The training loss of the step, for rules that decide by it.

        Returns:
            The module to go on with, and what was done; None where nothing was.

        Raises:
            ModelError: Neither tokens nor samples are given, or tokens of a network that has none; or as `live.grow`.
            PassRefused: The pass does not fit. What the step cost has been counted.
        """
        self.spent += self._cost(module, tokens, samples)
        if loss is not None:
            self._window.add(self.share, float(loss))
        if len(self.grown) == len(self.growths) or self.ended:
            return module, None
        growth = self.growths[len(self.grown)]
        since = self.grown[-1] if self.grown else 0.0
        if not growth.due(Progress(self.share, since, self._window.losses)):
            return module, None
        step = growth.step if isinstance(growth.step, Pass) else growth.step(find(module).graph)
        if not isinstance(cast("object", step), Pass):
            raise PassRefused(f"growth {len(self.grown)} of the schedule gives {cut(repr(step))}, which is no pass")
        grown, report = grow(module, step, optimizer, **self.options)
        self.grown.append(self.share)
        self._window = _Window()
        return grown, report

    def _cost(self, module: nn.Module, tokens: int | None, samples: int | None) -> float:
        if self.unit == "steps":
            return 1.0
        given = tokens if samples is None else samples
        if given is None or (tokens is not None and samples is not None):
            raise ModelError("give the step's tokens, or its samples: one of the two")
        if self.unit == "tokens" and samples is None:
            return float(given)
        graph = self._graph_of(module)
        length = _tokens_of(graph) if samples is None or self.unit == "tokens" else 1
        if self.unit == "tokens":
            return float(given) * length
        return FLOPS_PER_MAC * costs_of(graph).macs * given / length

    def _graph_of(self, module: nn.Module) -> Graph:
        """The module's graph, which stays the same as long as it is the same module."""
        if self._graph is None or self._graph[0]() is not module:
            self._graph = weakref.ref(module), find(module).graph
        return self._graph[1]

    def __deepcopy__(self, memo: dict[int, Any]) -> Schedule:
        options = copy.deepcopy(self.options, memo)
        made = Schedule(
            self.growths, budget=self.budget, unit=self.unit, warmup=self.warmup, decay=self.decay, **options
        )
        made.load_state_dict(self.state_dict())
        return made

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, of plain numbers and lists."""
        window = self._window
        return {
            "unit": self.unit,
            "budget": self.budget,
            "growths": len(self.growths),
            "spent": self.spent,
            "grown": list(self.grown),
            "losses": [list(each) for each in window.losses],
            "bucket": [window.bucket, window.count],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint of the same schedule.

        Raises:
            ModelError: It is of another unit, budget or number of growths.
        """
        mine = self.state_dict()
        for name in ("unit", "budget", "growths"):
            if state.get(name) != mine[name]:
                raise ModelError(
                    f"the checkpoint's schedule has {name} {state.get(name)!r}, but this one {mine[name]!r}"
                )
        self.spent, self.grown = float(state["spent"]), [float(share) for share in state["grown"]]
        bucket, count = state["bucket"]
        losses = [(float(at), float(loss)) for at, loss in state["losses"]]
        self._window = _Window(losses, int(count), int(bucket))


_WHAT: Mapping[Unit, str] = {"compute": "floating-point operations", "tokens": "tokens", "steps": "steps"}


def _tokens_of(graph: Graph) -> int:
    """How many tokens a sample has."""
    first = graph.inputs[0]
    shape = shapes_of(graph)[first.name]
    if shape.dtype != "int64" or shape.rank < 2:
        raise ModelError(
            f"input {cut(first.name)} is {shape} of {shape.dtype}, so there are no tokens to count; give samples "
            "instead"
        )
    return shape.elements


def _check_share(what: str, name: str, value: object, *, zero: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    if not number or not (value or zero):
        raise ModelError(f"{what}: {name}={value!r} is no part of the budget, from 0 to 1")
