"""AddEdge: one more linear layer into a hidden state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np

from growir.errors import PassRefused, cut
from growir.graph import Graph, Node
from growir.ops import Constant, Linear, Param
from growir.passes.state import check_edge, connectable, direct_edges, find_state
from growir.rewrite import Change, Pass, Preserves, create, fresh_name
from growir.shapes import shapes_of


class AddEdge(Pass):
    """Feed a state from one more value, through a linear layer that starts at zero.

    The edge has no bias: a state has one, its `bias` node or its first edge's.

    Attributes:
        source: A graph input or node.
        target: A node of the state: its add, one of the add's operands, its activation, or any other node, which is
            then wrapped into an add.
    """

    name: ClassVar[str] = "add_edge"

    source: str
    target: str

    def check(self, graph: Graph) -> None:
        state = find_state(graph, self.target)
        check_edge(graph, self.source, state)
        there = direct_edges(graph, self.source, state)
        if there:
            raise PassRefused(
                f"{cut(there[0])} already leads from {cut(self.source)} to {cut(state.node)}; a second linear edge "
                "beside it adds nothing: use add_node for a new layer between them"
            )

    def preserves(self, graph: Graph) -> Preserves:
        zero = not any(np.any(array) for array in self.values.values())
        return Preserves.EXACT if zero else Preserves.NOTHING

    def change(self, graph: Graph, step: int) -> Change:
        state = find_state(graph, self.target)
        shapes = shapes_of(graph)
        here, there = shapes[self.source].size(-1), shapes[state.node].size(-1)
        name = fresh_name(graph, "edge")
        edge = Node(name=name, op=Linear(out_features=there, bias=False), inputs=(self.source,))
        nodes, outputs, made = state.feed(graph, edge)
        weight = Param((there, here), ("out", "in"), Constant(0.0))
        edits = [create(f"{name}.weight", weight, self.seed, step, self.values)]
        return Change(nodes, outputs, edits, [name, *made])

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for source, state in connectable(graph):
            if not direct_edges(graph, source, state):
                yield cls(source=source, target=state.node)
