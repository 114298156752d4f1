"""AddNode: a new hidden state between a value and a state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np

from growir.errors import PassRefused, cut
from growir.graph import Graph, Node, suggestion
from growir.ops import ACTIVATIONS, OP_BY_KIND, Constant, Linear, Param, Shape
from growir.ops.base import PositiveInt
from growir.passes.state import check_edge, connectable, find_state
from growir.rewrite import Change, Pass, Preserves, create, fresh_name
from growir.shapes import shapes_of


class AddNode(Pass):
    """Put linear -> activation -> linear between a value and a state; the second linear starts at zero.

    Attributes:
        source: A graph input or node.
        target: A node of the state that is fed, as for add_edge.
        width: Neurons of the new state.
        activation: Kind of the activation.
    """

    name: ClassVar[str] = "add_node"

    source: str
    target: str
    width: PositiveInt
    activation: str = "relu"

    def check(self, graph: Graph) -> None:
        if self.activation not in ACTIVATIONS:
            near = suggestion(self.activation, ACTIVATIONS)
            raise PassRefused(f"{cut(self.activation)!r} is no activation; there are: {', '.join(ACTIVATIONS)}.{near}")
        check_edge(graph, self.source, find_state(graph, self.target))

    def preserves(self, graph: Graph) -> Preserves:
        # Whatever comes in, the function stays while the new state's outgoing weights are zero.
        outgoing = f"{fresh_name(graph, 'edge')}.weight"
        given = self.values.get(outgoing)
        return Preserves.EXACT if given is None or not np.any(given) else Preserves.NOTHING

    def change(self, graph: Graph, step: int) -> Change:
        state = find_state(graph, self.target)
        shapes = shapes_of(graph)
        source, target = shapes[self.source], shapes[state.node]
        module, name = fresh_name(graph, "node"), fresh_name(graph, "edge")
        layer = Linear(out_features=self.width)
        activation = OP_BY_KIND[self.activation]()
        first = Node(name=f"{module}.linear", op=layer, inputs=(self.source,))
        act = Node(name=f"{module}.act", op=activation, inputs=(first.name,))
        edge = Node(name=name, op=Linear(out_features=target.size(-1), bias=False), inputs=(act.name,))
        nodes, outputs, made = state.feed(graph, edge)
        hidden: Shape = layer.infer(source)
        params = {f"{first.name}.{key}": param for key, param in layer.params(source).items()}
        params |= {f"{act.name}.{key}": param for key, param in activation.params(hidden).items()}
        params[f"{name}.weight"] = Param((target.size(-1), self.width), ("out", "in"), Constant(0.0))
        edits = [create(key, param, self.seed, step, self.values) for key, param in params.items()]
        return Change([*nodes, first, act], outputs, edits, [first.name, act.name, name, *made])

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for source, state in connectable(graph):
            yield cls(source=source, target=state.node, width=1)
