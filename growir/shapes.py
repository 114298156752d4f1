"""Shapes of all values of a graph, with a dynamic batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from growir.errors import GraphError, Problem, cut
from growir.graph import MAX_RANK, Graph, HasGraph, Node, known, node_place, per_graph
from growir.ops import OpError, ParamTable, Shape

MAX_ELEMENTS = 10**10  # of one value, per sample

T = TypeVar("T")


@per_graph
def infer_shapes(graph: Graph) -> tuple[dict[str, Shape], list[Problem]]:
    """Shapes by value name, and every node that does not fit its inputs; what depends on one of those is left out.

    A value that is too large counts as one that does not fit: what follows could be too large for floats to count.
    """
    shapes: dict[str, Shape] = {}
    problems: list[Problem] = []
    old, before = _known(graph.origin)
    for k, entry in enumerate(graph.inputs):
        shape = Shape(tuple(entry.shape), entry.dtype)
        same = before.get(entry.name)
        try:
            shapes[entry.name] = same if same is not None and same == shape else _within_limits(shape)
        except OpError as error:
            problems.append(Problem(f"inputs[{k}] {cut(entry.name)!r}", str(error)))
    for k, node in enumerate(graph.nodes):
        least, most = node.op.arity
        if len(node.inputs) < least or (most is not None and len(node.inputs) > most):
            continue  # its own problem, found with the references
        if any(source not in shapes for source in node.inputs):
            continue
        if _as_before(node, shapes, old, before):
            shapes[node.name] = before[node.name]
            continue
        xs = [shapes[source] for source in node.inputs]
        try:
            if not node.op.integers:
                for source, x in zip(node.inputs, xs, strict=True):
                    if x.dtype != "float32":
                        raise OpError(f"{node.op.kind()} takes floats, but {source} holds {x.dtype}")
            shapes[node.name] = _within_limits(node.op.infer(*xs))
        except OpError as error:
            where = node_place(k, node.name)
            if len(xs) > 1:
                gives = ", ".join(f"{s} {x}" for s, x in zip(node.inputs[:4], xs, strict=False))
                problems.append(Problem(where, f"{error} (inputs: {gives})"))
            else:
                problems.append(Problem(where, str(error)))
    return shapes, problems


def _known(origin: Graph | None) -> tuple[Mapping[str, Node], Mapping[str, Shape]]:
    """The nodes of the graph that another was made of, and the shapes of its values as far as they are known."""
    found = None if origin is None else known(infer_shapes, origin)
    return ({}, {}) if origin is None or found is None else (origin.by_name, found[0])


def _as_before(node: Node, shapes: Mapping[str, Shape], old: Mapping[str, Node], before: Mapping[str, Shape]) -> bool:
    """Whether a node is the origin's, and what it reads has the shapes it had there: the very same objects."""
    if old.get(node.name) is not node or node.name not in before:
        return False
    return all(shapes[source] is before.get(source) for source in node.inputs)


@per_graph
def _untouched(graph: Graph) -> frozenset[str]:
    """The nodes that are those of the graph's origin, on inputs of the same shapes."""
    shapes = shapes_of(graph)
    old, before = _known(graph.origin)
    return frozenset(node.name for node in graph.nodes if _as_before(node, shapes, old, before))


def of_untouched(function: Callable[[Graph | HasGraph], Mapping[str, T]], graph: Graph) -> Mapping[str, T]:
    """What a `per_graph` function has said of the origin's nodes, where it holds of this graph's nodes too.

    Args:
        function: One that says of each node what follows from the node and the shapes of what it reads.
        graph: The graph, whose shapes all fit.
    """
    origin = graph.origin
    said = None if origin is None else known(function, origin)
    return {} if said is None else {name: said[name] for name in _untouched(graph)}


def _within_limits(shape: Shape) -> Shape:
    if shape.rank > MAX_RANK + 1:
        raise OpError(f"its value {cut(shape)} has {shape.rank} axes; at most {MAX_RANK} may be")
    if shape.elements > MAX_ELEMENTS:
        shown = f"{shape.elements:.3g}" if shape.elements < 10**100 else "over 1e+100"
        raise OpError(f"its value {cut(shape)} holds {shown} numbers per sample; at most {MAX_ELEMENTS:.0e} may be")
    return shape


@per_graph
def shapes_of(graph: Graph) -> Mapping[str, Shape]:
    """The shape of every input and node. Raises GraphError if any does not fit."""
    shapes, problems = infer_shapes(graph)
    if problems:
        raise GraphError(problems)
    return shapes


@per_graph
def own_tables(graph: Graph) -> Mapping[str, ParamTable]:
    """Every node's parameters by node name, tied ones included."""
    shapes, before = shapes_of(graph), of_untouched(own_tables, graph)
    return {
        node.name: before[node.name] if node.name in before else node.op.params(*(shapes[i] for i in node.inputs))
        for node in graph.nodes
    }


@per_graph
def owners(graph: Graph) -> Mapping[str, str]:
    """Every "node.parameter" to the key that stores it: itself, or for a tied one the first user's."""
    found: dict[str, str] = {}
    tables = own_tables(graph)
    for node in graph.nodes:
        for parameter in tables[node.name]:
            key = f"{node.name}.{parameter}"
            found[key] = node.tied.get(parameter, key) if node.tied else key
    return found
