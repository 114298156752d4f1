"""What a move adds, read off its rewrite: what new neurons read, their activation, and which states they feed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from growir.graph import Graph
from growir.growth.measure.designs import is_layer
from growir.growth.policies.dag.norms import Norm, norm_behind
from growir.growth.policies.dag.shortcuts import passed_on
from growir.growth.policies.dag.states import Edge, StateView, edge_of, fed_by
from growir.ops import Op, Shape
from growir.passes import AddEdge, AddNode, InsertBlock, Widen
from growir.rewrite import Pass, Rewrite
from growir.shapes import shapes_of


@dataclass(frozen=True, slots=True)
class Incoming:
    """New neurons: `count` of them.

    Attributes:
        edges: What they read, and by which layers.
        activation: What is applied to the sum.
        activated: The node whose parameters the activation has; None for a new one.
        bias: Key of their bias, if they have one.
        shape: Of the state they are, or belong to.
        count: How many.
        norm: What normalises their sums before the activation, if anything does.
    """

    edges: tuple[Edge, ...]
    activation: Op
    activated: str | None
    bias: str | None
    shape: Shape
    count: int
    norm: Norm | None = None

    @property
    def shifted(self) -> bool:
        """Whether each has a threshold of its own: that of a norm, which takes back any bias in front of it."""
        return self.bias is not None if self.norm is None else self.norm.op.affine


@dataclass(frozen=True, slots=True)
class Addition:
    """What a move adds.

    Attributes:
        incoming: The new neurons; None where an edge reads a value that is there.
        outgoing: The states that are fed, each with the edges that do it; an edge's `value` is what it reads of what
            is there, or the new neurons' activations.
    """

    incoming: Incoming | None
    outgoing: tuple[tuple[StateView, tuple[Edge, ...]], ...]

    @property
    def convolves(self) -> bool:
        """Whether what is added are maps."""
        shapes = [self.incoming.shape] if self.incoming else [state.shape for state, _ in self.outgoing]
        return any(shape.rank > 2 for shape in shapes)


def addition(step: Pass, done: Rewrite, states: Sequence[StateView]) -> Addition:
    """What a move adds to a graph with these states.

    Args:
        step: A new edge, a new state, a residual block or a widening.
        done: The move carried out.
        states: Those before it.
    """
    if isinstance(step, Widen):
        state = next(s for s in states if s.post == step.node)
        fed: dict[str, tuple[StateView, tuple[Edge, ...]]] = {}
        for target, edge in fed_by(states, step.node):
            fed[target.node] = (target, (*fed.get(target.node, (target, ()))[1], edge))
        op = done.graph[step.node].op
        incoming = Incoming(state.edges, op, step.node, state.bias, state.shape, step.by, state.norm)
        return Addition(incoming, tuple(fed.values()))
    assert isinstance(step, AddEdge | AddNode | InsertBlock)
    layers = [edge_of(done.graph, n) for n in done.created if n in done.graph and is_layer(done.graph[n].op)]
    if isinstance(step, InsertBlock):
        target = passed_on(next(state for state in states if state.post == step.after))
    else:
        target = _target(done, layers[-1], states)
    if isinstance(step, AddEdge):
        return Addition(None, ((target, (layers[-1],)),))
    first, last = layers
    shape = shapes_of(done.graph)[first.name]
    op, norm = done.graph[last.value].op, norm_behind(done.graph, first.name)
    incoming = Incoming((first,), op, None, None if norm else f"{first.name}.bias", shape, shape.size(1), norm)
    return Addition(incoming, ((target, (last,)),))


def _target(done: Rewrite, edge: Edge, states: Sequence[StateView]) -> StateView:
    """The state that a new edge feeds, which has been wrapped into a sum where it was none."""
    (total,) = done.graph.consumers[edge.name]
    by_node = {state.node: state for state in states}
    return by_node.get(total) or by_node[done.graph[total].inputs[0]]


def twin_of(new: Addition, graph: Graph, states: Sequence[StateView]) -> StateView | None:
    """The state beside which a new one would be its widening: of the same source, layer, activation and target."""
    if new.incoming is None:
        return None
    (first,), ((target, (last,)),) = new.incoming.edges, new.outgoing
    for state in states:
        if state.post is None or len(state.edges) != 1 or state.shape.sizes[1:] != new.incoming.shape.sizes[1:]:
            continue
        (other,) = state.edges
        fed = fed_by(states, state.post)
        alike = _reads_alike(other, first) and len(fed) == 1 and fed[0][0].node == target.node
        if alike and _alike(fed[0][1], last) and graph[state.post].op == new.incoming.activation:
            return state
    return None


def _reads_alike(a: Edge, b: Edge) -> bool:
    return a.value == b.value and _alike(a, b)


def _alike(a: Edge, b: Edge) -> bool:
    """Whether two edges do the same with what they read, whatever their widths."""
    return a.carriers == b.carriers and _but_width(a.op) == _but_width(b.op)


def _but_width(op: Op) -> tuple[str, dict[str, object]]:
    sizes = ("out_channels", "out_features", "bias")
    return op.kind(), {name: value for name, value in op.attributes().items() if name not in sizes}
