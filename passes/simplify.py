"""Local rules by which a graph becomes simpler and computes the same: the table that canonicalise runs to its end.

A rule looks at one node and at what it reads. It says which value the node equals, which simpler node stands for it
under the same name, or nothing. No value ever changes, so neither do shapes and ranges.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from growir.graph import Graph, Node
from growir.layers import ranges_of
from growir.ops import (
    Add,
    Affine,
    Clamp,
    Concat,
    Dropout,
    Erf,
    Expand,
    Flatten,
    Gelu,
    Hardsigmoid,
    Hardswish,
    Mul,
    Op,
    OpError,
    Pad,
    Permute,
    Relu,
    Relu6,
    Reshape,
    Select,
    Shape,
    Sigmoid,
    Silu,
    Slice,
    Squeeze,
    Unsqueeze,
)
from growir.ops.pool import AdaptivePool, WindowPool
from growir.ops.ranges import Range, keeps
from growir.shapes import own_tables, shapes_of


@dataclass(slots=True)
class View:
    """A graph on its way to its canonical form.

    Attributes:
        nodes: The nodes as they are by now, by name.
        readers: How often each value is read, by nodes or as an output.
        shapes: Of all values.
        ranges: Of all values.
        learned: Names of the nodes with parameters.
    """

    nodes: dict[str, Node]
    readers: Counter[str]
    shapes: Mapping[str, Shape]
    ranges: Mapping[str, Range]
    learned: frozenset[str]

    def reads(self, node: Node, kinds: type[Op] | tuple[type[Op], ...]) -> Node | None:
        """The node that the first input is, if it is of these kinds."""
        found = self.nodes.get(node.inputs[0]) if node.inputs else None
        return found if found is not None and isinstance(found.op, kinds) else None

    def alone(self, name: str) -> bool:
        """Whether a value is read once."""
        return self.readers[name] == 1

    def fits(self, node: Node, op: Op, inputs: Sequence[str]) -> Node | None:
        """The node with another operator and inputs, if that gives a value of the same shape."""
        try:
            same = op.infer(*(self.shapes[name] for name in inputs)) == self.shapes[node.name]
        except OpError:
            return None
        return node.model_copy(update={"op": op, "inputs": tuple(inputs)}) if same else None


Found = Node | str | None
SHAPERS = (Reshape, Flatten, Squeeze, Unsqueeze)
# What gives back its input whenever it keeps the shape; of the pools, the one whose cells then hold one number each.
MOVERS = (Reshape, Flatten, Expand, Slice, Pad, AdaptivePool)


def nothing_changes(view: View, node: Node) -> Found:
    """An activation on numbers that it keeps: identity, relu after relu, relu after sigmoid."""
    kept = keeps(node.op)
    if kept is None or node.name in view.learned or not view.ranges[node.inputs[0]].within(kept):
        return None
    return node.inputs[0]


def nothing_dropped(view: View, node: Node) -> Found:
    """A dropout with probability 0."""
    return node.inputs[0] if isinstance(node.op, Dropout) and node.op.p == 0 else None


def nothing_moves(view: View, node: Node) -> Found:
    """A reshape to the same shape, a slice of everything, axes in the order they have."""
    if isinstance(node.op, MOVERS) and len(node.inputs) == 1:
        return node.inputs[0] if view.shapes[node.name] == view.shapes[node.inputs[0]] else None
    in_order = isinstance(node.op, Permute) and node.op.dims == tuple(range(len(node.op.dims)))
    return node.inputs[0] if in_order else None


def nothing_pooled(view: View, node: Node) -> Found:
    """A pool over windows of one number."""
    if not isinstance(node.op, WindowPool) or node.op.attributes().get("divisor_override", 1) != 1:
        return None
    single = {*node.op.kernel(), *node.op.steps()} == {1} and not any(node.op.pads())
    return node.inputs[0] if single else None


def one_operand(view: View, node: Node) -> Found:
    """A sum, product or concatenation of one value."""
    return node.inputs[0] if isinstance(node.op, Add | Mul | Concat) and len(node.inputs) == 1 else None


def nested_operands(view: View, node: Node) -> Found:
    """A sum of sums, and so on: one operator with all operands."""
    if not isinstance(node.op, Add | Mul | Concat):
        return None
    operands: list[str] = []
    for name in node.inputs:
        inner = view.nodes.get(name)
        same = inner is not None and _joins_alike(view, inner, node)
        operands += inner.inputs if inner is not None and same and view.alone(name) else [name]
    return view.fits(node, node.op, operands) if len(operands) > len(node.inputs) else None


def _joins_alike(view: View, inner: Node, outer: Node) -> bool:
    if isinstance(inner.op, Concat) and isinstance(outer.op, Concat):
        rank = view.shapes[outer.name].rank
        return inner.op.dim % rank == outer.op.dim % rank
    return inner.op.kind() == outer.op.kind()


def whole_again(view: View, node: Node) -> Found:
    """All slices of a value, put together again."""
    if not isinstance(node.op, Concat):
        return None
    axis, at, base = node.op.dim % view.shapes[node.name].rank, 0, ""
    for name in node.inputs:
        part = view.nodes.get(name)
        if part is None or not isinstance(part.op, Slice) or (base and part.inputs[0] != base):
            return None
        base = part.inputs[0]
        if part.op.axis % view.shapes[base].rank != axis or part.op.start != at:
            return None
        at += part.op.length
    return base if view.shapes[base] == view.shapes[node.name] else None


def reshaped_twice(view: View, node: Node) -> Found:
    """Only the last of several reshapes counts, and none if it leads back."""
    inner = view.reads(node, SHAPERS)
    if inner is None or not isinstance(node.op, SHAPERS):
        return None
    base = inner.inputs[0]
    if view.shapes[base] == view.shapes[node.name]:
        return base
    if isinstance(node.op, Reshape):
        return view.fits(node, node.op, [base])
    return view.fits(node, Flatten(), [base]) if view.shapes[node.name].rank == 2 else None


def flat_reshape(view: View, node: Node) -> Found:
    """A reshape into one axis is a flatten."""
    if not isinstance(node.op, Reshape) or view.shapes[node.name].rank != 2:
        return None
    return view.fits(node, Flatten(), node.inputs)


def permuted_twice(view: View, node: Node) -> Found:
    """Two orders of the axes are one."""
    inner = view.reads(node, Permute)
    if inner is None or not (isinstance(node.op, Permute) and isinstance(inner.op, Permute)):
        return None
    dims = tuple(inner.op.dims[k] for k in node.op.dims)
    return node.model_copy(update={"op": Permute(dims=dims), "inputs": inner.inputs})


def sliced_twice(view: View, node: Node) -> Found:
    """A slice of a slice along one axis."""
    inner = view.reads(node, Slice)
    if inner is None or not (isinstance(node.op, Slice) and isinstance(inner.op, Slice)):
        return None
    rank = view.shapes[node.name].rank
    if node.op.axis % rank != inner.op.axis % rank:
        return None
    op = Slice(axis=node.op.axis, start=inner.op.start + node.op.start, length=node.op.length)
    return node.model_copy(update={"op": op, "inputs": inner.inputs})


def selected_in_a_row(view: View, node: Node) -> Found:
    """Positions that follow each other are a slice."""
    if not isinstance(node.op, Select):
        return None
    first, count = node.op.indices[0], len(node.op.indices)
    if node.op.indices != tuple(range(first, first + count)):
        return None
    op = Slice(axis=node.op.axis, start=first, length=count)
    return node.model_copy(update={"op": op})


def affine_of_one(view: View, node: Node) -> Found:
    """1 x + 0."""
    return node.inputs[0] if isinstance(node.op, Affine) and (node.op.scale, node.op.shift) == (1, 0) else None


HALF = Affine(scale=0.5)
NAMED_CLAMPS: Mapping[tuple[float | None, float | None], Op] = {(0.0, None): Relu(), (0.0, 6.0): Relu6()}


def clamp_of_a_name(view: View, node: Node) -> Found:
    """Bounds at 0, or 0 and 6, are relu and relu6."""
    if not isinstance(node.op, Clamp):
        return None
    op = NAMED_CLAMPS.get((node.op.min, node.op.max))
    return None if op is None else node.model_copy(update={"op": op})


def _shifted_relu6(view: View, node: Node | None) -> str | None:
    """The value x of relu6(x + 3), each part read once."""
    if node is None or not isinstance(node.op, Relu6) or not view.alone(node.name):
        return None
    shift = view.reads(node, Affine)
    if shift is None or not view.alone(shift.name) or shift.op != Affine(shift=3.0):
        return None
    return shift.inputs[0]


def _is_sixth(op: Op) -> bool:
    return isinstance(op, Affine) and abs(op.scale - 1 / 6) < 1e-12 and op.shift == 0


def spelled_hardsigmoid(view: View, node: Node) -> Found:
    """relu6(x + 3) / 6."""
    value = _shifted_relu6(view, view.reads(node, Relu6)) if _is_sixth(node.op) else None
    return None if value is None else node.model_copy(update={"op": Hardsigmoid(), "inputs": (value,)})


def spelled_hardswish(view: View, node: Node) -> Found:
    """x relu6(x + 3) / 6, divided at the end."""
    product = view.reads(node, Mul) if _is_sixth(node.op) else None
    if product is None or not view.alone(product.name):
        return None
    for value, other in _both_ways(product):
        if _shifted_relu6(view, view.nodes.get(other)) == value:
            return node.model_copy(update={"op": Hardswish(), "inputs": (value,)})
    return None


def _one_plus_erf(view: View, name: str, scale: float) -> str | None:
    """The value x of scale (1 + erf(x / sqrt(2))), each part read once."""
    outer = view.nodes.get(name)
    if outer is None or outer.op != Affine(scale=scale, shift=scale) or not view.alone(name):
        return None
    erf = view.reads(outer, Erf)
    inner = None if erf is None or not view.alone(erf.name) else view.reads(erf, Affine)
    if inner is None or not view.alone(inner.name) or not isinstance(inner.op, Affine):
        return None
    root = abs(inner.op.scale - math.sqrt(0.5)) < 1e-12 and inner.op.shift == 0
    return inner.inputs[0] if root else None


def spelled_gelu(view: View, node: Node) -> Found:
    """x / 2 (1 + erf(x / sqrt(2))), wherever the half stands."""
    halved = isinstance(node.op, Affine) and node.op == HALF
    product = view.reads(node, Mul) if halved else node
    if product is None or not isinstance(product.op, Mul) or (halved and not view.alone(product.name)):
        return None
    for value, other in _both_ways(product):
        half = view.nodes.get(value)
        if halved:
            found = _one_plus_erf(view, other, 1.0)
        elif half is not None and half.op == HALF and view.alone(value):
            value, found = half.inputs[0], _one_plus_erf(view, other, 1.0)
        else:
            found = _one_plus_erf(view, other, 0.5)
        if found == value:
            return node.model_copy(update={"op": Gelu(), "inputs": (value,)})
    return None


def gated_by_itself(view: View, node: Node) -> Found:
    """x sigmoid(x) is silu, x hardsigmoid(x) is hardswish."""
    if not isinstance(node.op, Mul):
        return None
    for value, other in _both_ways(node):
        gate = view.nodes.get(other)
        if gate is None or gate.inputs != (value,) or not view.alone(other):
            continue
        if isinstance(gate.op, Sigmoid):
            return node.model_copy(update={"op": Silu(), "inputs": (value,)})
        if isinstance(gate.op, Hardsigmoid):
            return node.model_copy(update={"op": Hardswish(), "inputs": (value,)})
    return None


def _both_ways(node: Node) -> Iterator[tuple[str, str]]:
    if len(node.inputs) == 2:
        yield node.inputs[0], node.inputs[1]
        yield node.inputs[1], node.inputs[0]


RULES: tuple[Callable[[View, Node], Found], ...] = (
    nothing_changes,
    nothing_dropped,
    nothing_moves,
    nothing_pooled,
    affine_of_one,
    one_operand,
    whole_again,
    nested_operands,
    reshaped_twice,
    flat_reshape,
    permuted_twice,
    sliced_twice,
    selected_in_a_row,
    clamp_of_a_name,
    spelled_hardsigmoid,
    spelled_hardswish,
    spelled_gelu,
    gated_by_itself,
)


def simplified(graph: Graph) -> tuple[list[Node], list[str]]:
    """The nodes and outputs after every rule has been followed to its end, without those that reach no output.

    Each round is one walk over the nodes. A rule that asks how often a value is read may wait for another round.
    """
    nodes, outputs = list(graph.nodes), list(graph.outputs)
    learned = frozenset(name for name, table in own_tables(graph).items() if table)
    while True:
        nodes = _live(nodes, outputs)
        readers = Counter([*outputs, *(name for node in nodes for name in node.inputs)])
        view = View({}, readers, shapes_of(graph), ranges_of(graph), learned)
        after, found = _walk(view, nodes, outputs)
        if after == nodes and found == outputs:
            return nodes, outputs
        nodes, outputs = after, found


def _walk(view: View, nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[list[Node], list[str]]:
    equal: dict[str, str] = {}  # values that turned out to be others
    for node in nodes:
        if not equal.keys().isdisjoint(node.inputs):
            node = node.with_inputs(equal.get(name, name) for name in node.inputs)
        found: Found = node
        while isinstance(found, Node):
            node = found
            found = next((better for rule in RULES if (better := rule(view, node)) is not None), None)
            if found is not None:
                view.readers.subtract(node.inputs)
                view.readers.update(found.inputs if isinstance(found, Node) else ())
        if found is None:
            view.nodes[node.name] = node
        else:
            equal[node.name] = found
            view.readers[found] += view.readers[node.name]
    return list(view.nodes.values()), [equal.get(name, name) for name in outputs]


def _live(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    needed = set(outputs)
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return [node for node in nodes if node.name in needed]
