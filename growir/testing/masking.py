"""What pruning is measured against: the same network with the weights that read the pruned channels at zero."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from growir.channels import Slot, analyse
from growir.network import Network
from growir.passes import Prune


def masked(network: Network, prune: Prune) -> Network:
    """The network, as wide as before, in which nothing reads the channels that `prune` removes.

    Raises:
        PassRefused: The pass does not fit the network.
    """
    prune.check(network.graph)
    plan = prune.plan(prune.space(network.graph))
    arrays: dict[str, NDArray[Any]] = {}
    for space in analyse(network.graph).spaces:
        if space.space not in plan:
            continue
        gone = np.setdiff1d(np.arange(space.units), plan[space.space].index)
        for slot in space.consumers:
            array = arrays.setdefault(slot.parameter, network.arrays[slot.parameter].copy())
            _zero(array, slot, gone)
    return network.with_arrays(arrays)


def _zero(array: NDArray[Any], slot: Slot, units: NDArray[np.int64]) -> None:
    part = np.split(array, slot.groups)[slot.group] if slot.groups > 1 else array
    numbers: list[int] = units.tolist()
    at = [position for unit in numbers for position in slot.positions[unit]]
    np.moveaxis(part, slot.axis, 0)[at] = 0
