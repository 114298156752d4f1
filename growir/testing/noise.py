"""Graphs with nodes that draw random numbers in train mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st

from growir.graph import Graph, Node
from growir.ops import Attention, Dropout, Dropout1d, Dropout2d, Elementwise, Op, Shape
from growir.rewrite import Pass, fresh_name
from growir.shapes import own_tables, shapes_of
from growir.testing.drawing import candidates_on, until
from growir.testing.graphs import graphs
from growir.verify import verify

P = TypeVar("P", bound=Pass)


@st.composite
def noisy_graphs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Graph:
    """Graphs in which operators that draw stand in place of some activations, and sometimes where nobody reads them.

    A pass that takes, adds or moves one of them is not exact there: all others draw other numbers then.
    """
    graph: Graph = until(draw, graphs(), lambda graph: bool(_activations(graph)))
    shapes, plain = shapes_of(graph), _activations(graph)
    noisy = {name for name in plain if draw(st.booleans())} or {plain[0]}
    nodes = [_noise(draw, n.name, n.inputs[0], shapes[n.name]) if n.name in noisy else n for n in graph.nodes]
    floats = [entry.name for entry in graph.inputs if entry.dtype == "float32"]
    if floats and draw(st.booleans()):
        nodes.insert(0, _noise(draw, fresh_name(graph, "unread"), floats[0], shapes[floats[0]]))
    return verify(graph.replace(nodes=nodes))


@st.composite
def noisy_candidates(draw: Callable[[st.SearchStrategy[Any]], Any], kind: type[P]) -> tuple[P, Graph]:
    """One of a pass's candidates, and the graph with noise that it is for."""
    found: tuple[P, Graph] = draw(candidates_on(kind, noisy_graphs()))
    return found


def _activations(graph: Graph) -> list[str]:
    """What noise may stand for: nothing where a logarithm or the like would meet a zero that was dropped."""
    if any(node.op.partial for node in graph.nodes):
        return []
    tables = own_tables(graph)
    return [n.name for n in graph.nodes if isinstance(n.op, Elementwise) and not n.op.integers and not tables[n.name]]


def _noise(draw: Callable[[st.SearchStrategy[Any]], Any], name: str, value: str, shape: Shape) -> Node:
    """A node that draws and leaves a value's shape as it is."""
    ops: list[Op] = [Dropout(p=0.3)]
    if shape.batched and shape.rank == 3:
        ops.append(Dropout1d(p=0.3))
    if shape.batched and shape.rank == 4:
        ops.append(Dropout2d(p=0.3))
    if shape.batched and shape.rank > 2:
        ops.append(Attention(dropout_p=0.3))
    op = draw(st.sampled_from(ops))
    return Node(name=name, op=op, inputs=(value,) * (3 if isinstance(op, Attention) else 1))
