"""Growth by chance: what any other policy has to be better than."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from growir.growth.budget import Budget
from growir.growth.measure.sites import free_spaces, pinned_spaces, wider
from growir.growth.measure.starts import Start, even, started
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
        start: What new channels start with. Of "silent" ones the outgoing weights are zero, "pairs" have opposite ones;
            both keep the function. "variance" shrinks old outgoing weights and draws new ones, so that variances stay
            (variance transfer, Yuan et al. 2023) and the function does not. Spaces where that cannot be start as ever.
    """

    name: str = "random"
    spaces: Share = 0.5
    by: Share = 0.25
    start: Start = "silent"


class RandomWidth:
    """The policy; see RandomSettings."""

    name: ClassVar[str] = "random"
    Settings: ClassVar[type[PolicySettings]] = RandomSettings

    def __init__(self, settings: RandomSettings) -> None:
        self.settings = settings

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """The widening of each free space that the budget has room for."""
        steps = [wider(space, self.settings.by, session.seed) for space in free_spaces(session.graph)]
        if self.settings.start == "pairs":
            steps = [even(space, step) for space, step in zip(free_spaces(session.graph), steps, strict=True)]
        return [Candidate(step.node, budget.cost(step), step) for step in steps if budget.fits(step)]

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why spaces cannot become wider."""
        return pinned_spaces(session.graph)

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """A number by chance: nothing is predicted of it."""
        return by_chance(candidates, session.seed, 20, key)

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """The share that the settings say, as many of them as fit together."""
        ordered = shares(scores, lambda score: None, self.settings.spaces)
        return fitting(ordered, lambda chosen: budget.fits(_widened(chosen)))

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """The widenings as one rewrite, with what new channels start with."""
        key = len(session.graph.history.steps) if session.graph.history else 0
        return started(session.module, _widened(chosen), self.settings.start, session.seed, key)


def _widened(chosen: Sequence[Score]) -> Steps:
    return Steps(passes=tuple(score.candidate.part for score in chosen))
