"""How a value reaches a state of another shape: the layer between them, and what brings the value there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from growir.errors import PassRefused, cut
from growir.graph import Graph, Node, suggestion
from growir.ops import ACTIVATIONS, AdaptiveAvgPool2d, AvgPool2d, Conv2d, Flatten, Linear, MaxPool2d, Op, OpError, Shape
from growir.ops.base import Pair, pair
from growir.passes.state import State, check_edge, descendants, find_state, is_linear, states
from growir.rewrite import Pass
from growir.shapes import shapes_of

Layer = Literal["linear", "conv2d"]
Pool = Literal["max", "avg", "adaptive_avg", "global_avg", "flatten"]
KERNEL = 3  # of a convolution that names none


@dataclass(frozen=True, slots=True)
class Link:
    """The operators between a value and a state.

    Attributes:
        before: What brings the value to the state's axes, with a name for each.
        kernel: Of the convolution; None for a linear layer.
        stride: Of the convolution.
    """

    before: tuple[tuple[str, Op], ...] = ()
    kernel: Pair | None = None
    stride: Pair = 1

    def layer(self, width: int, *, bias: bool) -> Conv2d | Linear:
        """The first layer of the link, with so many channels."""
        if self.kernel is None:
            return Linear(out_features=width, bias=bias)
        return _centred(width, self.kernel, self.stride, bias)

    def next_layer(self, width: int, *, bias: bool) -> Conv2d | Linear:
        """A layer after it, which keeps the positions."""
        return Linear(out_features=width, bias=bias) if self.kernel is None else _centred(width, self.kernel, 1, bias)

    @property
    def axis(self) -> int:
        """The axis of its channels."""
        return -1 if self.kernel is None else 1

    def prepared(self, shape: Shape) -> Shape:
        """What the value becomes before the layer. Raises OpError if it does not fit."""
        for _, op in self.before:
            shape = op.infer(shape)
        return shape

    def lead(self, source: str, module: str) -> tuple[list[Node], str]:
        """The nodes before the layer, named inside a module, and the name of the value they give."""
        nodes: list[Node] = []
        for name, op in self.before:
            nodes.append(Node(name=f"{module}.{name}", op=op, inputs=(source,)))
            source = nodes[-1].name
        return nodes, source


def _centred(width: int, kernel: Pair, stride: Pair, bias: bool) -> Conv2d:
    height, breadth = pair(kernel)
    padding = (height // 2, breadth // 2)
    fields = {"out_channels": width, "kernel_size": kernel, "stride": stride, "padding": padding, "bias": bias}
    return Conv2d.model_validate(fields)


class Linked(Pass):
    """What passes that lead a value into a state share: how the value comes to the state's shape.

    Between two maps (N, C, H, W) stands a convolution whose padding keeps positions centred; `stride`, or `pool` with
    that stride, makes the map smaller. From a map into a vector leads `pool` and a linear layer. Elsewhere a linear
    layer over the last axis does, which keeps all other axes.

    Attributes:
        source: A graph input or node.
        target: A node of the state: its add, one of the add's operands, its activation, or any other node, which is
            then wrapped into an add.
        kernel_size: Of the convolution, odd; 3 by default.
        stride: Of the convolution, or of the pool in front of it.
        pool: How a map gets smaller: `max` or `avg` over windows of `stride`; `adaptive_avg` over a grid of the
            target's size; `global_avg` over all positions, or `flatten` into one long vector, for a target (N, F).
        layer: `conv2d` between two maps and `linear` elsewhere, unless said.
    """

    version: ClassVar[int] = 2

    source: str
    target: str
    kernel_size: Pair | None = None
    stride: Pair = 1
    pool: Pool | None = None
    layer: Layer | None = None

    @classmethod
    def upgraded(cls, version: int, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
        # The first version knew no convolutions: between two maps stood a linear layer over the last axis.
        return {**fields, "layer": "linear"} if version == 1 else super().upgraded(version, fields)

    def check(self, graph: Graph) -> None:
        check_edge(graph, self.source, find_state(graph, self.target))
        self.link(graph)

    def resolved(self, graph: Graph) -> Self:
        kernel = self.link(graph).kernel
        return self.model_copy(update={"layer": "linear" if kernel is None else "conv2d", "kernel_size": kernel})

    def link(self, graph: Graph) -> Link:
        """The way from source to target, which are known to exist and to hold floats.

        Raises:
            PassRefused: The arguments lead elsewhere; with the nearest ones that fit.
        """
        shapes = shapes_of(graph)
        state = find_state(graph, self.target).node
        here, there = shapes[self.source], shapes[state]
        both_maps = is_map(here) and is_map(there)
        convolves = self.layer == "conv2d" or (self.layer is None and both_maps)
        try:
            return self._convolution(here, there) if convolves else self._linear(here, there)
        except OpError as error:
            problem = str(error)
        advice = next((f"; try {fields}" for fields in _fitting(here, there)), "")
        if not advice and both_maps:
            advice = f"; no edge enlarges a map: choose a source of at least {there.size(2)} x {there.size(3)}"
        elif not advice:
            advice = "; choose a source that differs from the target in its last axis only"
        raise PassRefused(
            f"{self.name}: {problem}, but {cut(self.source)} is {here} and {cut(state)} is {there}{advice}"
        )

    def _linear(self, here: Shape, there: Shape) -> Link:
        for field in ("kernel_size", "stride"):
            if getattr(self, field) != type(self).model_fields[field].default:
                raise OpError(f"{field} goes with a convolution between two maps (N, C, H, W)")
        match self.pool:
            case None:
                if here.dims[:-1] != there.dims[:-1]:
                    raise OpError("a linear edge keeps all axes but the last")
                return Link()
            case "global_avg":
                if not (is_map(here) and there.rank == 2):
                    raise OpError("pool='global_avg' leads from a map (N, C, H, W) to a vector (N, F)")
                return Link((("pool", AdaptiveAvgPool2d()), ("flat", Flatten())))
            case "flatten":
                if not (here.rank > 2 == there.rank):
                    raise OpError("pool='flatten' leads from a value of more axes to a vector (N, F)")
                return Link((("flat", Flatten()),))
            case _:
                raise OpError(f"pool={self.pool!r} goes with a convolution between two maps (N, C, H, W)")

    def _convolution(self, here: Shape, there: Shape) -> Link:
        if not (is_map(here) and is_map(there)):
            raise OpError("a convolution leads from a map (N, C, H, W) to a map")
        kernel = self.kernel_size or KERNEL
        if any(size % 2 == 0 for size in pair(kernel)):
            odd = " or ".join(str(size | 1) for size in dict.fromkeys(pair(kernel)) if size % 2 == 0)
            raise OpError(f"kernel_size must be odd, to keep positions centred: {odd} instead of {kernel}")
        window = {"kernel_size": self.stride}
        match self.pool:
            case None:
                link = Link((), kernel, self.stride)
            case "max":
                link = Link((("pool", MaxPool2d.model_validate(window)),), kernel)
            case "avg":
                link = Link((("pool", AvgPool2d.model_validate(window)),), kernel)
            case "adaptive_avg":
                if self.stride != 1:
                    raise OpError("pool='adaptive_avg' gives a map of the target's size by itself, without stride")
                if any(a < b for a, b in zip(here.sizes[1:], there.sizes[1:], strict=True)):
                    raise OpError("pool='adaptive_avg' makes a map smaller")
                grid = AdaptiveAvgPool2d.model_validate({"output_size": list(there.sizes[1:])})
                link = Link((("pool", grid),), kernel)
            case _:
                raise OpError(f"pool={self.pool!r} makes a vector, not a map")
        found = link.layer(there.size(1), bias=False).infer(link.prepared(here))
        if found.dims[2:] != there.dims[2:]:
            raise OpError(f"with these arguments the edge gives {found}")
        return link


def check_activation(kind: str) -> None:
    """Raise PassRefused unless this is the kind of an activation."""
    if kind not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise PassRefused(f"{cut(kind)!r} is no activation; there are: {known}.{suggestion(kind, ACTIVATIONS)}")


def is_map(shape: Shape) -> bool:
    """Whether a convolution takes and gives values of such a shape."""
    return is_linear(shape) and shape.rank == 4


class Fields(dict[str, Any]):
    """Arguments of a link, shown as Python writes them."""

    def __str__(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.items()) or "leaving the others out"


def _fitting(here: Shape, there: Shape) -> Iterator[Fields]:
    """Arguments that lead from a value of one shape to a state of another, the simplest first."""
    if not (is_linear(here) and is_linear(there)):
        return
    if is_map(here) and is_map(there):
        yield from _map_to_map(here.sizes[1:], there.sizes[1:])
    elif here.dims[:-1] == there.dims[:-1]:
        yield Fields()
    elif there.rank == 2:
        if is_map(here):
            yield Fields(pool="global_avg")
        yield Fields(pool="flatten")


def _map_to_map(here: Sequence[int], there: Sequence[int]) -> Iterator[Fields]:
    if any(a < b for a, b in zip(here, there, strict=True)):
        return
    if here == there:
        yield Fields()
        return
    # The least stride that gives so many positions: convolutions round up, pools down.
    strides = tuple(-(-a // b) for a, b in zip(here, there, strict=True))
    if all(-(-a // s) == b for a, b, s in zip(here, there, strides, strict=True)):
        yield Fields(stride=_short(strides))
    windows = tuple(a // b for a, b in zip(here, there, strict=True))
    if all(a // s == b for a, b, s in zip(here, there, windows, strict=True)):
        yield Fields(stride=_short(windows), pool="avg")
    yield Fields(pool="adaptive_avg")


def _short(sizes: tuple[int, ...]) -> int | tuple[int, ...]:
    return sizes[0] if len(set(sizes)) == 1 else sizes


def connectable(graph: Graph) -> Iterator[tuple[str, State, Fields]]:
    """Every (source value, state) that a layer could join, with the simplest arguments; each state once.

    Lazily, since there are as many as pairs of values.
    """
    shapes = shapes_of(graph)
    # Values by the axes that a linear layer keeps: those that fit a state by default stand together.
    alike: dict[tuple[object, ...], list[str]] = {}
    for name, shape in shapes.items():
        if is_linear(shape):
            alike.setdefault(_axes(shape), []).append(name)
    for state in states(graph):
        there = shapes[state.node]
        if not is_linear(there):
            continue
        later = descendants(graph, state.node)
        found = [*alike.get(_axes(there), [])]
        if there.rank in (2, 4):
            found += [
                name for axes, names in alike.items() if len(axes) == 3 and axes != _axes(there) for name in names
            ]
        for name in found:
            fields = next(_fitting(shapes[name], there), None)
            if name not in later and fields is not None:
                yield name, state, fields


def _axes(shape: Shape) -> tuple[object, ...]:
    return (shape.dims[0], *shape.dims[2:]) if is_map(shape) else shape.dims[:-1]
