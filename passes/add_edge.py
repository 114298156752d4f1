"""AddEdge: one more layer into a hidden state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np

from growir.errors import PassRefused, cut
from growir.graph import Graph, Node
from growir.ops import Constant, Op
from growir.passes.link import Link, Linked, connectable
from growir.passes.state import State, find_state
from growir.rewrite import Change, Preserves, create, fresh_name
from growir.shapes import shapes_of


class AddEdge(Linked):
    """Feed a state from one more value, through a layer that starts at zero.

    The edge has no bias: a state has one, its `bias` node or its first edge's.
    """

    name: ClassVar[str] = "add_edge"

    def check(self, graph: Graph) -> None:
        super().check(graph)
        state = find_state(graph, self.target)
        there = _direct_edge(graph, self.source, state, self.link(graph))
        if there is not None:
            raise PassRefused(
                f"{cut(there)} already leads from {cut(self.source)} to {cut(state.node)}; a second edge of its kind "
                "beside it adds nothing: use add_node for a new layer between them"
            )

    def preserves(self, graph: Graph) -> Preserves:
        zero = not any(np.any(array) for array in self.values.values())
        return Preserves.EXACT if zero else Preserves.NOTHING

    def change(self, graph: Graph, step: int) -> Change:
        state, link = find_state(graph, self.target), self.link(graph)
        shapes = shapes_of(graph)
        name = fresh_name(graph, "edge")
        layer = link.layer(shapes[state.node].size(link.axis), bias=False)
        before, source = link.lead(self.source, name)
        edge = Node(name=link.name_in(name), op=layer, inputs=(source,))
        nodes, outputs, made = state.feed(graph, edge)
        weight = layer.params(link.prepared(shapes[self.source]))["weight"]
        zero = create(f"{edge.name}.weight", replace(weight, init=Constant(0.0)), self.seed, step, self.values)
        return Change([*nodes, *before], outputs, [zero], [*(node.name for node in before), edge.name, *made])

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for source, state, fields in connectable(graph):
            step = cls(source=source, target=state.node, **fields)
            if _direct_edge(graph, source, state, step.link(graph)) is None:
                yield step


def _direct_edge(graph: Graph, source: str, state: State, link: Link) -> str | None:
    """An edge of a state that can do all that a new one from this value could, if there is one."""
    layer = link.layer(shapes_of(graph)[state.node].size(link.axis), bias=False)
    way = [layer, *(op for _, op in reversed(link.before))]
    for name in state.edges(graph):
        value = name
        for op in way:
            node = graph.by_name.get(value)
            if node is None or len(node.inputs) != 1 or _but_bias(node.op) != _but_bias(op):
                break
            value = node.inputs[0]
        else:
            if value == source:
                return name
    return None


def _but_bias(op: Op) -> tuple[str, dict[str, Any]]:
    return op.kind(), {name: value for name, value in op.attributes().items() if name != "bias"}
