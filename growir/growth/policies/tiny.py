"""TINY (Verbockhaven et al. 2024): fresh units whose weights are solved from what the layers that read them lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

import torch
from pydantic import Field

from growir.data.nests import tensors_of
from growir.data.shuffling import Shuffle
from growir.data.source import Batch
from growir.growth.budget import Budget
from growir.growth.measure.bottlenecks import Bottlenecks, Lacking
from growir.growth.measure.choice import Choice, Order, unit_of
from growir.growth.measure.gated import Gated, Unit
from growir.growth.measure.learning import batch_statistics, mean_loss, training_batches
from growir.growth.measure.sites import Site
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.sections import Count, Whole
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session

AMPLITUDES = (0.0, *(2.0**k for k in range(-10, 7)))


class TinySettings(PolicySettings):
    """Fresh units whose weights are solved from what the layers that read them lack.

    Attributes:
        name: TINY: fresh units in closed form, from what the layers that read them lack.
        fresh_units: How many each space is offered, 1 or more.
        learn_batch: Samples that weights are solved on.
        judge_batches: Batches that the amplitude is found on, one for all units of a growth. Of 0 it is 0, which keeps
            the function.
        order: "gain" takes those first that gain most, "per_parameter" those that gain most for each parameter.
    """

    name: str = "tiny"
    fresh_units: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 6
    learn_batch: Count = 512
    judge_batches: Whole = 4
    order: Order = "gain"


class Tiny:
    """The policy; see TinySettings."""

    name: ClassVar[str] = "tiny"
    Settings: ClassVar[type[PolicySettings]] = TinySettings

    def __init__(self, settings: TinySettings) -> None:
        self.settings = settings
        self._choice: Choice  # of the growth that is being decided, as is what follows
        self._gated: Gated
        self._place: dict[Unit, int] = {}  # in it, of each unit with the better sign
        self._skipped: Mapping[str, str] = {}
        self._key = 0

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """Each fresh unit that the budget has room for, of the spaces whose layers a closed form is known for."""
        self._choice = choice = Choice(session.graph)
        lacks = Bottlenecks(session.module, choice.sites)
        plain, self._skipped = {site.name for site in lacks.sites}, {**choice.skipped, **lacks.skipped}
        return choice.candidates(budget, split=False, fresh=self.settings.fresh_units, among=plain)

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why there is nothing to choose in some spaces."""
        return self._skipped

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """The first-order gain of each unit for an amplitude of one, with the better sign of its weights.

        Where units are linear it is the squared singular value, which the notes have as `solved`, with either sign. It
        ranks, since the amplitude is found when it is known what grows.
        """
        self._key, wanted = key, {candidate.part.site for candidate in candidates}
        ready = session.reading.whole(session.data.train)
        batch = next(iter(ready.batches(self.settings.learn_batch, Shuffle((session.seed, 54, key)), 0)))
        found = self._solved(session, [site for site in self._choice.sites if site.name in wanted], batch)
        if not found:
            return []
        gated, most = self._gated, self.settings.fresh_units
        gates = gated.gates().requires_grad_()
        with batch_statistics(session.module, session.graph):
            loss = mean_loss(session, gated)(gates, batch)
        if not loss.requires_grad:  # no unit reaches an output
            return []
        gains = cast("list[float]", (-torch.autograd.grad(loss, gates)[0]).tolist())
        place, scores = {unit: k for k, unit in enumerate(gated.units)}, list[Score]()
        for candidate in candidates:
            unit: Unit = candidate.part
            if unit.site in found and unit.index < len(found[unit.site].gains):
                k = place[unit]
                k = self._place[unit] = max(k, k + most, key=lambda one: gains[one])
                solved = float(found[unit.site].gains[unit.index])
                scores.append(Score(candidate, gains[k], notes={"solved": solved}, ordinal=True))
        return scores

    def _solved(self, session: Session, sites: Sequence[Site], batch: Batch) -> dict[str, Lacking]:
        """By site what it lacks; the gated network then has these units, and behind them those of the other sign."""
        lacks, most = Bottlenecks(session.module, sites), self.settings.fresh_units
        session.meter.count(lacks.operations(len(batch)))
        each = lacks.lacking(
            tuple(tensors_of(batch.inputs)), lambda out: session.objective.each(out, batch.target), most
        )
        found = {name: one for name, one in each.items() if isinstance(one, Lacking)}
        sites, self._place = [site for site in sites if site.name in found], {}
        if sites:
            drawn = (session.seed, 53, self._key)
            self._gated = Gated(session.module, sites, split=False, fresh=2 * most, key=drawn, bare=True)
        for name, one in found.items():
            for (parameter, axis), numbers in (*one.incoming.items(), *one.outgoing.items()):
                both = numbers.new_zeros(2, most, numbers.shape[1])
                both[0, : len(numbers)], both[1, : len(numbers)] = numbers, -numbers
                self._gated.fill(name, parameter, axis, both.flatten(0, 1))
        return found

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """The best that fit together, and each later one that still does."""
        return self._choice.within(budget, scores, self.settings.order)

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """The units with the amplitude of outgoing weights that leaves the smallest loss, which may be none."""
        units = [self._place[unit_of(score)] for score in chosen]
        # Deep networks multiply amplitudes, so large ones may overflow: those are no choice, and no error.
        loss, opened = mean_loss(session, self._gated, finite=False), self._gated.gates()
        opened[units] = 1.0
        losses = torch.zeros(len(AMPLITUDES))
        with torch.no_grad(), batch_statistics(session.module, session.graph):
            for batch in islice(training_batches(session, session.seed, 55, self._key), self.settings.judge_batches):
                losses += torch.tensor([len(batch) * float(loss(size * opened, batch)) for size in AMPLITUDES])
        best = int(losses.nan_to_num(torch.inf).argmin())
        return self._choice.built(self._gated, units, AMPLITUDES[best] * opened)
