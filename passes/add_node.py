"""AddNode: a new hidden state between a value and a state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np

from growir.graph import Graph, Node
from growir.ops import OP_BY_KIND, Constant
from growir.ops.base import PositiveInt
from growir.passes.link import Linked, check_activation, connectable
from growir.passes.state import find_state
from growir.rewrite import Change, Preserves, create, fresh_name
from growir.shapes import shapes_of


class AddNode(Linked):
    """Put layer -> activation -> layer between a value and a state; the second layer starts at zero.

    The layers are as add_edge has them. Of two convolutions both have `kernel_size`, and the first the stride or pool.

    Attributes:
        width: Neurons, or channels, of the new state.
        activation: Kind of the activation.
    """

    name: ClassVar[str] = "add_node"

    width: PositiveInt
    activation: str = "relu"

    def check(self, graph: Graph) -> None:
        check_activation(self.activation)
        super().check(graph)

    def preserves(self, graph: Graph) -> Preserves:
        # Whatever comes in, the function stays while the new state's outgoing weights are zero.
        outgoing = f"{fresh_name(graph, 'edge')}.weight"
        given = self.values.get(outgoing)
        return Preserves.EXACT if given is None or not np.any(given) else Preserves.NOTHING

    def change(self, graph: Graph, step: int) -> Change:
        state, link = find_state(graph, self.target), self.link(graph)
        shapes = shapes_of(graph)
        module, name = fresh_name(graph, "node"), fresh_name(graph, "edge")
        layer, activation = link.layer(self.width, bias=True), OP_BY_KIND[self.activation]()
        last = link.next_layer(shapes[state.node].size(link.axis), bias=False)

        before, source = link.lead(self.source, module)
        first = Node(name=f"{module}.{layer.kind()}", op=layer, inputs=(source,))
        act = Node(name=f"{module}.act", op=activation, inputs=(first.name,))
        edge = Node(name=name, op=last, inputs=(act.name,))
        nodes, outputs, made = state.feed(graph, edge)

        prepared = link.prepared(shapes[self.source])
        hidden = layer.infer(prepared)
        params = {f"{first.name}.{key}": param for key, param in layer.params(prepared).items()}
        params |= {f"{act.name}.{key}": param for key, param in activation.params(hidden).items()}
        params[f"{name}.weight"] = replace(last.params(hidden)["weight"], init=Constant(0.0))
        edits = [create(key, param, self.seed, step, self.values) for key, param in params.items()]
        fresh = [*before, first, act]
        return Change([*nodes, *fresh], outputs, edits, [*(node.name for node in fresh), name, *made])

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for source, state, fields in connectable(graph):
            yield cls(source=source, target=state.node, width=1, **fields)
