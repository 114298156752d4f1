"""Splits of a site's units: the numbers theta that part the two of each pair, and the pass that splits some of them.

A unit with incoming weights w becomes two with w - theta and w + theta. The numbers of all units of a site lie in
blocks by address, each in the shape of the parameter before the split, as `Split` takes them for every unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from growir.addresses import Address
from growir.backends.torch_arrays import to_array
from growir.channels import Slot
from growir.edits import Remap
from growir.graph import Graph
from growir.growth.measure.sites import Site
from growir.passes import Split

Theta = Mapping[Address, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Where the numbers of one address lie.

    Attributes:
        key: The parameter.
        axis: Its axis that the units lie on.
        shape: Of the numbers.
        positions: (k,) for each position of the block along that axis the parameter's own.
        growths: (k,) and the smallest growth of the site that it belongs to.
    """

    key: str
    axis: int
    shape: tuple[int, ...]
    positions: NDArray[np.int64]
    growths: NDArray[np.int64]

    def moved(self, parameter: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        """The parameter with theta added to what makes the units."""
        if theta.shape == parameter.shape and bool((np.diff(self.positions) == 1).all()):
            return parameter + theta
        return parameter.index_add(self.axis, torch.from_numpy(self.positions).to(theta.device), theta)

    def norms(self, numbers: torch.Tensor) -> torch.Tensor:
        """The norm of the numbers that each smallest growth has, (count,), of a block of this shape."""
        squares = numbers.square().movedim(self.axis, 0).flatten(1).sum(1)
        count = int(self.growths.max()) + 1
        return squares.new_zeros(count).index_add(0, self._growths(squares), squares).sqrt()

    def scaled(self, numbers: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """The numbers of each smallest growth times its own factor of (count,)."""
        along = factors[self._growths(factors)]
        return numbers * along.reshape([-1 if k == self.axis else 1 for k in range(numbers.ndim)])

    def own(self, parameter: torch.Tensor) -> torch.Tensor:
        """The numbers of the parameter where the block lies."""
        return parameter.index_select(self.axis, torch.from_numpy(self.positions).to(parameter.device))

    def _growths(self, like: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.growths).to(like.device)


def blocks_of(graph: Graph, site: Site) -> dict[Address, Block]:
    """Where the numbers lie that may part pairs of a site, by address as in `Split`: only in what makes its units."""
    each, slots = site.space.growth[site.space.space], {(slot.parameter, slot.axis): slot for slot in site.makes}
    found: dict[Address, Block] = {}
    edits = _split(site, range(site.count), {}).rewrite(graph).edits
    for edit in (each for each in edits if isinstance(each, Remap)):
        for place in edit.places:
            (axis, *more) = place.at
            slot = slots.get((edit.key, axis))
            if place.partners and not more and slot is not None:
                positions, units = _along(slot)
                found[place.address] = Block(edit.key, axis, place.shape, positions, units // each)
    return found


def split(site: Site, blocks: Mapping[Address, Block], theta: Theta, growths: Sequence[int]) -> Split:
    """The pass that splits some of a site's units, each new one with half of the outgoing weights.

    Args:
        site: The site.
        blocks: As `blocks_of` has them.
        theta: By address the numbers of all units; addresses that are left out have zeros.
        growths: Which of the site's smallest growths.
    """
    chosen = sorted(growths)
    values: dict[str, NDArray[np.floating]] = {}
    for address, numbers in theta.items():
        block = blocks[address]
        places = np.flatnonzero(np.isin(block.growths, chosen))
        values[address] = to_array(numbers.detach()).take(places, block.axis)
    return _split(site, chosen, values)


def _split(site: Site, growths: Sequence[int], values: Mapping[str, NDArray[np.floating]]) -> Split:
    each = site.space.growth[site.space.space]
    units = tuple(unit for k in growths for unit in range(k * each, (k + 1) * each))
    return Split(node=site.name, channels=units, shares=(0.5,) * len(units), values=dict(values))


def _along(slot: Slot) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The positions of all units on a slot's axis, run by run, and the unit of each."""
    positions = [np.arange(start, start + units * block) for start, units, block in slot.runs]
    owners = [np.repeat(np.arange(units), block) for _, units, block in slot.runs]
    return np.concatenate(positions), np.concatenate(owners)
