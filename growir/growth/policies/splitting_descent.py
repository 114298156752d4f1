"""Splitting steepest descent (Wu et al. 2019): units are split along the smallest eigenvectors of splitting matrices.

To second order a split of a unit with weights w into w - theta and w + theta changes the loss by theta^T S theta / 2,
where its splitting matrix S is the mean of the slope by the unit times the unit's Hessian by w. The smallest
eigenvector is the direction of a given norm that lessens the loss most, and is found by descent on the sphere; a unit
is split where the smallest eigenvalue is below 0 (eq. 5 and algorithm 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch

from growir.growth.budget import Budget
from growir.growth.measure.directions import Learning, learned
from growir.growth.measure.morphs import built, proposed, scored
from growir.growth.measure.routes import routed
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.sections import Count, Rate, Share
from growir.growth.select import fitting, top
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session


class SplittingDescentSettings(PolicySettings):
    """Splits along the smallest eigenvectors of splitting matrices.

    Attributes:
        name: Splitting steepest descent.
        most: The largest share of all channels that is split at a time, one at least.
        learn_steps: Batches that directions are found on.
        learn_batch: Samples of each.
        learn_rate: Of Adam, in norm(w) / sqrt(n) for the n weights w that make a channel.
        norm: How far the two of a pair part, as a share of norm(w).
    """

    name: str = "splitting_descent"
    most: Share = 0.3
    learn_steps: Count = 60
    learn_batch: Count = 128
    learn_rate: Rate = 0.01
    norm: Share = 0.1


class SplittingDescent:
    """The policy; see SplittingDescentSettings."""

    name: ClassVar[str] = "splitting_descent"
    Settings: ClassVar[type[PolicySettings]] = SplittingDescentSettings

    def __init__(self, settings: SplittingDescentSettings) -> None:
        self.settings = settings

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """A split of each unit that there is room for."""
        return proposed(routed(session.graph).sites, budget, prunes=False)

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why there is nothing to choose in some spaces."""
        return routed(session.graph).skipped

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """The predicted decrease of the mean loss, of those that have a finite one."""
        s = self.settings
        how = Learning(s.learn_steps, s.learn_batch, s.samples, s.learn_rate, s.norm, sphere=True)
        return scored(candidates, lambda found: learned(session, found, how, _first_order, key))

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """A share of all, the best first, as many as fit together."""
        most = max(1, math.floor(self.settings.most * len(scores)))
        return fitting(top(scores, most), lambda chosen: not chosen or budget.fits(built(chosen)))

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """The splits as one rewrite."""
        return built(chosen)


def _first_order(effects: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """(units,) half of theta^T S theta: the slope times what a split changes of the unit, over the samples."""
    return effects.mean(0)
