"""A graph as growth sees it: hidden states, the edges between them, and which values reach which state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from growir.channels import analyse
from growir.errors import PassRefused
from growir.graph import Graph, per_graph
from growir.growth.measure.designs import is_layer
from growir.growth.policies.dag.norms import Norm, norm_behind
from growir.ops import (
    ACTIVATIONS,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    Bias,
    Flatten,
    Identity,
    Linear,
    MaxPool2d,
    Op,
    Shape,
    Softmax,
    Standardise,
)
from growir.params import frozen_keys
from growir.passes.state import find_state
from growir.reach import live_nodes
from growir.shapes import owners, shapes_of

# What may stand between a state's activation and an edge that reads it: each channel by itself, nothing learned.
CARRIERS = (MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, AdaptiveMaxPool2d, Flatten, Identity)


@dataclass(frozen=True, slots=True)
class Edge:
    """A layer that feeds a state.

    Attributes:
        name: Its node.
        op: The layer.
        source: What it reads.
        value: The value that comes from, through `carriers`: an activation, or a constant.
        carriers: The operators between the two.
        shape: Of `value`.
    """

    name: str
    op: Op
    source: str
    value: str
    carriers: tuple[Op, ...]
    shape: Shape

    @property
    def weight(self) -> str:
        """Key of its weight."""
        return f"{self.name}.weight"


@dataclass(frozen=True, slots=True)
class StateView:
    """A hidden state: a sum of edges and a bias, and the activation that reads it, through a batch norm or directly.

    Attributes:
        node: The sum, before norm and activation: (N, width), or a map (N, width, height, width).
        post: The value after them; None for a state that nothing activates, such as the output.
        edges: The edges that are summed.
        bias: Key of its bias, if it has one.
        shape: Of `node`.
        frozen: Which of its weights and its bias stay as they are.
        norm: The batch norm that reads it, if one does.
    """

    node: str
    post: str | None
    edges: tuple[Edge, ...]
    bias: str | None
    shape: Shape
    frozen: frozenset[str] = frozenset()
    norm: Norm | None = None

    @property
    def moving(self) -> tuple[Edge, ...]:
        """The edges whose weights may change: all that a growth can move of what is there, with `moving_bias`."""
        return tuple(edge for edge in self.edges if edge.weight not in self.frozen)

    @property
    def moving_bias(self) -> str | None:
        """Key of its bias, if it has one that may change."""
        return None if self.bias in self.frozen else self.bias

    @property
    def width(self) -> int:
        """Its neurons, or channels."""
        return self.shape.size(1)


@per_graph
def states_of(graph: Graph) -> Sequence[StateView]:
    """The states that are vectors (N, F) or maps (N, C, H, W), in document order."""
    shapes, live = shapes_of(graph), live_nodes(graph)
    users, still = Counter(owners(graph).values()), frozen_keys(graph)
    found: dict[str, StateView] = {}
    for node in graph.nodes:
        if not _feeds(node.op, shapes[node.name]) or node.name not in live:
            continue
        state = find_state(graph, node.name)
        if state.node in found or shapes[state.node].rank not in (2, 4):
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
            if not _feeds(operand.op, shapes[name]):
                continue
            # Nor is a layer whose value something else reads too: what it gives the state it gives that as well.
            if name != state.node and (graph.consumers[name] != (state.node,) or name in graph.outputs):
                continue
            if is_layer(operand.op) and len(operand.inputs) == 1 and "weight" in mine:
                edges.append(edge_of(graph, name))
            if "bias" in mine:
                bias = bias or f"{name}.bias"
        norm = norm_behind(graph, state.node)
        end = norm.node if norm else state.node
        readers = graph.consumers[end]
        alone = len(readers) == 1 and end not in graph.outputs
        post = readers[0] if alone and graph[readers[0]].op.kind() in ACTIVATIONS else None
        own = still & {*(edge.weight for edge in edges), bias}
        found[state.node] = StateView(state.node, post, tuple(edges), bias, shapes[state.node], own, norm)
    return list(found.values())


def _feeds(op: Op, shape: Shape) -> bool:
    """Whether an operator's output is summed into states: a bias, or a layer that mixes channels into channels.

    A linear layer over the last axis of a map does not; its bias is not one of channels either.
    """
    if isinstance(op, Bias):
        return shape.rank in (2, 4)
    return is_layer(op) and shape.rank == (2 if isinstance(op, Linear) else 4)


def edge_of(graph: Graph, name: str) -> Edge:
    """The edge that a layer is."""
    (source,) = graph[name].inputs
    value, carriers = source, list[Op]()
    while value in graph.by_name and isinstance(graph[value].op, CARRIERS):
        carriers.insert(0, graph[value].op)
        (value,) = graph[value].inputs
    return Edge(name, graph[name].op, source, value, tuple(carriers), shapes_of(graph)[value])


def widenable(graph: Graph, states: Sequence[StateView], state: StateView) -> bool:
    """Whether new neurons of a state have all their weights in its edges, bias and norm, and the edges it feeds."""
    if state.post is None or not state.edges:
        return False
    try:
        space = analyse(graph).find(state.post, graph)
    except PassRefused:
        return False
    made = {edge.weight for edge in state.edges}
    if state.bias is not None:
        made.add(state.bias)
    if state.norm is not None:
        made.update(state.norm.keys)
    used = {edge.weight for _, edge in fed_by(states, state.post)}
    return (
        not space.pins
        and not space.uniform
        and space.stride == 1
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


def fed_by(states: Iterable[StateView], value: str) -> list[tuple[StateView, Edge]]:
    """The states a value feeds, directly or through pools, and through which edge."""
    return [(state, edge) for state in states for edge in state.edges if edge.value == value]


@dataclass(slots=True)
class Reach:
    """Which values come before which, kept up to date while the graph grows.

    A set of values is one integer with a bit for each, so joining two is one operation. After a growth, only what is
    new and what lies behind it is joined again.
    """

    _bits: dict[str, int] = field(default_factory=dict[str, int])
    _before: dict[str, int] = field(default_factory=dict[str, int])
    _inputs: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def follow(self, graph: Graph) -> None:
        """Take up what has changed since the last graph; names are never used again for something else."""
        for entry in graph.inputs:
            self._bits.setdefault(entry.name, len(self._bits))
            self._before.setdefault(entry.name, 0)
        changed: set[str] = set()
        for node in graph.nodes:  # in topological order
            same = self._inputs.get(node.name) == node.inputs
            if same and changed.isdisjoint(node.inputs):
                continue
            self._bits.setdefault(node.name, len(self._bits))
            before = 0
            for name in node.inputs:
                before |= self._before[name] | (1 << self._bits[name])
            if before != self._before.get(node.name):
                changed.add(node.name)
            self._before[node.name] = before
            self._inputs[node.name] = node.inputs

    def depends(self, name: str, on: str) -> bool:
        """Whether a value is computed from another, or is it."""
        return name == on or bool(self._before[name] >> self._bits[on] & 1)


def can_feed(reach: Reach, states: Iterable[StateView], values: Mapping[str, Shape]) -> list[tuple[str, StateView]]:
    """Every (value, state) that a new edge could join without a cycle."""
    return [(value, state) for state in states for value in values if not reach.depends(value, state.node)]
