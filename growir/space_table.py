"""Channel spaces for people: which widths can change, what they reach, and why one cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from growir.channels import ChannelSpace, Slot, channel_spaces, opened
from growir.columns import Grid
from growir.errors import PassRefused, cut
from growir.graph import Graph
from growir.shapes import own_tables
from growir.show import MAX_ROWS, Json, some

# What a mark in the table of spaces means; each is explained where it occurs.
_MARKS: Mapping[str, str] = {
    "pinned": "its width is fixed for the reasons below; extend and widen make it longer where that is said there",
    "whole": "normalised over all its channels: only copies of each of them, equally often, keep the function",
    "joint": "other spaces change with it, by the stride of each",
    "tied": "one tensor both makes and reads these channels: no copies, but fresh channels keep the function",
    "partial": "passes a function that is not finite everywhere: fresh channels copy incoming weights",
    "random": "passes a dropout: a change of width draws other random numbers in train mode",
}
_STRIDE = "its width changes by multiples of this: somewhere its channels are cut, grouped or normalised in equal parts"


def space_parts(graph: Graph, everything: bool) -> list[str | Grid]:
    """The table of spaces, what its marks mean, and why each pinned space is."""
    spaces = channel_spaces(graph)
    told = spaces if everything else [space for space in spaces if not _of_tables(graph, space)]
    shown = told if everything else told[:MAX_ROWS]
    names = {space.space: space.name for space in spaces}
    rows = tuple(
        (
            cut(space.name),
            str(space.width),
            str(space.stride),
            str(len(space.nodes)),
            _counted(_makers(graph, space)),
            _counted(_readers(space)),
            ", ".join(_marks(space)) or "free",
        )
        for space in shown
    )
    headers = ("space", "width", "stride", "nodes", "made by", "read by", "marks")
    parts: list[str | Grid] = [Grid(headers, rows, frozenset({"width", "stride", "nodes"}))]
    if len(shown) < len(told):
        parts.append(f"{len(told):,} spaces, the first {len(shown)} shown; --all shows each")
    if len(told) < len(spaces):
        parts.append(f"{len(spaces) - len(told):,} more are of tables alone, not read or not learned; --all shows them")
    if any(space.stride > 1 for space in shown):
        parts.append(f"stride: {_STRIDE}")
    used = {mark for space in shown for mark in _marks(space)}
    if used:
        parts.append("\n".join(f"{mark}: {_MARKS[mark]}" for mark in _MARKS if mark in used))
    joint = [f"  {cut(s.name)} with {some(_partners(s, names))}" for s in shown if "joint" in _marks(s)]
    if joint:
        parts.append("\n".join(["joint strides", *joint]))
    pinned = [line for space in shown if space.pins for line in _pin_lines(graph, space)]
    if pinned:
        parts.append("\n".join(["pinned", *pinned]))
    return parts


def _pin_lines(graph: Graph, space: ChannelSpace) -> list[str]:
    reasons = [f"    {cut(pin.node)}: {pin.reason}" for pin in space.pins]
    way = ["    the passes extend and widen make it longer, for callers too"] if _extends(graph, space) else []
    return [f"  {cut(space.name)}, width {space.width}", *reasons, *way]


def _extends(graph: Graph, space: ChannelSpace) -> bool:
    """Whether only callers hold a pinned space back."""
    if not space.pins:
        return False
    analysis = opened(graph)
    with suppress(PassRefused):
        found = analysis.find(space.name, graph)
        return not found.pins and analysis.callers_hold(found, graph)
    return False


def _marks(space: ChannelSpace) -> list[str]:
    marks = {
        "pinned": bool(space.pins),
        "whole": space.uniform,
        "joint": not space.pins and len(space.growth) > 1,
        "tied": space.tied,
        "partial": space.partial,
        "random": space.random,
    }
    return [mark for mark in _MARKS if marks[mark]]


def _partners(space: ChannelSpace, names: Mapping[Any, str]) -> list[str]:
    """The spaces that change with this one."""
    return [names[other] for other in space.growth if other is not space.space and other in names]


def _makers(graph: Graph, space: ChannelSpace) -> list[str]:
    """The nodes with parameters that make a space's channels; those that only carry them (a norm's scale) left out."""
    inside, reads = set(space.nodes), set(_readers(space))
    made = dict.fromkeys(_owner(slot) for slot in space.producers)
    return [name for name in made if name in reads or inside.isdisjoint(graph[name].inputs)]


def _readers(space: ChannelSpace) -> list[str]:
    return list(dict.fromkeys(_owner(slot) for slot in space.consumers))


def _owner(slot: Slot) -> str:
    return slot.parameter.rpartition(".")[0]


def _of_tables(graph: Graph, space: ChannelSpace) -> bool:
    """Whether a space is of rows that nothing reads, or of constants alone, as with the angles of rotary positions."""
    keys = {slot.parameter.rpartition(".") for slot in (*space.producers, *space.consumers)}
    return space.idle or (bool(keys) and all(own_tables(graph)[node][name].buffer for node, _, name in keys))


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)}: {some(names, 2)}" if len(names) > 1 else some(names)


def space_data(graph: Graph) -> list[Json]:
    """The spaces as JSON values."""
    spaces = channel_spaces(graph)
    names = {space.space: space.name for space in spaces}
    return [_space(graph, space, names) for space in spaces]


def _space(graph: Graph, space: ChannelSpace, names: Mapping[Any, str]) -> Json:
    def slots(found: Iterable[Slot]) -> list[Json]:
        return [{"parameter": s.parameter, "axis": s.axis, "runs": s.runs} for s in found]

    return {
        "name": space.name,
        "width": space.width,
        "stride": space.stride,
        "units": space.units,
        "free": not space.pins,
        "extend": _extends(graph, space),
        "uniform": space.uniform,
        "tied": space.tied,
        "partial": space.partial,
        "random": space.random,
        "with": _partners(space, names),
        "nodes": space.nodes,
        "made_by": _makers(graph, space),
        "read_by": _readers(space),
        "producers": slots(space.producers),
        "consumers": slots(space.consumers),
        "pins": [{"node": pin.node, "reason": pin.reason} for pin in space.pins],
    }
