"""Clone: every width of a graph by one factor, by copies."""

from __future__ import annotations

import math
from collections.abc import Sequence as Listed
from typing import cast

from growir.channels import ChannelSpace, analyse
from growir.errors import PassRefused, cut
from growir.graph import Graph, HasGraph, graph_of
from growir.ops.spaces import Space
from growir.passes.resizing import in_turn
from growir.passes.sequence import Sequence
from growir.passes.widen import Widen


def clone(graph: Graph | HasGraph, factor: float = 2, *, nodes: Listed[str] = (), apart: float = 1.0) -> Sequence:
    """The widenings that make every free width of a graph so many times as large and keep its function.

    All channels are copied equally often, with equal shares, and kept apart by what reads them: HyperCloning (Samragh
    et al. 2024) with numbers that sum to zero over copies. Where groups of heads hold heads, there are more groups.
    Channels that one tensor makes and reads have no copies that keep the function, unless a norm stands in between;
    they become more by fresh ones.

    Args:
        graph: The graph, or a network.
        factor: By how much, above 1. In spaces that are normalised as a whole, such as a transformer's stream, it is a
            whole number.
        nodes: The names of the spaces that grow, as `channel_spaces` gives them. By default all free ones, but for rows
            of tables that nothing reads.
        apart: As `Widen` has it.

    Raises:
        PassRefused: A name stands for no space, or for one that is pinned; the factor is none, or does not fit a width;
            or no width is free.
    """
    graph = graph_of(graph)
    if isinstance(cast("object", factor), bool) or not (math.isfinite(factor) and factor > 1):
        raise PassRefused(f"clone: factor={factor!r} is no number above 1, such as 2")
    steps = [_widened(space, factor, apart) for space in _chosen(graph, nodes)]
    if not steps:
        raise PassRefused("clone: every width of this graph is pinned; `growir inspect --spaces` says by what")
    return Sequence(passes=tuple(steps))


def _chosen(graph: Graph, nodes: Listed[str]) -> list[ChannelSpace]:
    """The spaces that grow, none of which moves another one's channels or lies in its units."""
    analysis = analyse(graph)
    named = [analysis.find(node, graph) for node in nodes]
    for space in named:
        if space.pins:
            raise PassRefused(
                f"clone: the width {space.width} of {cut(space.name)} is pinned by {'; '.join(map(str, space.pins))}"
            )
    free = [space for space in named or analysis.spaces if not space.pins and (named or not space.idle)]
    spaces = {space.space for space in free}
    inner = {within for outer, within in analysis.nested() if outer in spaces}
    chosen: list[ChannelSpace] = []
    moved: set[Space] = set()
    for space in free:
        partners = {*space.growth, *space.shrink}
        if space.space not in inner and moved.isdisjoint(partners):
            chosen.append(space)
            moved |= partners
    return chosen


def _widened(space: ChannelSpace, factor: float, apart: float) -> Widen:
    width = space.width * factor
    by = round(width) - space.width
    fits = math.isclose(width, round(width), rel_tol=1e-9) and by > 0 and by % space.stride == 0
    units = by // space.stride * space.growth[space.space] if fits else 0
    if not fits or (space.uniform and units % space.units):
        step = space.width if space.uniform else space.stride
        why = "it is normalised as a whole, and every channel has as many copies" if space.uniform else "its stride"
        near = space.width + max(step, round((width - space.width) / step) * step)
        raise PassRefused(
            f"clone: the width {space.width} of {cut(space.name)} times {factor:g} is {width:g}, but it grows by "
            f"multiples of {step} ({why}); {near} would do, which is factor={near / space.width:g}"
        )
    if space.tied:
        return Widen(node=space.name, by=by)
    return Widen(node=space.name, by=by, copies=in_turn(space.space, units), apart=apart)
