"""Gauss-Newton morphisms: channels are split in learned directions, or pruned, where that pays for what it costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from growir.growth.budget import Budget, Cost
from growir.growth.measure.directions import Learning, learned
from growir.growth.measure.effects import gauss_newton
from growir.growth.measure.morphs import built, morph_of, proposed, scored
from growir.growth.measure.routes import routed
from growir.growth.measure.trials import lessening
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.sections import Count, NonNegative, Rate, Share
from growir.growth.select import fitting
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session

Memory = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]


class GaussNewtonSettings(PolicySettings):
    """Splits in learned directions and prunes, by what the Gauss-Newton approximation predicts of them.

    Attributes:
        name: Gauss-Newton morphisms: splits in learned directions, and prunes.
        prune: Whether channels are pruned too.
        price: How much smaller the loss must become for each unit of cost that comes, and how much larger it may become
            for each that goes; lambda_p of the paper, where it is 3e-8 to 1e-6.
        cost: What is paid for, "parameters" or "macs".
        most: The largest share of a layer's splits and prunes, taken together, that is done at a time, one at least.
        learn_steps: Batches that directions are learned on.
        learn_batch: Samples of each.
        learn_rate: Of Adam, in norm(w) / sqrt(n) for the n weights w that make a channel.
        trust: The largest norm of what parts the two of a pair, as a share of norm(w).
        memory: What the running means of the predictions keep at each batch.
        verify: Whether what is chosen must pay on the part of the data that selects, too. Where it does not, its better
            half is looked at next.
    """

    name: str = "gauss_newton"
    prune: bool = True
    price: NonNegative = 1e-7
    cost: Literal["parameters", "macs"] = "parameters"
    most: Share = 0.3
    learn_steps: Count = 60
    learn_batch: Count = 128
    learn_rate: Rate = 0.01
    trust: Share = 0.1
    memory: Memory = 0.9
    verify: bool = True


class GaussNewton:
    """The policy; see GaussNewtonSettings."""

    name: ClassVar[str] = "gauss_newton"
    Settings: ClassVar[type[PolicySettings]] = GaussNewtonSettings

    def __init__(self, settings: GaussNewtonSettings) -> None:
        self.settings = settings

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """A split of each unit that there is room for, and a prune of each where another one stays."""
        return proposed(routed(session.graph).sites, budget, prunes=self.settings.prune)

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why there is nothing to choose in some spaces."""
        return routed(session.graph).skipped

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """The predicted decrease of the mean loss, of those that have a finite one."""
        s = self.settings
        how = Learning(s.learn_steps, s.learn_batch, s.samples, s.learn_rate, s.trust, memory=s.memory)
        return scored(candidates, lambda found: learned(session, found, how, gauss_newton, key, prunes=s.prune))

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """Those that pay, each unit split or pruned, a share of each site's, within the budget and verified."""
        ranked = self._paying(scores)
        while ranked:
            chosen = _with_room(ranked, budget)
            if not chosen or not self.settings.verify or self._verified(session, chosen, budget):
                return chosen
            ranked = ranked[: len(ranked) // 2]
        return []

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """All splits as one rewrite, and behind them the prunes."""
        return built(chosen)

    def _paying(self, scores: Sequence[Score]) -> list[Score]:
        """Those that are worth more than they cost, the best first, at most a share of each site's."""
        worth = {score: score.gain - self._price(score.candidate.cost) for score in scores}
        ranked = sorted((score for score in scores if worth[score] > 0), key=lambda score: -worth[score])
        offered = Counter(morph_of(score).site.name for score in scores)
        taken, gone, units = Counter[str](), Counter[str](), set[tuple[str, int]]()
        found: list[Score] = []
        for score in ranked:
            morph = morph_of(score)
            name, unit, goes = morph.site.name, (morph.site.name, morph.growth), morph.kind == "prune"
            most = max(1, math.floor(self.settings.most * offered[name]))
            if unit not in units and taken[name] < most and gone[name] + goes < morph.site.count:
                found.append(score)
                taken[name] += 1
                gone[name] += goes
                units.add(unit)
        return found

    def _verified(self, session: Session, chosen: Sequence[Score], budget: Budget) -> bool:
        step = built(chosen)
        return lessening(session, step) > self._price(budget.cost(step))

    def _price(self, cost: Cost) -> float:
        return self.settings.price * (cost.parameters if self.settings.cost == "parameters" else cost.macs)


def _with_room(ranked: Sequence[Score], budget: Budget) -> list[Score]:
    """All prunes, which make room, and of the splits as many of the best as have room then."""
    prunes = [score for score in ranked if morph_of(score).kind == "prune"]
    splits = [score for score in ranked if morph_of(score).kind == "split"]
    kept = {*prunes, *fitting(splits, lambda some: budget.fits(built([*prunes, *some])))}
    return [score for score in ranked if score in kept]
