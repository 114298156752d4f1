"""A section of a graph: the part that computes some values from others, as a graph of its own."""

from __future__ import annotations

from collections.abc import Sequence

from growir.graph import Graph, Input, Node
from growir.names import allot
from growir.ops import Add
from growir.shapes import shapes_of


def section(graph: Graph, given: Sequence[str], wanted: Sequence[str], shifted: Sequence[str] = ()) -> Graph:
    """The graph that computes `wanted` from `given`.

    Args:
        graph: The whole graph.
        given: Values that become inputs, in this order.
        wanted: Values that become outputs.
        shifted: Values to which a further input each, after the given ones, is added before anything reads them.
    """
    needed: set[str] = set()
    stack = [*wanted, *shifted]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            if name not in given:
                stack.extend(graph[name].inputs)
    shapes = shapes_of(graph)
    taken = set(graph.used_names)
    renamed: dict[str, str] = {}
    inputs: list[Input] = []

    def place(name: str, stem: str) -> str:
        fresh = allot(stem, taken)
        taken.add(fresh)
        inputs.append(Input(name=fresh, shape=shapes[name].dims, dtype=shapes[name].dtype))
        return fresh

    for name in given:
        renamed[name] = place(name, "given")
    nodes: list[Node] = []
    deltas = {name: place(name, "delta") for name in shifted}

    def shift(name: str) -> None:
        if name in deltas:
            total = allot("shifted", taken)
            taken.add(total)
            nodes.append(Node(name=total, op=Add(), inputs=(renamed.get(name, name), deltas[name])))
            renamed[name] = total

    for name in given:
        shift(name)
    for node in graph.nodes:
        if node.name in needed and node.name not in given:
            nodes.append(node.with_inputs(renamed.get(i, i) for i in node.inputs))
            shift(node.name)
    outputs = tuple(renamed.get(name, name) for name in wanted)
    return Graph(name="section", inputs=tuple(inputs), nodes=tuple(nodes), outputs=outputs)
