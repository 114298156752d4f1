"""Learnable growth (Yuan et al. 2020) and learnable sparse growth (GROWN): gates learn which fresh channels come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from pydantic import Field

from growir.backends.torch_arrays import to_array
from growir.growth.budget import Budget
from growir.growth.measure.choice import Choice, unit_of
from growir.growth.measure.gated import Unit
from growir.growth.measure.judging import along_path
from growir.growth.measure.learning import batch_statistics, training_batches
from growir.growth.measure.offered import Offered, learned, loss_of
from growir.growth.measure.trials import between
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.sections import Count, NonNegative, Positive
from growir.growth.select import filled, ranked
from growir.network import Network
from growir.passes import Sequence as Steps
from growir.passes import Update
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session


class LearnableSettings(PolicySettings):
    """Fresh channels behind gates, which learn together with all weights which of them the network grows by.

    Attributes:
        name: Learnable growth: gates learn which fresh channels come in.
        sparse: Whether the kernels of fresh channels have gates of their own. What they close is zero as it comes in,
            and is trained on like all else.
        offered: Fresh channels that each space is offered, as a share of its width, one at least.
        penalty: On the share of the channels' gates that are open: what all of them must lessen the loss by.
        learn_steps: Batches that gates and weights learn on.
        gate_start: What gates start with, of kernels too: 2 opens 88 % of them while they learn, 0 a half. In use those
            above 0 are open.
        gate_rate: How far gates go by each batch.
        judge_batches: Batches that candidates are judged on.
    """

    name: str = "learnable"
    sparse: bool = True
    offered: Positive = 0.3
    penalty: NonNegative = 0.1
    learn_steps: Count = 100
    gate_start: Annotated[float, Field(strict=True, ge=-10, le=10, allow_inf_nan=False)] = 2.0
    gate_rate: Positive = 0.1
    judge_batches: Count = 4


class Learnable:
    """The policy; see LearnableSettings.

    All of it happens on a copy: fresh channels, their gates and every weight that the run trains learn together. What
    is grown is then one rewrite, the change of the old weights as an `Update` and the channels whose gates are open
    with their numbers. Within one task nothing keeps a kernel that its gate has closed at zero: it comes in as zeros,
    and the training that follows moves it. Only in continual learning does the mask persist (`continual.grown`).
    """

    name: ClassVar[str] = "learnable"
    Settings: ClassVar[type[PolicySettings]] = LearnableSettings

    def __init__(self, settings: LearnableSettings) -> None:
        self.settings = settings
        self._choice: Choice  # of the growth that is being decided, as is what follows
        self.offered: Offered  # after `score`
        self._moved: Update | None  # what the old weights have learned beside the gates

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """Each channel that is offered and that the budget has room for."""
        self._choice = choice = Choice(session.graph)
        return choice.fitting(
            budget, [Unit(name, "fresh", k) for name, count in self._counts().items() for k in range(count)]
        )

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why there is nothing to choose in some spaces."""
        return self._choice.skipped

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """The part that each has in what open gates lessen the mean loss by, with the weights learned; 0 where closed.

        Raises:
            RunError: The loss is not finite.
        """
        settings, seed, start = self.settings, session.seed, session.network()
        module = start.to_torch().to(session.device)
        self.offered = offered = Offered(
            module,
            self._choice.sites,
            self._counts(),
            sparse=settings.sparse,
            key=(seed, 56, key),
            start=settings.gate_start,
        )
        with batch_statistics(module, session.graph):
            batches = training_batches(session, seed, 57, key)
            learned(
                session,
                offered,
                islice(batches, settings.learn_steps),
                penalty=settings.penalty,
                rate=settings.gate_rate,
                key=(seed, 58, key),
            )
            judged = islice(batches, settings.judge_batches)
            changes = along_path(offered.open(), loss_of(session, offered), judged)
        arrays = {key: to_array(parameter) for key, parameter in offered.old.items()}
        self._moved = between(start, Network(start.graph, {**start.arrays, **arrays}, start.values))
        gains, gates, kernels = (
            cast("list[float]", each.tolist()) for each in (-changes, offered.grown.detach(), offered.kernel_shares())
        )
        place = {unit: k for k, unit in enumerate(offered.units)}
        return [
            Score(each, gains[k], notes={"gate": gates[k], **({"kernels": kernels[k]} if settings.sparse else {})})
            for each in candidates
            for k in [place[each.part]]
        ]

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """Those whose gates are open, the best first, as many as fit together and each later one that still does."""
        opened = [score for score in scores if score.notes["gate"] > 0]
        return filled(
            ranked(opened),
            lambda some: budget.fits(self._choice.plan(map(unit_of, some))),
            lambda score: unit_of(score).site,
        )

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """What the old weights have learned, and the channels with theirs."""
        place = {unit: k for k, unit in enumerate(self.offered.units)}
        grown = self.offered.chosen([place[unit_of(score)] for score in chosen])
        return grown if self._moved is None else Steps(passes=(self._moved, grown))

    def _counts(self) -> dict[str, int]:
        """How many channels each site is offered, in its smallest growths."""
        spaces = [site.space for site in self._choice.sites]
        return {s.name: max(1, round(self.settings.offered * s.width / s.stride)) for s in spaces}
