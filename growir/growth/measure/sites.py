"""Where a network can become wider: its free channel spaces."""

from __future__ import annotations

from growir.channels import ChannelSpace, analyse
from growir.graph import Graph
from growir.passes import Widen


def free_spaces(graph: Graph) -> list[ChannelSpace]:
    """The channel spaces that nothing pins, in document order."""
    return [space for space in analyse(graph).spaces if not space.pins]


def wider(space: ChannelSpace, share: float, seed: int = 0) -> Widen:
    """The widening of a space by a share of its width: a whole number of its strides, one at least."""
    strides = max(1, round(share * space.width / space.stride))
    return Widen(node=space.name, by=strides * space.stride, seed=seed)
