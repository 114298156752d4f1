"""Growth by chance: what any other policy has to be better than."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from growir.growth.budget import Budget
from growir.growth.measure.sites import free_spaces, wider
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.sections import Share
from growir.growth.select import by_chance, fitting, shares
from growir.passes import Sequence as Steps
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session


class RandomSettings(PolicySettings):
    """Channels for spaces that chance picks.

    Attributes:
        name: Growth by chance.
        spaces: The share of the free channel spaces that grow at a time, one at least.
        by: The share of its width that each of them gains.
    """

    name: str = "random"
    spaces: Share = 0.5
    by: Share = 0.25


class RandomWidth:
    """The policy; see RandomSettings."""

    name: ClassVar[str] = "random"
    Settings: ClassVar[type[PolicySettings]] = RandomSettings

    def __init__(self, settings: RandomSettings) -> None:
        self.settings = settings

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """The widening of each free space that the budget has room for."""
        steps = [wider(space, self.settings.by, session.seed) for space in free_spaces(session.graph)]
        return [Candidate(step.node, budget.cost(step), step) for step in steps if budget.fits(step)]

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """A number by chance: nothing is predicted of it."""
        return by_chance(candidates, session.seed, 20, key)

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """The share that the settings say, as many of them as fit together."""
        ordered = shares(scores, lambda score: None, self.settings.spaces)
        return fitting(ordered, lambda chosen: budget.fits(self.build(session, chosen)))

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """The widenings as one rewrite."""
        return Steps(passes=tuple(score.candidate.part for score in chosen))
