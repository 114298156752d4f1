"""The law that growth loses no freedom, and that what was added can be taken away again."""

from __future__ import annotations

from collections import Counter

import numpy as np

from growir.channels import ChannelSpace, analyse
from growir.graph import Graph
from growir.network import Network
from growir.passes import Prune, Widen


def free(graph: Graph) -> list[ChannelSpace]:
    return [space for space in analyse(graph).spaces if not space.pins]


def freedom(graph: Graph) -> Counter[object]:
    """The free spaces by what makes and what reads them; their places may move when others grow."""
    return Counter(
        (
            frozenset((slot.parameter, slot.axis, slot.group) for slot in space.producers),
            frozenset((slot.parameter, slot.axis, slot.group) for slot in space.consumers),
        )
        for space in free(graph)
    )


def assert_grows_again(net: Network, space: ChannelSpace) -> None:
    """Assert that after a widening all is free that was, and that the prune of what it added undoes it, bit for bit."""
    grown = net.apply(Widen(node=space.name, by=space.stride))
    lost = freedom(net.graph) - freedom(grown.graph)
    assert not lost, f"once {space.name} has grown, {dict(lost)} is pinned"
    if "@" not in space.name:
        again = next(s for s in analyse(grown.graph).spaces if s.name == space.name)
        assert again.units == space.units + space.growth[space.space], (
            f"{space.name} is another space once it has grown"
        )
    if space.uniform:
        return  # its old channels have given shares to the copies
    name = _name(grown.graph, space)
    added = space.growth[space.space]
    back = grown.apply(Prune(node=name, channels=tuple(range(space.units, space.units + added))))
    assert back.graph.hash == net.graph.hash, f"{space.name} does not shrink to what it was"
    for key, array in net.arrays.items():
        assert np.array_equal(array, back.arrays[key]), f"{key} is not what it was before {space.name} grew"


def _name(graph: Graph, space: ChannelSpace) -> str:
    """What the space is called in the grown graph, where a name by position may have moved."""
    mine = {(slot.parameter, slot.axis): slot.runs[0][0] for slot in (*space.producers, *space.consumers)}
    wanted = space.units + space.growth[space.space]
    for other in free(graph):
        theirs = {(slot.parameter, slot.axis): slot.runs[0][0] for slot in (*other.producers, *other.consumers)}
        if other.name == space.name or (theirs.keys() == mine.keys() and other.units == wanted):
            return other.name
    raise AssertionError(f"{space.name} is gone once it has grown")
