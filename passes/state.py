"""Hidden states: the sums that edges feed. What DAG growth means by the target of an edge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from growir.errors import PassRefused, cut
from growir.graph import Graph, Node
from growir.nearest import alternatives
from growir.ops import ACTIVATIONS, Add, Shape
from growir.rewrite import fresh_name
from growir.shapes import shapes_of


@dataclass(frozen=True, slots=True)
class State:
    """Where a state's edges arrive: an `add` that is there, or a node that is wrapped into one.

    Attributes:
        node: The add, or the node to wrap.
        add: Whether `node` is an add.
    """

    node: str
    add: bool

    def edges(self, graph: Graph) -> tuple[str, ...]:
        """The nodes whose values are summed."""
        return graph[self.node].inputs if self.add else (self.node,)

    def feed(self, graph: Graph, edge: Node) -> tuple[list[Node], list[str], list[str]]:
        """Nodes and outputs with one more edge into the state, and the names of what had to be made for it.

        Where an add must be made, the state's consumers and the graph's outputs are re-pointed to it.
        """
        if self.add:
            fed = graph[self.node].with_inputs((*graph[self.node].inputs, edge.name))
            return [*(fed if n.name == self.node else n for n in graph.nodes), edge], list(graph.outputs), []
        total = Node(name=fresh_name(graph, "sum", (edge.name,)), op=Add(), inputs=(self.node, edge.name))
        nodes, outputs = repoint(graph, self.node, total.name)
        return [*nodes, edge, total], outputs, [total.name]


def repoint(graph: Graph, old: str, new: str) -> tuple[list[Node], list[str]]:
    """A graph's nodes and outputs, reading one value in place of another."""
    nodes = [
        node.with_inputs(new if name == old else name for name in node.inputs) if old in node.inputs else node
        for node in graph.nodes
    ]
    return nodes, [new if name == old else name for name in graph.outputs]


def find_state(graph: Graph, target: str) -> State:
    """The state a target stands for.

    An add is fed; a node whose only consumer is an add stands for that add; an activation stands for its state;
    anything else is wrapped into an add. Raises PassRefused for a name that is no node.
    """
    if target not in graph:
        what = "is a graph input and has no state to feed" if target in graph.consumers else "does not exist"
        raise PassRefused(f"target {cut(target)!r} {what}.{alternatives(target, graph.by_name)}")
    node = graph[target]
    while True:
        if isinstance(node.op, Add):
            return State(node.name, add=True)
        readers = graph.consumers[node.name]
        if len(readers) == 1 and node.name not in graph.outputs and isinstance(graph[readers[0]].op, Add):
            return State(readers[0], add=True)
        if node.op.kind() not in ACTIVATIONS or node.inputs[0] not in graph:
            return State(node.name, add=False)
        node = graph[node.inputs[0]]


def descendants(graph: Graph, name: str) -> set[str]:
    """A node and everything that depends on it."""
    found, stack = {name}, [name]
    while stack:
        for reader in graph.consumers[stack.pop()]:
            if reader not in found:
                found.add(reader)
                stack.append(reader)
    return found


def ancestors(graph: Graph, name: str) -> set[str]:
    """A value and everything that it depends on."""
    found, stack = {name}, [name]
    while stack:
        at = stack.pop()
        for value in graph[at].inputs if at in graph else ():
            if value not in found:
                found.add(value)
                stack.append(value)
    return found


def check_value(graph: Graph, name: str, field: str) -> None:
    """Raise PassRefused unless a field names a graph input or node."""
    if name not in graph.consumers:
        raise PassRefused(f"{field} {cut(name)!r} does not exist.{alternatives(name, graph.consumers)}")


def check_edge(graph: Graph, source: str, state: State) -> None:
    """Raise PassRefused unless a layer can lead from a value into a state, whatever their widths."""
    check_value(graph, source, "source")
    if source in descendants(graph, state.node):
        raise PassRefused(
            f"an edge from {cut(source)} to {cut(state.node)} would make a cycle: {cut(source)} depends on it; "
            "choose a source that comes before the target"
        )
    shapes = shapes_of(graph)
    here, there = shapes[source], shapes[state.node]
    if here.dtype != "float32":
        raise PassRefused(
            f"source {cut(source)!r} holds {here.dtype}; an edge is a layer with weights and takes floats"
        )
    if there.dtype != "float32":
        raise PassRefused(f"target {cut(state.node)!r} holds {there.dtype}; a state is a sum of floats")
    for name, shape in ((source, here), (state.node, there)):
        if not is_linear(shape):
            raise PassRefused(f"an edge joins values with a batch axis and a width, but {cut(name)} is {shape}")


def is_linear(shape: Shape) -> bool:
    """Whether a linear layer takes and gives values of such a shape."""
    return shape.dtype == "float32" and shape.batched and shape.rank >= 2


def states(graph: Graph) -> Iterator[State]:
    """Every state of a graph, each once under its add or node."""
    seen: set[State] = set()
    for node in graph.nodes:
        state = find_state(graph, node.name)
        if state not in seen:
            seen.add(state)
            yield state
