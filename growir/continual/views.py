"""What one task sees of a master: masks multiplied in, its own tensors in place, and nothing that it does not use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from growir.channels import ChannelSpace, Slot, analyse
from growir.continual.masks import Mask
from growir.errors import PassRefused
from growir.graph import Graph
from growir.network import Network
from growir.passes import EliminateDead, Prune, Sequence
from growir.reach import live_nodes
from growir.verify import verify

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What a task sees.

    Attributes:
        network: With what the task does not use pruned away.
        masks: The masks without the weights of channels that nothing reads: those are not used, whatever a mask says.
    """

    network: Network
    masks: Mapping[str, Mask]


def view_of(graph: Graph, arrays: Arrays, output: str, own: Arrays, masks: Mapping[str, Mask], name: str) -> View:
    """A task's view.

    Args:
        graph: The master's.
        arrays: All of its tensors.
        output: The task's head.
        own: The task's own tensors, by key.
        masks: By key; weights without one are used whole.
        name: What the network is called.
    """
    seen = {key: own.get(key, array) for key, array in arrays.items()}
    network = up_to(Network(verify(graph.replace(name=name, history=None)), seen), output)
    used = {key: mask.copy() for key, mask in masks.items() if key in network.arrays}
    idle = _idle(network, used)
    network = network.with_arrays(
        {key: np.where(mask, array := network.arrays[key], np.zeros((), array.dtype)) for key, mask in used.items()}
    )
    if steps := tuple(Prune(node=node, channels=units) for node, units in idle.items()):
        network = network.apply(Sequence(passes=steps))
    return View(Network(network.graph.replace(history=None), network.arrays), used)


def up_to(network: Network, output: str) -> Network:
    """A network with one of its outputs and what that depends on, without a history."""
    found = Network(network.graph.replace(outputs=(output,), history=None), network.arrays)
    if live_nodes(found.graph).issuperset(found.graph.by_name):
        return found
    found = found.apply(EliminateDead())
    return Network(found.graph.replace(history=None), found.arrays)


def _idle(network: Network, masks: dict[str, Mask]) -> dict[str, tuple[int, ...]]:
    """The units that all who read them read with weights of zero, by the name of their space.

    Their own weights are taken out of the masks on the way, since a unit that goes may have been the last to read
    others: of x -> a -> b -> y where b's unit 3 is not read, nothing else may read a's unit 1. One of a space stays,
    with weights of zero: which one must not depend on the way, or a view would not be its own view.
    """
    arrays = {key: (array != 0) & masks.get(key, True) for key, array in network.arrays.items()}
    spaces = [space for space in analyse(network.graph).spaces if _can_shrink(network.graph, space)]
    found: dict[str, NDArray[np.bool_]] = {}
    count = -1
    while count < (count := sum(int(idle.sum()) for idle in found.values())):
        for space in spaces:
            idle = np.ones(space.units, bool)
            for slot in space.consumers:
                idle &= ~_read(arrays[slot.parameter], slot)
            for slot in space.producers if idle.any() else ():
                _leave(arrays[slot.parameter], slot, idle)
                if slot.parameter in masks:
                    _leave(masks[slot.parameter], slot, idle)
            found[space.name] = idle
    for idle in found.values():
        idle[0] &= not idle.all()
    return {name: tuple(map(int, np.flatnonzero(idle))) for name, idle in found.items() if idle.any()}


def _can_shrink(graph: Graph, space: ChannelSpace) -> bool:
    """Whether any units of a space can go, without others that would have to go with them."""
    if space.pins or space.uniform or not space.consumers or space.units < 2:
        return False
    if len(space.shrink) > 1 or space.shrink[space.space] != 1:
        return False
    try:
        Prune(node=space.name, channels=(0,)).check(graph)
    except PassRefused:
        return False
    return True


def _read(used: NDArray[np.bool_], slot: Slot) -> NDArray[np.bool_]:
    """Of each unit, whether any weight that reads it is used."""
    if slot.groups > 1:
        used = np.split(used, slot.groups)[slot.group]
    other = tuple(k for k in range(used.ndim) if k != slot.axis)
    along: NDArray[np.bool_] = np.asarray(used.any(axis=other))
    return np.asarray([along[list(positions)].any() for positions in slot.positions])


def _leave(used: NDArray[np.bool_], slot: Slot, idle: NDArray[np.bool_]) -> None:
    """Say of what makes idle units that it is not used; of a mask that tells no kernels apart on that axis, nothing."""
    rows = [at for unit in np.flatnonzero(idle) for at in slot.positions[unit]]
    if slot.groups == 1 and used.shape[slot.axis] > max(rows):
        used[(slice(None),) * slot.axis + (rows,)] = False
