"""How a value reaches a state of another shape: the layer between them, and what brings the value there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from growir.errors import PassRefused, cut
from growir.graph import Graph, Node, suggestion
from growir.ops import ACTIVATIONS, OP_BY_KIND, Flatten, Linear, Op, OpError, Shape
from growir.ops.base import Extents, PositiveInt, in_full
from growir.passes.state import State, check_edge, descendants, find_state, is_linear, states
from growir.rewrite import Pass
from growir.shapes import shapes_of

Layer = Literal["linear", "conv1d", "conv2d", "conv3d"]
Pool = Literal["max", "avg", "adaptive_avg", "global_avg", "flatten"]
KERNEL = 3  # of a convolution that names none


def _shortest(value: Any) -> Any:
    """Equal numbers in one form, 3 rather than [3, 3], so that one rewrite is recorded in one way."""
    match value:
        case [first, *rest] if rest and all(type(n) is type(first) and n == first for n in rest):
            return first
        case _:
            return value


Size = Annotated[
    PositiveInt | Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=3)], BeforeValidator(_shortest)
]


@dataclass(frozen=True, slots=True)
class Link:
    """The operators between a value and a state.

    Attributes:
        before: What brings the value to the state's axes, with a name for each.
        kind: Of its layers.
        kernel: Of a convolution; None for a linear layer.
        stride: Of the first convolution.
    """

    before: tuple[tuple[str, Op], ...] = ()
    kind: Layer = "linear"
    kernel: Extents | None = None
    stride: Extents = 1

    def layer(self, width: int, *, bias: bool) -> Op:
        """The first layer of the link, with so many channels."""
        return self._layer(width, bias, self.stride)

    def next_layer(self, width: int, *, bias: bool) -> Op:
        """A layer after it, which keeps the positions."""
        return self._layer(width, bias, 1)

    def _layer(self, width: int, bias: bool, stride: Extents) -> Op:
        if self.kernel is None:
            return Linear(out_features=width, bias=bias)
        sizes = (self.kernel,) if isinstance(self.kernel, int) else self.kernel
        padding = _short([size // 2 for size in sizes])  # which keeps positions centred
        fields = {"out_channels": width, "kernel_size": self.kernel, "stride": stride, "padding": padding, "bias": bias}
        return OP_BY_KIND[self.kind].model_validate(fields)

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


class Linked(Pass):
    """What passes that lead a value into a state share: how the value comes to the state's shape.

    Between two maps, (N, C, H, W) or (N, C, D, H, W), stands a convolution whose padding keeps positions centred;
    `stride`, or `pool` with that stride, makes the map smaller. From a map into a vector leads `pool` and a linear
    layer. Elsewhere a linear layer over the last axis does, which keeps all other axes.

    Attributes:
        source: A graph input or node.
        target: A node of the state: its add, one of the add's operands, its activation, or any other node, which is
            then wrapped into an add.
        kernel_size: Of the convolution, odd; 3 by default. One number, or one for each axis.
        stride: Of the convolution, or of the pool in front of it.
        pool: How a map gets smaller: `max` or `avg` over windows of `stride`; `adaptive_avg` over a grid of the
            target's size; `global_avg` over all positions, or `flatten` into one long vector, for a target (N, F).
        layer: `conv2d`, or `conv3d`, between two maps and `linear` elsewhere, unless said; (N, C, L) may have `conv1d`.
    """

    version: ClassVar[int] = 2

    source: str
    target: str
    kernel_size: Size | None = None
    stride: Size = 1
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
        link = self.link(graph)
        return self.model_copy(update={"layer": link.kind, "kernel_size": link.kernel})

    def link(self, graph: Graph) -> Link:
        """The way from source to target, which are known to exist and to hold floats.

        Raises:
            PassRefused: The arguments lead elsewhere; with the nearest ones that fit.
        """
        shapes = shapes_of(graph)
        state = find_state(graph, self.target).node
        here, there = shapes[self.source], shapes[state]
        both_maps = is_map(here) and here.rank == there.rank
        kind = self.layer or (layer_of(here) if both_maps else "linear")
        try:
            return self._linear(here, there) if kind == "linear" else self._convolution(kind, here, there)
        except OpError as error:
            problem = str(error)
        advice = next((f"; try {fields}" for fields in _fitting(here, there)), "")
        if not advice and both_maps:
            least = " x ".join(str(size) for size in there.sizes[1:])
            advice = f"; no edge enlarges a map: choose a source of at least {least}"
        elif not advice:
            advice = "; choose a source that differs from the target in its last axis only"
        raise PassRefused(
            f"{self.name}: {problem}, but {cut(self.source)} is {here} and {cut(state)} is {there}{advice}"
        )

    def _linear(self, here: Shape, there: Shape) -> Link:
        for field in ("kernel_size", "stride"):
            if getattr(self, field) != type(self).model_fields[field].default:
                raise OpError(f"{field} goes with a convolution between two maps")
        match self.pool:
            case None:
                if here.dims[:-1] != there.dims[:-1]:
                    raise OpError("a linear edge keeps all axes but the last")
                return Link()
            case "global_avg":
                if not (is_map(here) and there.rank == 2):
                    raise OpError("pool='global_avg' leads from a map (N, C, H, W) to a vector (N, F)")
                return Link((("pool", _pool("adaptive_avg_pool", here, output_size=1)), ("flat", Flatten())))
            case "flatten":
                if not (here.rank > 2 == there.rank):
                    raise OpError("pool='flatten' leads from a value of more axes to a vector (N, F)")
                return Link((("flat", Flatten()),))
            case _:
                raise OpError(f"pool={self.pool!r} goes with a convolution between two maps")

    def _convolution(self, kind: Layer, here: Shape, there: Shape) -> Link:
        rank = SPATIAL[kind] + 2
        if not (here.rank == rank == there.rank):
            raise OpError(f"a {kind} leads from a value of {rank} axes, (N, C, ...), to another")
        kernel = checked_kernel(self.kernel_size, SPATIAL[kind])
        if isinstance(self.stride, tuple) and len(self.stride) != SPATIAL[kind]:
            raise OpError(f"stride has {len(self.stride)} numbers, but a {kind} has {SPATIAL[kind]} axes")
        match self.pool:
            case None:
                link = Link((), kind, kernel, self.stride)
            case "max" | "avg":
                window = _pool(f"{self.pool}_pool", here, kernel_size=self.stride)
                link = Link((("pool", window),), kind, kernel)
            case "adaptive_avg":
                if self.stride != 1:
                    raise OpError("pool='adaptive_avg' gives a map of the target's size by itself, without stride")
                if any(a < b for a, b in zip(here.sizes[1:], there.sizes[1:], strict=True)):
                    raise OpError("pool='adaptive_avg' makes a map smaller")
                grid = _pool("adaptive_avg_pool", here, output_size=_short(there.sizes[1:]))
                link = Link((("pool", grid),), kind, kernel)
            case _:
                raise OpError(f"pool={self.pool!r} makes a vector, not a map")
        found = link.layer(there.size(1), bias=False).infer(link.prepared(here))
        if found.dims[2:] != there.dims[2:]:
            raise OpError(f"with these arguments the edge gives {found}")
        return link


# (N, T, C) more often than (N, C, L), so values of three axes convolve only on request.
OF_RANK: Mapping[int, Layer] = {4: "conv2d", 5: "conv3d"}
SPATIAL: Mapping[Layer, int] = {"linear": 0, "conv1d": 1, "conv2d": 2, "conv3d": 3}


def layer_of(shape: Shape) -> Layer:
    """The kind of layer that makes a value of such a shape from one, unless another is named."""
    return OF_RANK.get(shape.rank, "linear")


def checked_kernel(kernel: Size | None, axes: int) -> Extents:
    """A kernel for so many axes that has a centre, 3 if None. Raises OpError if this one has none."""
    if kernel is None:
        return KERNEL
    sizes = in_full(kernel, axes)
    if len(sizes) != axes:
        raise OpError(f"kernel_size has {len(sizes)} numbers, but the convolution has {axes} axes")
    if any(size % 2 == 0 for size in sizes):
        odd = " or ".join(str(size | 1) for size in dict.fromkeys(sizes) if size % 2 == 0)
        raise OpError(f"kernel_size must be odd, to keep positions centred: {odd} instead of {kernel}")
    return kernel


def _pool(kind: str, shape: Shape, **fields: Extents) -> Op:
    """A pool over the spatial axes of a value."""
    return OP_BY_KIND[f"{kind}{shape.rank - 2}d"].model_validate(fields)


def check_activation(kind: str) -> None:
    """Raise PassRefused unless this is the kind of an activation."""
    if kind not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise PassRefused(f"{cut(kind)!r} is no activation; there are: {known}.{suggestion(kind, ACTIVATIONS)}")


def is_map(shape: Shape) -> bool:
    """Whether layers on such a value convolve unless another is named: channels on axis 1, positions behind them."""
    return is_linear(shape) and layer_of(shape) != "linear"


class Fields(dict[str, Any]):
    """Arguments of a link, shown as Python writes them."""

    def __str__(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.items()) or "leaving the others out"


def _fitting(here: Shape, there: Shape) -> Iterator[Fields]:
    """Arguments that lead from a value of one shape to a state of another, the simplest first."""
    if not (is_linear(here) and is_linear(there)):
        return
    if is_map(here) and here.rank == there.rank:
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


def _short(sizes: Sequence[int]) -> Extents:
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)


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
        near = alike.get(_axes(there), [])
        # Also from larger maps into smaller ones, and from maps into vectors.
        far = [name for axes, names in alike.items() if axes != _axes(there) for name in names if is_map(shapes[name])]
        for name in [*near, *(far if there.rank == 2 or is_map(there) else [])]:
            fields = next(_fitting(shapes[name], there), None)
            if name not in later and fields is not None:
                yield name, state, fields


def _axes(shape: Shape) -> tuple[object, ...]:
    return (shape.dims[0], *shape.dims[2:]) if is_map(shape) else shape.dims[:-1]
