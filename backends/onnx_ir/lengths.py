"""Which axes of a file's values are open, as the batch is: those whose size is the length of an input.

An axis of an input is open where the graph takes the beginning of a table by it (`first`): such a graph was read for
other lengths than its example's. The rest follows by working the shapes out for two lengths: with 16 and with 15
tokens, an axis of 16 that becomes one of 15 is open. Where an operator mixes the axis with another, or is spelled with
its size as a number, the axis has the example's size in the file as all others have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from growir.backends.onnx_ir.layout import sizes_of
from growir.backends.onnx_ir.scope import Symbols
from growir.graph import Graph
from growir.lengths import bounds_of
from growir.ops import BATCH, OpError, Shape, Var
from growir.ops.base import Elementwise
from growir.ops.reduction import Reduction
from growir.shapes import own_tables, shapes_of

Place = tuple[str, int]  # an axis of an input

# Kinds whose spelling has no size of an open axis in it; those that keep every axis are not listed.
_OPEN = frozenset(
    [
        *"parameter select slice first reshape flatten permute unsqueeze squeeze expand".split(),
        *"linear embedding layer_norm rms_norm matmul attention concat cumsum".split(),
        *"add mul sub div maximum minimum greater equal where pow softmax log_softmax standardise".split(),
    ]
)
_VIEWS = frozenset({"reshape", "flatten", "unsqueeze", "squeeze"})


def open_axes(graph: Graph) -> Mapping[Place, str]:
    """The open axes of a graph's inputs, each with what its size is called: one name for those that change together."""
    found: dict[Place, str] = {}
    for place in bounds_of(graph):
        if place in found:
            continue
        for places in _together(graph, place, found):
            names = {**found, **dict.fromkeys(places, f"{place[0]}_{place[1]}")}
            if symbols_of(graph, names) is not None:
                found = names
                break
    return found


def _together(graph: Graph, place: Place, taken: Collection[Place]) -> Iterator[list[Place]]:
    """The axis alone, then with all others of its size."""
    yield [place]
    sizes = {(entry.name, axis): entry.shape[axis] for entry in graph.inputs for axis in range(1, len(entry.shape))}
    fixed = {(entry.input, entry.axis) for entry in graph.fixed_sizes}
    yield [other for other, size in sizes.items() if size == sizes[place] and other not in taken and other not in fixed]


def symbols_of(graph: Graph, names: Mapping[Place, str]) -> Mapping[str, Symbols] | None:
    """For each value what its open axes are called; None if some operator cannot have them open."""
    usual = shapes_of(graph)
    found: dict[str, Symbols] = {name: (None,) * shape.rank for name, shape in usual.items()}
    for symbol in dict.fromkeys(names.values()):
        shapes = _shorter(graph, [place for place, name in names.items() if name == symbol])
        if shapes is None:
            return None
        for name, shape in shapes.items():
            open_ = [k for k, (a, b) in enumerate(zip(usual[name].dims, shape.dims, strict=True)) if a != b]
            if any(found[name][k] is not None for k in open_):
                return None
            found[name] = tuple(symbol if k in open_ else known for k, known in enumerate(found[name]))
    return found if all(_spelled(graph, name, found) for name in graph.by_name) else None


def _shorter(graph: Graph, places: Collection[Place]) -> Mapping[str, Shape] | None:
    """The shapes of all values with some axes of inputs one shorter; None if anything but that size changes."""
    usual, tables = shapes_of(graph), own_tables(graph)
    size = next(usual[name].size(axis) for name, axis in places)
    if size == 1:
        return None
    shapes: dict[str, Shape] = {}
    for entry in graph.inputs:
        shape = usual[entry.name]
        for name, axis in places:
            shape = shape.with_dim(axis, size - 1) if name == entry.name else shape
        shapes[entry.name] = shape
    for node in graph.nodes:
        given = [shapes[name] for name in node.inputs]
        op = node.op
        try:
            if given:
                op = op.followed(usual[node.inputs[0]], given[0])
            shape = shapes[node.name] = op.infer(*given)
        except OpError:
            return None
        old = usual[node.name]
        if op.params(*given) != tables[node.name] or shape.rank != old.rank:
            return None
        if any(a != b and (a, b) != (size, size - 1) for a, b in zip(old.dims, shape.dims, strict=True)):
            return None
    return shapes


def _spelled(graph: Graph, name: str, symbols: Mapping[str, Symbols]) -> bool:
    """Whether a node can be written with the open axes that its values have."""
    node = graph[name]
    values = [symbols[value] for value in (*node.inputs, name)]
    if not any(symbol is not None for value in values for symbol in value):
        return True
    if node.op.kind() in _VIEWS:
        return sizes_of(shapes_of(graph)[name], values[0], values[-1]) is not None
    if isinstance(node.op, Var):
        return all(values[0][axis] is None for axis in node.op.axes(len(values[0])))
    return node.op.kind() in _OPEN or isinstance(node.op, Elementwise | Reduction)


def declared(shape: Shape, symbols: Symbols) -> tuple[int | str, ...]:
    """The sizes of a value as a file declares them."""
    return tuple(
        dim if dim == BATCH or symbol is None else symbol for dim, symbol in zip(shape.dims, symbols, strict=True)
    )
