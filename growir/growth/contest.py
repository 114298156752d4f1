"""Several networks grown from the same start by different strategies, and the one that ends best after training.

Gains at the moment of growth favour deep, narrow networks, which win for tens of epochs and lose after a full fit. So
each branch is fitted as the final fit will be, on what is trained on between growths, and the part that chooses tells
which is best. The winner goes on from its weights before that fit: they have learned nothing of the part that chose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch

from growir.errors import RunError
from growir.growth.config import RunConfig, Strategy
from growir.growth.loss import mean_and_error
from growir.growth.policies.dag.policy import Dag, certainly_positive
from growir.growth.policy import Policy
from growir.growth.session import Session
from growir.network import Network
from growir.runs.records import Compared, Fitted

ERROR = 0.05  # probability that a later branch wins by chance


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One way to grow.

    Attributes:
        strategy: Its name; None for a run that is no tournament.
        policy: What grows it.
    """

    strategy: Strategy | None
    policy: Policy


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A branch that has been grown and fitted.

    Attributes:
        strategy: Its name.
        network: As grown, before the fit.
        losses: (n,) of each sample of the selection part after the fit.
        step: Growths done.
        ended: Why its growth ended.
    """

    strategy: str
    network: Network
    losses: torch.Tensor
    step: int
    ended: str

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
        parameters = self.network.graph.costs().parameters
        return Fitted(
            branch=self.strategy,
            parameters=parameters,
            loss=self.loss,
            loss_error=self.error,
            step=self.step,
            ended=self.ended,
        )


def strategies_of(config: RunConfig) -> list[Strategy]:
    """The strategies of a tournament, in the order they are grown by; none where a run is no tournament."""
    names = list(dict.fromkeys(config.policy.branches))
    return names if config.policy.strategy == "tournament" and len(names) > 1 else []


def branches_of(config: RunConfig) -> list[Branch]:
    """The branches of a run, of which the configuration is resolved; one without a name where it is no tournament."""
    policy = config.policy
    names = strategies_of(config)
    if names:
        return [Branch(name, Dag(policy.branch(name), config.budget)) for name in names]
    if policy.strategy == "tournament":  # of one branch
        policy = policy.branch(policy.branches[0])
    return [Branch(None, Dag(policy, config.budget))]


def run_trial(session: Session, strategy: Strategy, branch: int, step: int, ended: str) -> Trial:
    """Fit what a branch has grown and measure it on the selection part. Raises RunError if the fit diverges."""
    network = session.network()
    session.train_trial(branch)
    trial = Trial(strategy, network, session.losses_on(session.parts.gr), step, ended)
    if not math.isfinite(trial.loss):
        raise RunError(
            f"the fit of branch {strategy!r} diverged: its loss is NaN or infinite; lower [train] learning_rate_final"
        )
    return trial


def compare(trial: Trial, best: Trial) -> Compared:
    """A branch beside the best before it, by a paired one-sided test."""
    differences = best.losses - trial.losses
    gain, error = mean_and_error(differences)
    # Where all samples differ by the same, nothing is left to chance.
    p = NormalDist().cdf(-gain / error) if error else float(gain <= 0)
    return Compared(
        branch=trial.strategy,
        against=best.strategy,
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


def winner(trials: Sequence[Trial]) -> Trial:
    """The one that a contest between them leaves."""
    return contest(trials)[0]
