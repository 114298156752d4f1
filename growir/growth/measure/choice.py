"""What units a growth can choose from, and the pass that brings those that were chosen.

choice = Choice(graph, width=True, depth=True)
choice.units(split=True, fresh=4)            # of every site, and of idle blocks put everywhere
choice.plan(units)                           # what brings some of them, without numbers: what budgets ask
gated = choice.gated(module, choice.sites, split=True, fresh=4, key=(0,))  # of a module of `choice.graph`
choice.built(gated, [0, 17], gates)          # the recorded pass, on the graph without idle blocks
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from growir.addresses import Address
from growir.backends.torch_arrays import to_array
from growir.edits import Remap
from growir.graph import Graph
from growir.growth.budget import Budget, Cost
from growir.growth.measure.gated import Gated, Kind, Unit, growth
from growir.growth.measure.idle import IdleBlocks, idle_layers
from growir.growth.measure.sites import Site, sites
from growir.growth.policy import Candidate, Score, UnitAt
from growir.growth.select import filled, per_cost, ranked, together
from growir.passes import InsertLayer, Widen
from growir.passes import Sequence as Passes
from growir.rewrite import Pass
from growir.runs.records import LAYER

Order = Literal["gain", "per_parameter"]


class Choice:
    """The sites of a graph, those of idle blocks among them.

    Attributes:
        graph: The graph with its idle blocks; without any, the graph itself.
        blocks: They.
        sites: Where there are candidates.
        skipped: Why there is nothing to choose in other spaces of the graph, by name, and why no layers may come in.

    Args:
        graph: The graph that grows.
        width: Whether its own sites are among them.
        depth: Whether idle blocks are.
        activation: Of the blocks.
        among: Whether a site of the graph's own is one of those, by its name; by default all are.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        width: bool = True,
        depth: bool = False,
        activation: str = "relu",
        among: Callable[[str], bool] | None = None,
    ) -> None:
        self._own = graph
        self.blocks = IdleBlocks(graph, idle_layers(graph, activation) if depth else ())
        self.graph = self.blocks.graph
        named = [site.name for site in sites(graph).sites] if width else []
        own = {name for name in named if among is None or among(name)}
        found = sites(self.graph).sites
        self._block = {site.name: k for site in found if (k := self.blocks.around(site)) is not None}
        self.sites: tuple[Site, ...] = tuple(site for site in found if site.name in own or site.name in self._block)
        nowhere = {"new layers": NOWHERE} if depth and not self._block else {}
        self.skipped: Mapping[str, str] = {**(sites(graph).skipped if width else {}), **nowhere}
        self._sites = {site.name: site for site in self.sites}

    def units(self, *, split: bool, fresh: int) -> list[Unit]:
        """The candidates. An idle unit is not worth a split."""
        found: list[Unit] = []
        for site in self.sites:
            splits = site.count if split and site.name not in self._block else 0
            found += [Unit(site.name, "split", k) for k in range(splits)]
            found += [Unit(site.name, "fresh", k) for k in range(fresh)]
        return found

    def cost(self, unit: Unit, budget: Budget) -> Cost:
        """What a unit costs by itself: of a block, with the block."""
        if unit.site in self._block:
            return budget.cost(self.blocks.steps[self._block[unit.site]])
        return budget.cost(self._alone(unit))

    def candidate(self, unit: Unit, cost: Cost) -> Candidate:
        """A unit as logs call it."""
        k = self._block.get(unit.site)
        space = unit.site if k is None else LAYER + self.blocks.steps[k].after
        at = UnitAt(space, unit.kind, unit.index)
        return Candidate(f"{space} {unit.kind} {unit.index}", cost, unit, at)

    def candidates(
        self, budget: Budget, *, split: bool, fresh: int, among: Container[str] | None = None
    ) -> list[Candidate]:
        """Each unit that the budget has room for, of all sites or of some, by name."""
        return self.fitting(
            budget, [unit for unit in self.units(split=split, fresh=fresh) if among is None or unit.site in among]
        )

    def fitting(self, budget: Budget, units: Sequence[Unit]) -> list[Candidate]:
        """Those of some units that the budget has room for, each by itself; units of one site are alike."""
        first = {unit.site: unit for unit in reversed(units)}
        costs = {site: self.cost(unit, budget) for site, unit in first.items() if budget.fits(self._alone(unit))}
        return [self.candidate(unit, costs[unit.site]) for unit in units if unit.site in costs]

    def within(self, budget: Budget, scores: Sequence[Score], order: Order) -> list[Score]:
        """Of those that gain anything the best that fit together, and each later one that still does."""
        useful = [score for score in scores if score.gain > 0]
        ordered = per_cost(useful) if order == "per_parameter" else ranked(useful)
        costs = self._least(scores)
        return filled(
            ordered,
            lambda some: self._fits(budget, costs, [unit_of(score) for score in some]),
            lambda score: unit_of(score).site,
        )

    def alike_within(self, budget: Budget, scores: Sequence[Score], alike: Callable[[str], str]) -> list[Score]:
        """The same where sites grow alike: each by as many of its own best, chosen by the sum of their gains.

        Args:
            budget: Of the growth.
            scores: Of all candidates.
            alike: What the sites that grow alike have in common, of the name of one.
        """

        def kind(score: Score) -> str:
            return alike(unit_of(score).site)

        costs = self._least(scores)
        members: dict[str, set[str]] = {}
        for site in self.sites:
            members.setdefault(alike(site.name), set()).add(site.name)
        # Where a site has no candidate, since its unit does not fit, none of those that grow alike does.
        rows = [
            row
            for row in together(scores, lambda score: unit_of(score).site, kind)
            if row.gain > 0 and {unit_of(score).site for score in row.scores} == members[kind(row.scores[0])]
        ]
        found = filled(
            rows,
            lambda some: self._fits(budget, costs, [unit_of(score) for row in some for score in row.scores]),
            lambda row: kind(row.scores[0]),
        )
        return [score for row in found for score in row.scores]

    def _least(self, scores: Sequence[Score]) -> dict[str, Cost]:
        """What a unit of each site costs at least, whatever grows beside it: what it costs by itself.

        Parameters and operations are sums of products of widths, so that another width that grows only adds to what a
        unit costs. A block is there once, however many units it has, so those of blocks may cost nothing more.
        """
        units = {unit_of(score).site: score.candidate.cost for score in scores}
        return {site: cost for site, cost in units.items() if site not in self._block}

    def _fits(self, budget: Budget, costs: Mapping[str, Cost], units: Sequence[Unit]) -> bool:
        """Whether some units fit together; of more than could, that is known without carrying them out."""
        least = sum((costs[unit.site] for unit in units if unit.site in costs), Cost())
        return not budget.beyond(least) and budget.fits(self.plan(units))

    def _alone(self, unit: Unit) -> Pass:
        """What brings one of them: of an own site the pass itself, which is carried out once for each site."""
        if unit.site in self._block:
            return self.plan([unit])
        return growth(self._sites[unit.site], unit.kind, [unit.index])

    def plan(self, units: Iterable[Unit]) -> Pass:
        """What brings some of them, without numbers."""
        by_site: dict[tuple[str, Kind], list[int]] = {}
        widths: dict[int, int] = {}
        for unit in units:
            if unit.site in self._block:
                widths[self._block[unit.site]] = widths.get(self._block[unit.site], 0) + 1
            else:
                by_site.setdefault((unit.site, unit.kind), []).append(unit.index)
        grown = [
            growth(site, kind, sorted(by_site[site.name, kind]))
            for site in self.sites
            for kind in KINDS
            if (site.name, kind) in by_site
        ]
        return _joined(self.blocks.sized(widths), grown)

    def gated(self, module: nn.Module, some: Sequence[Site], *, split: bool, fresh: int, key: Sequence[int]) -> Gated:
        """The candidates in some of the sites of a module of `graph`, each behind its gate."""
        return Gated(module, some, split=split, fresh=fresh, key=key, apart=self.blocks.keys)

    def built(self, gated: Gated, units: Sequence[int], gates: torch.Tensor) -> Pass:
        """What brings some of them with their numbers: the gated network with the other gates at 0.

        Args:
            gated: Of `gated`.
            units: Places in `gated.units`.
            gates: (units,) of all.
        """
        own = [k for k in units if gated.units[k].site not in self._block]
        if len(own) == len(units):
            grown = gated.chosen(own, gates)
            return grown if not self.blocks.steps else self._without(grown, [])
        picked: dict[int, list[int]] = {}
        for k in sorted(set(units) - set(own)):
            picked.setdefault(self._block[gated.units[k].site], []).append(gated.units[k].index)
        numbers = self._numbers(gated, picked, gates)
        inserted = self.blocks.filled(self._own, numbers, {k: len(each) for k, each in picked.items()})
        return _joined(inserted, [self._without(gated.chosen(own, gates), inserted)] if own else [])

    def _numbers(
        self, gated: Gated, picked: Mapping[int, Sequence[int]], gates: torch.Tensor
    ) -> dict[int, dict[str, NDArray[Any]]]:
        """Of each block the numbers of its chosen units, by key."""
        assert isinstance(gated.over.step, Passes)
        with torch.no_grad():
            blocks = {**gated.over.start(), **gated.given(gates)}
        found: dict[int, dict[str, NDArray[Any]]] = {k: {} for k in picked}
        for address, place in gated.over.lies.items():
            step = gated.over.step.passes[address.place[0]]
            k = self._block.get(step.node) if isinstance(step, Widen) else None
            if k is not None and k in picked and len(place.at) == 1:
                (axis,) = place.at
                stays = np.isin(place.strides[axis], picked[k])
                found[k][address.key] = to_array(blocks[address]).compress(stays, axis)
        return found

    def _without(self, grown: Pass, inserted: Sequence[InsertLayer]) -> Pass:
        """The growth of the graph's own sites where only some of the blocks are in, whose layers it leaves alone."""
        assert isinstance(grown, Passes)
        values = {a: v for a, v in grown.values.items() if Address(a).key not in self.blocks.keys}
        plain = tuple(step.model_copy(update={"values": {}}) for step in grown.passes)
        alone = grown.model_validate({**dict(grown), "passes": plain, "values": values})
        if not inserted:
            return alone
        some = IdleBlocks(self._own, inserted)
        for edit in alone.rewrite(some.graph).edits:
            if isinstance(edit, Remap) and edit.key in some.keys:
                values |= {place.address: np.zeros(place.shape) for place in edit.places if len(place.at) == 1}
        return alone.model_validate({**dict(alone), "passes": plain, "values": values})


def unit_of(score: Score) -> Unit:
    """What a score of one of `Choice.candidates` is of."""
    found: Unit = score.candidate.part
    return found


KINDS: tuple[Kind, ...] = ("split", "fresh")
NOWHERE = "no layer reads floats with a batch axis and a width, behind which a residual layer could come in"


def _joined(inserted: Sequence[Pass], grown: Sequence[Pass]) -> Pass:
    """Blocks first, since names of nodes stay: then what grows sees them."""
    if not inserted:
        return grown[0] if len(grown) == 1 and isinstance(grown[0], Passes) else Passes(passes=tuple(grown))
    return Passes(passes=(*inserted, *([Passes(passes=tuple(grown))] if grown else [])))
