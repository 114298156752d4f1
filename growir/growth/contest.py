"""Several networks grown from the same start by different policies, and the one that ends best after training.

Gains at the moment of growth favour deep, narrow networks, which win for tens of epochs and lose after a full fit. So
each branch is fitted as the final fit will be, on what is trained on between growths, and the selection part tells
which is best. The winner goes on from its weights before that fit: they have learned nothing of the selection part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch

from growir.growth.config import RunConfig
from growir.growth.divergence import Diverged
from growir.growth.given import Given
from growir.growth.loss import certainly_positive, mean_and_error
from growir.growth.policy import Policy
from growir.growth.session import Session
from growir.growth.training import train_trial
from growir.network import Network
from growir.runs.records import Compared, Fitted

ERROR = 0.05  # probability that a later branch wins by chance


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One way to grow.

    Attributes:
        name: Its name; None for a run that is no contest.
        policy: What grows it.
    """

    name: str | None
    policy: Policy


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A network that has been grown and fitted.

    Attributes:
        name: The branch it is of; None for a run that is no contest.
        network: As grown, before the fit.
        losses: (n,) of each sample of the selection part after the fit.
        step: Growths done.
        epochs: That it was fitted for.
        ended: Why growth of the branch ended; None where one branch has several trials.
        keep: What each matrix was multiplied with before the fit; None of runs from before that was tried.
    """

    name: str | None
    network: Network
    losses: torch.Tensor
    step: int
    epochs: int
    ended: str | None
    keep: float | None = None

    @property
    def parameters(self) -> int:
        """Of the network."""
        return self.network.graph.costs().parameters

    @property
    def loss(self) -> float:
        """The mean loss on the selection part after the fit."""
        return mean_and_error(self.losses)[0]

    @property
    def error(self) -> float:
        """The standard error of that mean."""
        return mean_and_error(self.losses)[1]

    @property
    def record(self) -> Fitted:
        """As events and checkpoints hold it, without the network."""
        return Fitted(
            branch=self.name,
            parameters=self.parameters,
            loss=self.loss,
            loss_error=self.error,
            step=self.step,
            epochs=self.epochs,
            ended=self.ended,
            trial=self.ended is None,
            keep=self.keep,
        )


def strategies_of(config: RunConfig) -> list[str]:
    """The names of the branches of a contest, in the order they are grown by; none where a run is no contest."""
    return [name for name, _ in config.policy.contestants() if name is not None]


def branches_of(config: RunConfig, given: Given | None = None) -> list[Branch]:
    """The branches of a run, of which the configuration is resolved; one without a name where it is no contest.

    Args:
        config: Of the run.
        given: The policies that did not come by name.
    """
    found = given or Given()
    return [Branch(name, found.policy(settings)) for name, settings in config.policy.contestants()]


def run_trial(
    session: Session, name: str | None, step: int, epochs: int, keep: float, ended: str | None, *key: int
) -> Trial:
    """Fit what has grown, in place, and measure it on the selection part.

    Args:
        session: Its network is fitted.
        name: The branch; None for a run that is no contest.
        step: Growths done.
        epochs: How long the fit is.
        keep: What each matrix is multiplied with before.
        ended: Why its growth ended; None where one branch has several trials.
        key: Of all draws.

    Raises:
        Diverged: The fit does.
    """
    network = session.network()
    train_trial(session, epochs, keep, *key)
    assert session.data.select is not None, "the data is cut"
    trial = Trial(name, network, session.measure(session.data.select).losses, step, epochs, ended, keep)
    if not math.isfinite(trial.loss):
        found = "its loss on the selection part is NaN or infinite"
        raise Diverged(f"a fit diverged: {found}", found)
    return trial


def compare(trial: Trial, best: Trial) -> Compared:
    """A branch beside the best before it, by a paired one-sided test."""
    differences = best.losses - trial.losses
    gain, error = mean_and_error(differences)
    # Where all samples differ by the same, nothing is left to chance.
    p = NormalDist().cdf(-gain / error) if error else float(gain <= 0)
    return Compared(
        branch=trial.name,
        against=best.name,
        gain=gain,
        gain_error=error,
        p=p,
        better=certainly_positive(differences, ERROR),
    )


def contest(trials: Sequence[Trial]) -> tuple[Trial, list[Compared]]:
    """The first one, or a later one that is better than the best before it; and the comparisons that say so.

    The first branches are the simplest, and differences that are chance should not cost simplicity.
    """
    best, found = trials[0], list[Compared]()
    for trial in trials[1:]:
        found.append(compare(trial, best))
        if found[-1].better:
            best = trial
    return best, found
