"""Gated networks: every candidate unit of a network at once, each behind a number that is 0 where it does nothing.

    gated = Gated(module, sites(graph).sites, fresh=4, key=(seed, 30))
    gates = gated.gates(0.01).requires_grad_()
    loss = objective(gated(gates, x), target)        # slopes of all gates and of all directions
    step = gated.chosen([0, 17, 18], gates)          # those units stay, as one recorded pass

A split of unit i replaces it by two with incoming weights w + g_i d_i and w - g_i d_i, of which each has half of the
outgoing weight. A fresh unit j has incoming weights d_j and outgoing weights g_j e_j (Firefly, Wu et al. 2020, eq. 2
and 5). Directions d and e are tensors in the shapes of the network as it is, whatever else grows beside them. Only
mixing weights have them; what carries fresh units (norms, biases) starts as it always does. So the function is the
network's own where all gates are 0, and a network that grows by some units is the gated one with the other gates at 0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from growir.addresses import Address
from growir.data.shuffling import generator
from growir.errors import GrowirError
from growir.growth.measure.overgrown import OverGrown
from growir.growth.measure.sites import Site
from growir.live.modules import find
from growir.params import param_table, spread
from growir.passes import Sequence as Passes
from growir.passes import Split, Widen
from growir.remap import Place
from growir.rewrite import Pass

Kind = Literal["split", "fresh"]


@dataclass(frozen=True, slots=True)
class Unit:
    """A candidate: one of the smallest growths of a site, mostly one unit.

    Attributes:
        site: The name of its space.
        kind: Whether an old unit is split, or a fresh one comes.
        index: Counted from 0, of the old units or of the fresh ones.
    """

    site: str
    kind: Kind
    index: int

    def __str__(self) -> str:
        return f"{self.site} {self.kind} {self.index}"


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Which gate each number of an address belongs to: broadcast along the axes where it does not lie."""

    axis: int
    strides: torch.Tensor  # positions, or (groups, positions) where the groups of a tensor differ

    def along(self, gates: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """The gates in a form that multiplies a block of this shape."""
        found = gates[self.strides]
        if found.ndim == 1:
            return found.reshape([-1 if k == self.axis else 1 for k in range(len(shape))])
        rows = found.repeat_interleave(shape[0] // len(found), 0)
        return rows.reshape([shape[0], *(-1 if k == self.axis else 1 for k in range(1, len(shape)))])

    def sums(self, block: torch.Tensor, count: int) -> torch.Tensor:
        """(count,) the sum of a block's numbers by gate."""
        if self.strides.ndim == 1:
            found = block.movedim(self.axis, 0).flatten(1).sum(1)
        else:
            rows = block.reshape(len(self.strides), -1, *block.shape[1:])
            found = rows.movedim(self.axis + 1, 1).flatten(2).sum(2).flatten()
        return found.new_zeros(count).index_add_(0, self.strides.flatten(), found)


class Gated:
    """A module with every unit of some sites split and so many fresh ones in each, as a function of gates.

    Attributes:
        units: What the gates are of, in their order: site by site, splits before fresh units.
        directions: The directions by address, each entry drawn with the standard deviation that the operator's own
            initialiser has: present weights may be zero. Leaves that an optimizer may train in place.
        spreads: Those standard deviations.
        over: The network with all of them.

    Args:
        module: A growir module.
        sites: Where; none twice.
        split: Whether every unit may be split.
        fresh: How many fresh units each site may get.
        key: What the directions are drawn by.
        apart: Parameters that are the concern of those sites alone that lie within them, as those of an idle block are:
            what units of other sites would add to them is zero and stays so.
        learns: Whether slopes reach the module's trained parameters too.
        bare: Whether what carries fresh units is zero where it would be drawn, as biases are.

    Raises:
        GrowirError: There is nothing to choose from.
    """

    def __init__(
        self,
        module: nn.Module,
        sites: Sequence[Site],
        *,
        split: bool = True,
        fresh: int = 0,
        key: Sequence[int] = (0,),
        apart: Collection[str] = (),
        learns: bool = False,
        bare: bool = False,
    ) -> None:
        if not sites or not (split or fresh):
            raise GrowirError("a gated network needs sites, and splits or fresh units in them; it was given none")
        passes: list[Pass] = []
        units: list[Unit] = []
        self._first: list[int] = []  # by pass the place of its first gate
        for site in sites:
            counts: dict[Kind, int] = {"split": site.count if split else 0, "fresh": fresh}
            for kind, count in counts.items():
                if count:
                    self._first.append(len(units))
                    units += [Unit(site.name, kind, k) for k in range(count)]
                    passes.append(growth(site, kind, range(count)))
        self.units: tuple[Unit, ...] = tuple(units)
        self.over = OverGrown(module, Passes(passes=tuple(passes)), learns=learns)
        self.directions: dict[Address, torch.Tensor] = {}
        self.spreads: dict[Address, float] = {}
        self._lanes: dict[Address, Lane] = {}
        self._longest: dict[Address, torch.Tensor] = {}  # norms that directions have at most, by gate
        self._gated: set[Address] = set()
        self._still: dict[Address, torch.Tensor] = {}
        self._named: dict[tuple[str, type[Pass], str, int], Address] = {}
        self._like: torch.Tensor = next(t for t in module.state_dict().values() if t.is_floating_point())
        slots = {site.name: site for site in sites}
        graph = find(module).graph
        inits = {name: param.init for name, param in param_table(graph).items()}
        for turn, (address, place) in enumerate(sorted(self.over.lies.items())):
            step = passes[address.place[0]]
            assert isinstance(step, Split | Widen)
            site = slots[step.node]
            if address.key in apart and not site.within(apart):
                self._still[address] = torch.zeros(place.shape).to(self._like)
                continue
            role = _role(site, address, place)
            if role is None:
                if bare and len(place.at) == 1 and not place.partners and spread(inits[address.key]):
                    self._still[address] = torch.zeros(place.shape).to(self._like)
                continue
            drawn = torch.randn(place.shape, generator=generator(*key, turn), dtype=torch.float64)
            self.spreads[address] = spread(inits[address.key])
            self.directions[address] = (drawn * self.spreads[address]).to(self._like)
            (axis,) = place.at
            self._named[site.name, type(step), address.key, axis] = address
            strides = torch.from_numpy(place.strides[axis] + self._first[address.place[0]])
            self._lanes[address] = Lane(axis, strides.to(self._like.device))
            numbers = self.sums(address, torch.ones_like(self.directions[address]))
            self._longest[address] = self.spreads[address] * numbers.sqrt()
            if role == "gated":
                self._gated.add(address)

    @property
    def behind_gates(self) -> list[Address]:
        """The directions that gates lie before: what splits part by, and what fresh units write."""
        return [address for address in self.directions if address in self._gated]

    def sums(self, address: Address, block: torch.Tensor) -> torch.Tensor:
        """(units,) the sum of the numbers of a block at an address that are each unit's."""
        return self._lanes[address].sums(block, len(self.units))

    def gates(self, value: float = 0.0) -> torch.Tensor:
        """(units,) one number for each, on the module's device and in its dtype."""
        return torch.full((len(self.units),), value, dtype=self._like.dtype, device=self._like.device)

    def given(self, gates: torch.Tensor) -> dict[str, torch.Tensor]:
        """The numbers of all that is new, by address; what is left out starts as the passes have it."""
        found: dict[str, torch.Tensor] = dict(self._still.items())
        for address, direction in self.directions.items():
            if address in self._gated:
                found[address] = direction * self._lanes[address].along(gates, direction.shape)
            else:
                found[address] = direction
        return found

    @torch.no_grad()
    def fill(self, site: str, key: str, axis: int, numbers: torch.Tensor) -> None:
        """Let the fresh units of a site have these directions.

        Args:
            site: Its name.
            key: A parameter that makes or reads them.
            axis: Where they lie on it.
            numbers: (units, ...) those of each, in the order of the parameter with this axis first.
        """
        address = self._named[site, Widen, key, axis]
        block, strides = torch.zeros_like(self.directions[address]), self.over.lies[address].strides[axis]
        along, order = block.movedim(axis, 0), torch.from_numpy(np.argsort(strides, kind="stable"))
        along[order.to(block.device)] = numbers.to(block).reshape(len(order), *along.shape[1:])
        self.directions[address] = block

    @torch.no_grad()
    def bound(self) -> None:
        """Shorten directions that are longer than a new layer's weights are, of each unit by itself.

        The root mean square of a unit's numbers is then at most the initialiser's standard deviation: ||d|| <= 1 in
        units that fit every layer.
        """
        for address, direction in self.directions.items():
            norms = self.sums(address, direction.square()).sqrt_()
            shrink = (self._longest[address] / norms.clamp_min_(torch.finfo(norms.dtype).tiny)).clamp_max_(1.0)
            direction *= self._lanes[address].along(shrink, direction.shape)

    def __call__(self, gates: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs on a batch, as many as the graph has; differentiable in gates and directions."""
        return self.over(self.given(gates), *inputs)

    def take(self, part: Gated) -> None:
        """Take up the directions of a gated network of some of these sites, whatever it calls their places."""
        for name, address in part._named.items():
            self.directions[self._named[name]] = part.directions[address]

    def chosen(self, units: Sequence[int], gates: torch.Tensor) -> Pass:
        """The pass that brings some units, with their directions and gates as they stand.

        Args:
            units: Places in `units`.
            gates: (units,) of all.

        Raises:
            PassRefused: None is named, or one that there is not.
        """
        bounds = [*self._first, len(self.units)]
        kept: dict[int, list[int]] = {}
        for unit in sorted(units):
            turn = int(np.searchsorted(bounds, unit, side="right")) - 1
            kept.setdefault(turn, []).append(unit - bounds[turn] if 0 <= turn < len(self._first) else unit)
        with torch.no_grad():
            return self.over.chosen(kept, self.given(gates))


def groups(sites: Sequence[Site], count: int) -> Iterator[Sequence[Site]]:
    """The sites in so many groups of neighbours, or fewer: gated networks of a few sites each need less memory."""
    each = -(-len(sites) // max(count, 1))
    for start in range(0, len(sites), max(each, 1)):
        yield sites[start : start + each]


def growth(site: Site, kind: Kind, indices: Sequence[int]) -> Pass:
    """The pass that brings some units of a site, without numbers: so many fresh ones, or splits of these."""
    if kind == "fresh":
        return Widen(node=site.name, by=len(indices) * site.space.stride)
    each = site.space.growth[site.space.space]
    units = [unit for k in indices for unit in range(k * each, (k + 1) * each)]
    return Split(node=site.name, channels=tuple(units), shares=(0.5,) * len(units))


def _role(site: Site, address: Address, place: Place) -> Literal["gated", "free"] | None:
    """Whether an address has a direction behind gates, one without, or none at all: what carries units, and corners."""
    if len(place.at) != 1:
        return None
    (axis,) = place.at
    made = any(slot.parameter == address.key and slot.axis == axis for slot in site.makes)
    if place.partners:
        return "gated" if made else None
    if any(slot.parameter == address.key and slot.axis == axis for slot in site.reads):
        return "gated"
    return "free" if made else None
