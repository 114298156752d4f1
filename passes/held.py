"""What callers hold: the entries of a graph's inputs and outputs, and of the tables that integers choose from.

A hidden width is the graph's own business. How many features go in, how many classes come out and how many tokens are
known is agreed with whoever calls the network, so only `extend`, or someone who names them, changes these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from growir.addresses import Address
from growir.channels import Analysis, ChannelSpace, opened
from growir.errors import PassRefused, cut
from growir.graph import Graph
from growir.nearest import alternatives
from growir.ops import Embedding, Parameter
from growir.ops.spaces import Axis, Space, grown, length, spaces_on
from growir.shapes import shapes_of

Kind = Literal["input", "output", "table"]


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Entries that callers hold, which may change.

    Attributes:
        analysis: The analysis in which they may.
        space: Their space.
        terms: What lies on their axis.
        axis: The axis of the value that names them; None for a table.
        kind: Who holds them: "input" if an input's axis has them, else "table" if integers choose from them.
    """

    analysis: Analysis
    space: ChannelSpace
    terms: Axis
    axis: int | None
    kind: Kind

    @property
    def size(self) -> int:
        """Positions on the axis."""
        return length(self.terms)

    @property
    def stride(self) -> int:
        """The axis becomes longer by multiples of this."""
        return grown(self.terms, self.space.growth) - length(self.terms)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """One space on one axis of what was named, free or not."""

    analysis: Analysis
    space: ChannelSpace
    terms: Axis
    axis: int | None


def held(graph: Graph, node: str, axis: int | None, where: str) -> Held:
    """The entries that are meant.

    Args:
        graph: The graph.
        node: An input; an embedding, for the integers it knows; or any node whose value holds entries of an output or
            of an input, such as an output itself or a parameter with a row for each position.
        axis: Which axis of its value, from the front or the end; the only one that can change if None.
        where: How messages begin.

    Raises:
        PassRefused: Nothing there can change, or more than one axis could.
    """
    shapes = shapes_of(graph)
    if node not in shapes:
        raise PassRefused(f"{where}: there is no node or input {cut(node)!r}.{alternatives(node, shapes)}")
    rank = shapes[node].rank
    if axis is not None and (not -rank <= axis < rank or shapes[node].dims[axis] == "N"):
        raise PassRefused(f"{where}: axis {axis} is none of {cut(node)}, {shapes[node]}, or its batch")
    chosen = None if axis is None else axis % rank
    found = list(_candidates(graph, node, chosen))
    free = [one for one in found if not one.space.pins and _harmless(graph, one)]
    if len(free) == 1:
        one = free[0]
        return Held(one.analysis, one.space, one.terms, one.axis, _kind(graph, one))
    if free:
        raise PassRefused(
            f"{where}: more than one axis could become longer: {_choices(free)}; give axis, or another node"
        )
    if found:
        raise PassRefused(f"{where}: {'; '.join(dict.fromkeys(_reason(one) for one in found))}")
    raise PassRefused(
        f"{where}: no input or output of the graph, and no embedding, holds entries of {cut(node)} {shapes[node]}; a "
        "width inside is changed by widen"
    )


def check_constants(graph: Graph, analysis: Analysis, space: ChannelSpace, given: Iterable[str], where: str) -> None:
    """Raise PassRefused if a constant needs numbers for new entries: no pass can know how a constant goes on."""
    known = {Address(address).key for address in given}
    for key, use in analysis.params.items():
        host = key.rpartition(".")[0]
        op = graph[host].op
        if not (isinstance(op, Parameter) and op.buffer) or key in known:
            continue
        if any(other in space.growth for axis in use.axes for other in spaces_on(axis)):
            raise PassRefused(
                f"{where}: {cut(host)} is a constant with numbers of its own for each entry, and none is known for new "
                f"ones; give them, values={{{cut(key)!r}: ...}}"
            )


def all_held(graph: Graph) -> Iterator[tuple[str, Held]]:
    """Everything callers hold that can change, under a name that `held` understands: each space once."""
    tables = [node.name for node in graph.nodes if isinstance(node.op, Embedding)]
    seen: set[Space] = set()
    for name in dict.fromkeys((*graph.outputs, *tables, *(entry.name for entry in graph.inputs))):
        for axis in (None, *range(1, shapes_of(graph)[name].rank)):
            try:
                one = held(graph, name, axis, "")
            except PassRefused:
                continue
            if one.space.space not in seen:
                seen.add(one.space.space)
                yield name, one


def _candidates(graph: Graph, node: str, axis: int | None) -> Iterator[_Found]:
    """The spaces that callers hold on what is named."""
    free = opened(graph)
    if node in graph and isinstance(graph[node].op, Embedding) and axis is None:
        terms = free.entries[node]
        yield from (_Found(free, space, terms, None) for space in _spaces(free, [terms]))
        return
    if node not in graph:
        for k in range(1, shapes_of(graph)[node].rank) if axis is None else [axis]:
            analysis = opened(graph, (node, k))
            terms = analysis.values[node][k]
            yield from (_Found(analysis, space, terms, k) for space in _spaces(analysis, [terms]))
        return
    inside = list(_on(free, node, axis, _outside(graph, free)))
    yield from inside
    if any(not one.space.pins for one in inside):
        return
    # An input may hold it back: positions, or numbers that are added to an output.
    for entry in graph.inputs:
        for k in range(1, len(entry.shape)):
            analysis = opened(graph, (entry.name, k))
            yield from _on(analysis, node, axis, [analysis.values[entry.name][k]])


def _outside(graph: Graph, analysis: Analysis) -> list[Axis]:
    return [axis for name in graph.outputs for axis in analysis.values[name]]


def _on(analysis: Analysis, node: str, axis: int | None, outside: Iterable[Axis]) -> Iterator[_Found]:
    """The spaces on a node's axes that lie on these axes outside too."""
    reached = {space.space for space in _spaces(analysis, outside)}
    for k, terms in enumerate(analysis.values[node]):
        if axis in (None, k):
            yield from (_Found(analysis, s, terms, k) for s in _spaces(analysis, [terms]) if s.space in reached)


def _spaces(analysis: Analysis, axes: Iterable[Axis]) -> list[ChannelSpace]:
    wanted = {space for axis in axes for space in spaces_on(axis)}
    return [space for space in analysis.spaces if space.space in wanted]


def _kind(graph: Graph, one: _Found) -> Kind:
    for entry in graph.inputs:
        if any(s is one.space.space for axis in one.analysis.values[entry.name] for s in spaces_on(axis)):
            return "input"
    return "table" if one.analysis.looked_up(one.space) else "output"


def _harmless(graph: Graph, one: _Found) -> bool:
    """Whether the old entries stay whatever callers put into new ones of an input.

    What is normalised or averaged together moves; and what is no number, such as the logarithm of a negative feature,
    is none times zero either.
    """
    return _kind(graph, one) != "input" or not (one.space.uniform or (one.space.partial and one.space.consumers))


def _reason(one: _Found) -> str:
    what = f"{'its table' if one.axis is None else f'axis {one.axis}'}, of {length(one.terms)}"
    if one.space.pins:
        return f"{what}, is pinned by {'; '.join(str(pin) for pin in one.space.pins)}"
    if one.space.uniform:
        return f"{what}, is averaged or normalised as a whole, so new entries would move the old ones"
    return f"{what}, passes a function that is not finite everywhere, as new features might not be"


def _choices(found: list[_Found]) -> str:
    return ", ".join(f"axis {one.axis} ({one.space.name}, {length(one.terms)})" for one in found)
