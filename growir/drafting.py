"""A graph on its way: nodes one behind the other, each checked against the shapes of what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from growir.errors import GraphError, cut
from growir.graph import Graph, Input, Node
from growir.ops import Op, OpError, Shape
from growir.verify import verify


class Draft:
    """A graph that code writes node by node.

    Attributes:
        value: What was added last, which the next node reads where nothing else is said.
        nodes: The nodes so far.

    Args:
        inputs: The shape of a sample of each input, by name.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self._inputs = tuple(Input(name=name, shape=("N", *sample)) for name, sample in inputs.items())
        self._shapes = {entry.name: Shape(entry.shape, entry.dtype) for entry in self._inputs}
        self.nodes: list[Node] = []
        self.value = self._inputs[0].name

    def add(self, name: str, op: Op, *inputs: str) -> str:
        """Put a node at the end; what it is called. Raises GraphError if it cannot read what it is given."""
        read = inputs or (self.value,)
        if missing := [each for each in read if each not in self._shapes]:
            raise GraphError(f"{cut(name)}: it reads {cut(repr(missing[0]))}, which is no value so far")
        try:
            self._shapes[name] = op.infer(*(self._shapes[each] for each in read))
        except OpError as error:
            raise GraphError(f"{cut(name)}: {error}") from None
        self.nodes.append(Node(name=name, op=op, inputs=read))
        self.value = name
        return name

    def __contains__(self, value: object) -> bool:
        return value in self._shapes

    def shape(self, value: str) -> Shape:
        """The shape of a value."""
        return self._shapes[value]

    def graph(self, name: str, *outputs: str) -> Graph:
        """The graph, by default with what was added last as its output. Raises GraphError if it is not sound."""
        made = Graph(name=name, inputs=self._inputs, nodes=tuple(self.nodes), outputs=outputs or (self.value,))
        return verify(made)
