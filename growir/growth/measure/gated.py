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

from collections.abc import Iterator, Sequence
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
class _Gate:
    """Which gate each number of an address has: broadcast along the axes where it does not lie."""

    axis: int
    strides: torch.Tensor  # positions, or (groups, positions) where the groups of a tensor differ

    def along(self, gates: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """The gates in a form that multiplies a block of this shape."""
        found = gates[self.strides]
        if found.ndim == 1:
            return found.reshape([-1 if k == self.axis else 1 for k in range(len(shape))])
        rows = found.repeat_interleave(shape[0] // len(found), 0)
        return rows.reshape([shape[0], *(-1 if k == self.axis else 1 for k in range(1, len(shape)))])


class Gated:
    """A module with every unit of some sites split and so many fresh ones in each, as a function of gates.

    Attributes:
        units: What the gates are of, in their order: site by site, splits before fresh units.
        directions: The directions by address, each entry drawn with the standard deviation that the operator's own
            initialiser has: present weights may be zero. Leaves that an optimizer may train in place.
        over: The network with all of them.

    Args:
        module: A growir module.
        sites: Where; none twice.
        split: Whether every unit may be split.
        fresh: How many fresh units each site may get.
        key: What the directions are drawn by.
        learns: Whether slopes reach the module's trained parameters too.

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
        learns: bool = False,
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
                    passes.append(_pass(site, kind, count))
        self.units: tuple[Unit, ...] = tuple(units)
        self.over = OverGrown(module, Passes(passes=tuple(passes)), learns=learns)
        self.directions: dict[Address, torch.Tensor] = {}
        self._gates: dict[Address, _Gate] = {}
        self._like: torch.Tensor = next(t for t in module.state_dict().values() if t.is_floating_point())
        slots = {site.name: site for site in sites}
        graph = find(module).graph
        inits = {name: param.init for name, param in param_table(graph).items()}
        for turn, (address, place) in enumerate(sorted(self.over.lies.items())):
            step = passes[address.place[0]]
            assert isinstance(step, Split | Widen)
            role = _role(slots[step.node], address, place)
            if role is None:
                continue
            drawn = torch.randn(place.shape, generator=generator(*key, turn), dtype=torch.float64)
            drawn = drawn * spread(inits[address.key])
            self.directions[address] = drawn.to(self._like)
            if role == "gated":
                (axis,) = place.at
                strides = torch.from_numpy(place.strides[axis] + self._first[address.place[0]])
                self._gates[address] = _Gate(axis, strides.to(self._like.device))

    def gates(self, value: float = 0.0) -> torch.Tensor:
        """(units,) one number for each, on the module's device and in its dtype."""
        return torch.full((len(self.units),), value, dtype=self._like.dtype, device=self._like.device)

    def given(self, gates: torch.Tensor) -> dict[str, torch.Tensor]:
        """The numbers of all that is new, by address; what is left out starts as the passes have it."""
        found: dict[str, torch.Tensor] = {}
        for address, direction in self.directions.items():
            gate = self._gates.get(address)
            found[address] = direction if gate is None else direction * gate.along(gates, direction.shape)
        return found

    def __call__(self, gates: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs on a batch, as many as the graph has; differentiable in gates and directions."""
        return self.over(self.given(gates), *inputs)

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


def _pass(site: Site, kind: Kind, count: int) -> Pass:
    if kind == "fresh":
        return Widen(node=site.name, by=count * site.space.stride)
    units = range(site.space.units)
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
