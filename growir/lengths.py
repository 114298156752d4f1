"""How long an axis of an input may be: the tables that are read by its length bound it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from growir.graph import Graph, per_graph
from growir.ops import First
from growir.shapes import shapes_of


class Bound(NamedTuple):
    """The longest that an axis may be, and the table that says so."""

    most: int
    table: str


@per_graph
def bounds_of(graph: Graph) -> Mapping[tuple[str, int], Bound]:
    """The axes of inputs by whose length the graph takes the beginning of a table, as (input, axis), with the bound.

    Any length up to the bound is right there, unless the axis is one of `fixed_sizes`.
    """
    shapes = shapes_of(graph)
    inputs = {entry.name for entry in graph.inputs}
    found: dict[tuple[str, int], Bound] = {}
    for node in graph.nodes:
        if isinstance(node.op, First) and node.inputs[1] in inputs:
            table, given = node.inputs
            place = given, node.op.of % shapes[given].rank
            bound = Bound(node.op.limit(shapes[table]), table)
            found[place] = min(found.get(place, bound), bound, key=lambda each: each.most)
    fixed = {(entry.input, entry.axis) for entry in graph.fixed_sizes}
    return {place: bound for place, bound in found.items() if place not in fixed}
