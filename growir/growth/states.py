"""A graph as growth sees it: hidden states, the linear edges between them, and the moves that are possible."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from growir.channels import analyse
from growir.errors import PassRefused
from growir.graph import Graph
from growir.ops import ACTIVATIONS, Bias, Identity, Linear, Softmax, Standardise
from growir.passes.eliminate_dead import live_nodes
from growir.passes.state import descendants, find_state
from growir.shapes import owners, shapes_of


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
    shapes, live = shapes_of(graph), live_nodes(graph)
    users = Counter(owners(graph).values())
    found: dict[str, StateView] = {}
    for node in graph.nodes:
        if not isinstance(node.op, Linear | Bias) or shapes[node.name].rank != 2 or node.name not in live:
            continue
        state = find_state(graph, node.name)
        if state.node in found or shapes[state.node].rank != 2:
            continue
        operands = state.edges(graph)
        edges: list[Edge] = []
        bias = None
        for name in operands:
            operand = graph.by_name.get(name)
            # What is summed twice, or broadcast, is no edge: its weights do not act on the state as an edge's do.
            if operand is None or operands.count(name) > 1 or shapes[name] != shapes[state.node]:
                continue
            # Nor is a tensor that something else uses too: it cannot change for this state alone.
            mine = [key for key in ("weight", "bias") if users[f"{name}.{key}"] == 1]
            if isinstance(operand.op, Linear) and len(operand.inputs) == 1 and "weight" in mine:
                edges.append(Edge(name, operand.inputs[0]))
            if isinstance(operand.op, Linear | Bias) and "bias" in mine:
                bias = bias or f"{name}.bias"
        readers = graph.consumers[state.node]
        alone = len(readers) == 1 and state.node not in graph.outputs
        post = readers[0] if alone and graph[readers[0]].op.kind() in ACTIVATIONS else None
        found[state.node] = StateView(state.node, post, tuple(edges), bias, shapes[state.node].size(-1))
    return list(found.values())


def widenable(graph: Graph, states: list[StateView], state: StateView) -> bool:
    """Whether new neurons of a state have all their weights in its edges, its bias, and the edges it feeds."""
    if state.post is None or not state.edges:
        return False
    try:
        space = analyse(graph).find(state.post, graph)
    except PassRefused:
        return False
    made = {edge.weight for edge in state.edges}
    if state.bias is not None:
        made.add(state.bias)
    used = {edge.weight for _, edge in fed_by(states, state.post)}
    return (
        not space.pins
        and not space.uniform
        and space.step == 1
        and {slot.parameter for slot in space.producers} == made
        and {slot.parameter for slot in space.consumers} == used != set()
    )


def is_output(graph: Graph, state: StateView) -> bool:
    """Whether nothing but fixed scaling or a softmax lies between a state and the graph's output."""
    name = state.node
    while name not in graph.outputs:
        readers = graph.consumers[name]
        if len(readers) != 1 or not isinstance(graph[readers[0]].op, Standardise | Identity | Softmax):
            return False
        name = readers[0]
    return True


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
