"""GradMax (Evci et al. 2022), mirrored: fresh units whose outgoing weights are zero and have the largest slopes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

import torch
from pydantic import Field

from growir.growth.budget import Budget
from growir.growth.measure.choice import Choice, Order, unit_of
from growir.growth.measure.gated import Gated, groups
from growir.growth.measure.learning import batch_statistics, training_batches
from growir.growth.measure.outgoing import strengthened, strengths
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.sections import Count, Positive
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session


class GradMaxSettings(PolicySettings):
    """Fresh units whose outgoing weights are zero and have the largest slopes.

    Attributes:
        name: GradMax, mirrored so that units live under relu too: the function is kept.
        fresh_units: How many each space is offered, 1 or more.
        learn_steps: Batches that incoming weights learn on, to make the slopes large; of 0 they are drawn by chance.
        learn_rate: How far they go by each, as a share of their initialiser's standard deviation.
        judge_batches: Batches that slopes are measured on.
        order: "gain" takes those first whose slopes are largest, "per_parameter" those whose are for each parameter.
        groups: In how many groups of neighbouring spaces candidates are tried; more of them take less memory.
    """

    name: str = "gradmax"
    fresh_units: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 6
    learn_steps: Annotated[int, Field(strict=True, ge=0, le=10**6)] = 15
    learn_rate: Positive = 0.1
    judge_batches: Count = 4
    order: Order = "gain"
    groups: Count = 1


class GradMax:
    """The policy; see GradMaxSettings."""

    name: ClassVar[str] = "gradmax"
    Settings: ClassVar[type[PolicySettings]] = GradMaxSettings

    def __init__(self, settings: GradMaxSettings) -> None:
        self.settings = settings
        self._choice: Choice  # of the growth that is being decided, as is what follows
        self._gated: Gated

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """Each fresh unit that the budget has room for."""
        self._choice = Choice(session.graph)
        return self._choice.candidates(budget, split=False, fresh=self.settings.fresh_units)

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why there is nothing to choose in some spaces."""
        return self._choice.skipped

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """The squared norm of the slopes of each one's outgoing weights: it ranks, and is no change of the loss."""
        settings, choice, found = self.settings, self._choice, list[torch.Tensor]()
        self._gated = whole = self._offered(session, key)
        with batch_statistics(session.module, session.graph):
            for k, some in enumerate(groups(choice.sites, settings.groups)):
                part = whole if len(some) == len(choice.sites) else self._offered(session, key, k)
                batches = training_batches(session, session.seed, 43, key)
                strengthened(session, part, islice(batches, settings.learn_steps), rate=settings.learn_rate)
                judged = list(islice(batches, settings.judge_batches))
                found.append(torch.stack([strengths(session, part, batch) for batch in judged]).mean(0))
                whole.take(part)
        gains = cast("list[float]", torch.cat(found).tolist())
        place = {unit: k for k, unit in enumerate(whole.units)}
        return [Score(candidate, gains[place[candidate.part]], ordinal=True) for candidate in candidates]

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """The strongest that fit together, and each later one that still does."""
        return self._choice.within(budget, scores, self.settings.order)

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """The units with their incoming directions, and outgoing weights of zero."""
        place = {unit: k for k, unit in enumerate(self._gated.units)}
        return self._choice.built(self._gated, [place[unit_of(score)] for score in chosen], self._gated.gates())

    def _offered(self, session: Session, *key: int) -> Gated:
        """All candidates, or those of one group of sites."""
        settings, sites = self.settings, self._choice.sites
        some = sites if len(key) == 1 else list(groups(sites, settings.groups))[key[1]]
        drawn = (session.seed, 42, *key)
        return self._choice.gated(session.module, some, split=False, fresh=settings.fresh_units, key=drawn)
