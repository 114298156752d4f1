"""A graph as growth sees it: hidden states, the linear edges between them, and the moves that are possible."""

from __future__ import annotations

from dataclasses import dataclass

from growir.graph import Graph
from growir.ops import ACTIVATIONS, Bias, Linear
from growir.passes.state import descendants, find_state
from growir.shapes import shapes_of


@dataclass(frozen=True, slots=True)
class Edge:
    """A linear layer that feeds a state."""

    name: str
    source: str

    @property
    def weight(self) -> str:
        """Key of its weight, (state, source)."""
        return f"{self.name}.weight"


@dataclass(frozen=True, slots=True)
class StateView:
    """A hidden state: a sum of edges and a bias, and the activation that reads it.

    Attributes:
        node: The value before the activation.
        post: The value after it; None for a state that nothing activates, such as the output.
        edges: The linear edges that are summed.
        bias: Key of its bias, if it has one.
        width: Its neurons.
    """

    node: str
    post: str | None
    edges: tuple[Edge, ...]
    bias: str | None
    width: int


def states_of(graph: Graph) -> list[StateView]:
    """The states of fully connected layers, in document order."""
    shapes = shapes_of(graph)
    found: dict[str, StateView] = {}
    for node in graph.nodes:
        if not isinstance(node.op, Linear | Bias) or shapes[node.name].rank != 2 or len(node.inputs) != 1:
            continue
        state = find_state(graph, node.name)
        if state.node in found:
            continue
        edges: list[Edge] = []
        bias = None
        for name in state.edges(graph):
            operand = graph.by_name.get(name)
            if operand is None or len(operand.inputs) != 1:
                continue
            if isinstance(operand.op, Linear):
                edges.append(Edge(name, operand.inputs[0]))
            if isinstance(operand.op, Bias) or (isinstance(operand.op, Linear) and operand.op.bias):
                bias = bias or f"{name}.bias"
        readers = graph.consumers[state.node]
        alone = len(readers) == 1 and state.node not in graph.outputs
        post = readers[0] if alone and graph[readers[0]].op.kind() in ACTIVATIONS else None
        found[state.node] = StateView(state.node, post, tuple(edges), bias, shapes[state.node].size(-1))
    return list(found.values())


def fed_by(states: list[StateView], value: str) -> list[tuple[StateView, Edge]]:
    """The states a value feeds, and through which edge."""
    return [(state, edge) for state in states for edge in state.edges if edge.source == value]


def can_feed(graph: Graph, states: list[StateView], values: list[str]) -> list[tuple[str, StateView]]:
    """Every (value, state) that a new edge could join without a cycle."""
    pairs: list[tuple[str, StateView]] = []
    for state in states:
        later = descendants(graph, state.node)
        pairs += [(value, state) for value in values if value not in later]
    return pairs
