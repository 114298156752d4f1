"""Several networks grown from the same start by different strategies, and the one that ends best after training.

Gains at the moment of growth favour deep, narrow networks, which win for tens of epochs and lose after a full fit. So
each branch is fitted as the final fit will be, on what is trained on between growths, and the part that chooses tells
which is best. The winner goes on from its weights before that fit: they have learned nothing of the part that chose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from growir.errors import RunError
from growir.growth.config import RunConfig, Strategy
from growir.growth.dag import Dag
from growir.growth.policy import Policy
from growir.growth.session import Session
from growir.network import Network


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
        loss: The mean loss on the selection part after the fit.
        error: Its standard error.
        step: Growths done.
        ended: Why its growth ended.
    """

    strategy: str
    network: Network
    loss: float
    error: float
    step: int
    ended: str

    def to_json(self) -> dict[str, Any]:
        """As events and checkpoints hold it, without the network."""
        parameters = self.network.graph.costs().parameters
        return {
            "branch": self.strategy,
            "parameters": parameters,
            "loss": self.loss,
            "loss_error": self.error,
            "step": self.step,
            "ended": self.ended,
        }


def branches_of(config: RunConfig) -> list[Branch]:
    """The branches of a run; one without a name where it is no tournament."""
    policy = config.policy
    if policy.strategy != "tournament":
        return [Branch(None, Dag(policy, config.budget))]
    return [Branch(name, Dag(policy.branch(name), config.budget)) for name in dict.fromkeys(policy.branches)]


def run_trial(session: Session, strategy: Strategy, branch: int, step: int, ended: str) -> Trial:
    """Fit what a branch has grown and measure it on the selection part. Raises RunError if the fit diverges."""
    network = session.network()
    session.train_trial(branch)
    losses = session.losses_on(session.parts.gr).double()
    loss, error = float(losses.mean()), float(losses.std(correction=0)) / math.sqrt(len(losses))
    if not math.isfinite(loss):
        raise RunError(
            f"the fit of branch {strategy!r} diverged: its loss is NaN or infinite; lower [train] learning_rate_final"
        )
    return Trial(strategy, network, loss, error, step, ended)


def winner(trials: Sequence[Trial]) -> Trial:
    """The one with the smallest loss; of equals the first."""
    return min(trials, key=lambda trial: trial.loss)
