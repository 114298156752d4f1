"""Firefly (Wu et al. 2020): splits, fresh units and layers are all tried at once, and those that help most stay."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, cast

import torch
from pydantic import Field, field_validator, model_validator

from growir.errors import PassRefused, RunError, cut
from growir.growth.budget import Budget
from growir.growth.measure.choice import Choice, Order, unit_of
from growir.growth.measure.gated import Gated, groups
from growir.growth.measure.judging import along_path, left_out
from growir.growth.measure.learning import batch_statistics, learned, mean_loss, training_batches
from growir.growth.measure.sites import Site, sites
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.sections import Count, Positive, Word
from growir.nearest import alternatives
from growir.passes.link import check_activation
from growir.rewrite import Pass

if TYPE_CHECKING:
    from growir.growth.session import Session


MOST_NAMES = 1000  # of spaces and lists that a run file names


class FireflySettings(PolicySettings):
    """Splits of all units, fresh units, and layers with them, chosen together by what they do to the loss.

    Attributes:
        name: Firefly.
        move: "width" grows the layers that there are, "depth" puts layers in, "both" does either.
        splits: Whether units of the layers that there are may be split.
        fresh_units: How many each space, and each layer that may come, is offered.
        gate: The largest gates: splits move a weight, and fresh units write, by so many standard deviations of the
            layer's initialiser.
        learn_steps: Batches that gates and directions learn on.
        learn_rate: How far they go by each, as a share of the largest gate.
        judge_batches: Batches that candidates are judged on.
        score: "path" judges all as their gates open together. "leave_one_out" closes one after the other, with a
            forward pass for each.
        order: "gain" takes those first that gain most, "per_parameter" those that gain most for each parameter.
        groups: In how many groups of neighbouring spaces candidates are tried; more of them take less memory.
        layer_activation: Of layers that come in.
        sites: Which spaces grow, by name; * stands for anything, as in "normal.*.edge_*". By default all.
        alike: Module lists whose members grow alike, such as "layers". What stands at the same place in each then gains
            as many units, each member its own best, and what the sum of their gains says is chosen.
    """

    name: str = "firefly"
    move: Literal["width", "depth", "both"] = "width"
    splits: bool = True
    fresh_units: Annotated[int, Field(strict=True, ge=0, le=10_000)] = 6
    gate: Positive = 0.2
    learn_steps: Count = 25
    learn_rate: Positive = 0.1
    judge_batches: Count = 4
    score: Literal["path", "leave_one_out"] = "path"
    order: Order = "gain"
    groups: Count = 1
    layer_activation: Word = "relu"
    sites: Annotated[tuple[Word, ...], Field(min_length=1, max_length=MOST_NAMES)] | None = None
    alike: Annotated[tuple[Word, ...], Field(max_length=MOST_NAMES)] = ()

    @field_validator("layer_activation")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            check_activation(value)
        except PassRefused as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _offers(self) -> Self:
        if not self.fresh_units and (self.move == "depth" or not self.splits):
            raise ValueError("nothing could be chosen: let fresh_units be 1 or more, or split units of a growing width")
        if self.alike and self.move != "width":
            raise ValueError('alike is said of widths; with it, move is "width"')
        if self.alike and self.order != "gain":
            raise ValueError('what grows alike is chosen by the sum of gains; with alike, order is "gain"')
        return self

    def grows(self, site: str) -> bool:
        """Whether a space is one of those that grow."""
        return self.sites is None or any(fnmatchcase(site, pattern) for pattern in self.sites)

    def place(self, site: str) -> str:
        """What a space has in common with those that grow alike: its name without the number of the member."""
        for each in self.alike:
            site = re.sub(rf"((?:^|\.){re.escape(each)})\.[0-9]+(?=\.|@|$)", r"\1.*", site)
        return site


class Firefly:
    """The policy; see FireflySettings."""

    name: ClassVar[str] = "firefly"
    Settings: ClassVar[type[PolicySettings]] = FireflySettings

    def __init__(self, settings: FireflySettings) -> None:
        self.settings = settings
        self._choice: Choice  # of the growth that is being decided, as is what follows
        self._gated: Gated
        self._gates: torch.Tensor

    def check(self, session: Session) -> None:
        """Refuse names of spaces and of lists that the network does not have."""
        names = [site.name for site in sites(session.graph).sites]
        for pattern in self.settings.sites or ():
            if not any(fnmatchcase(name, pattern) for name in names):
                near = alternatives(pattern, names)
                raise RunError(f"policy firefly: sites: no space that can grow is called {cut(pattern)!r}.{near}")
        for each in self.settings.alike:
            alone = self.settings.model_copy(update={"alike": (each,)})
            if all(alone.place(name) == name for name in names):
                raise RunError(
                    f"policy firefly: alike: no space that can grow stands in a member of a list {cut(each)!r}, as "
                    f"{cut(each)}.0.conv would"
                )

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """Each unit that the budget has room for."""
        settings, move = self.settings, self.settings.move
        self._choice = choice = Choice(
            session.graph,
            width=move != "depth",
            depth=move != "width",
            activation=settings.layer_activation,
            among=settings.grows,
        )
        return choice.candidates(budget, split=settings.splits, fresh=settings.fresh_units)

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Why there is nothing to choose in some spaces."""
        return self._choice.skipped

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """The decrease of the mean loss that each is worth, after all have learned together.

        A fresh unit that would raise the loss gets the other sign, as in the paper; a split is the same with either.
        """
        changes = self._tried(session, key)
        place = {unit: k for k, unit in enumerate(self._gated.units)}
        fresh = torch.tensor([unit.kind == "fresh" for unit in self._gated.units], device=changes.device)
        raises = fresh & (changes > 0)
        self._gates = torch.where(raises, -self._gates, self._gates)
        gains = cast("list[float]", torch.where(raises, changes, -changes).tolist())
        gates = cast("list[float]", self._gates.tolist())
        found = [(candidate, place[candidate.part]) for candidate in candidates]
        return [Score(candidate, gains[k], notes={"gate": gates[k]}) for candidate, k in found]

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """The best that fit together, and each later one that still does."""
        if self.settings.alike:
            return self._choice.alike_within(budget, scores, self.settings.place)
        return self._choice.within(budget, scores, self.settings.order)

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """The units with their directions and gates."""
        place = {unit: k for k, unit in enumerate(self._gated.units)}
        return self._choice.built(self._gated, [place[unit_of(score)] for score in chosen], self._gates)

    def _tried(self, session: Session, key: int) -> torch.Tensor:
        """(units,) what each changes the mean loss by; a group of spaces learns and is judged by itself."""
        settings, choice = self.settings, self._choice
        here = session
        if choice.blocks.steps:
            here = session.fork()
            here.grow(choice.blocks.step)

        def offered(some: Sequence[Site], *more: int) -> Gated:
            drawn = (session.seed, 40, key, *more)
            return choice.gated(here.module, some, split=settings.splits, fresh=settings.fresh_units, key=drawn)

        self._gated = whole = offered(choice.sites)
        gates, changes = list[torch.Tensor](), list[torch.Tensor]()
        judge = left_out if settings.score == "leave_one_out" else along_path
        with batch_statistics(here.module, here.graph):
            for k, some in enumerate(groups(choice.sites, settings.groups)):
                part = whole if len(some) == len(choice.sites) else offered(some, k)
                loss, batches = mean_loss(session, part), training_batches(here, session.seed, 41, key)
                gates.append(
                    learned(
                        part, loss, islice(batches, settings.learn_steps), eps=settings.gate, rate=settings.learn_rate
                    )
                )
                changes.append(judge(gates[-1], loss, islice(batches, settings.judge_batches)))
                whole.take(part)
        self._gates = torch.cat(gates)
        return torch.cat(changes)
