"""Alphabet: spaces become wider in the order of their names, one at each growth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from growir.growth.budget import Budget
from growir.growth.measure.sites import free_spaces, wider
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.session import Session
from growir.rewrite import Pass


class AlphabetSettings(PolicySettings):
    """The order of an index.

    Attributes:
        name: The order of names.
        share: The share of its width that a space gains.
    """

    name: str = "alphabet"
    share: float = 0.25


class Alphabet:
    """The policy; see AlphabetSettings."""

    name: ClassVar[str] = "alphabet"
    Settings: ClassVar[type[AlphabetSettings]] = AlphabetSettings

    def __init__(self, settings: AlphabetSettings) -> None:
        self.settings = settings

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        steps = [wider(space, self.settings.share, session.seed) for space in free_spaces(session.graph)]
        return [Candidate(step.node, budget.cost(step), step) for step in steps if budget.fits(step)]

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        ordered = sorted(candidates, key=lambda each: each.name)
        first = (key - 1) % len(ordered)
        return [Score(each, 1.0 / (1 + k)) for k, each in enumerate(ordered[first:] + ordered[:first])]

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        return list(scores[:1])

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        step: Pass = chosen[0].candidate.part
        return step
