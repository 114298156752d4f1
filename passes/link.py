"""How a value reaches a state of another shape: the layer between them, and what brings the value there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from growir.errors import PassRefused, cut
from growir.graph import Graph, Node, Reference
from growir.nearest import suggestion
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
        kind: Of its layer.
        kernel: Of a convolution; None for a linear layer.
        stride: Of the convolution.
    """

    before: tuple[tuple[str, Op], ...] = ()
    kind: Layer = "linear"
    kernel: Extents | None = None
    stride: Extents = 1

    def layer(self, width: int, *, bias: bool) -> Op:
        """The layer at the end of the link, with so many channels."""
        if self.kernel is None:
            return Linear(out_features=width, bias=bias)
        sizes = (self.kernel,) if isinstance(self.kernel, int) else self.kernel
        padding = _short([size // 2 for size in sizes])  # which keeps positions centred
        fields = {
            "out_channels": width,
            "kernel_size": self.kernel,
            "stride": self.stride,
            "padding": padding,
            "bias": bias,
        }
        return OP_BY_KIND[self.kind].model_validate(fields)

    def onward(self) -> Link:
        """A link from what this one gives, with a layer of its kind that keeps all positions."""
        return replace(self, before=(), stride=1)

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

    def name_in(self, module: str) -> str:
        """The layer's name: a link that is one node carries the module's."""
        return f"{module}.{self.kind}" if self.before else module


@dataclass(frozen=True, slots=True)
class Way:
    """What a pass says about the link between two values.

    Attributes:
        kernel: `kernel_size` of the pass.
        stride: Of the convolution, or of the pool over windows.
        pool: What makes a map smaller.
        layer: What kind the layer is of.
        convolved: Whether the value comes from a convolution, and is a map however many axes it has.
        prefix: Stands before `stride` and `pool` in the names of the pass's fields.
    """

    kernel: Size | None = None
    stride: Size = 1
    pool: Pool | None = None
    layer: Layer | None = None
    convolved: bool = False
    prefix: str = ""

    def link(self, here: Shape, there: Shape) -> Link:
        """The link from a value of one shape into a state of another. Raises OpError if this leads elsewhere."""
        both_maps = is_map(here) and here.rank == there.rank
        kind = self.layer or (layer_of(here) if both_maps else "linear")
        if kind == "linear":
            return self._linear(here, there)
        if here.rank != there.rank:
            raise OpError(_axes_of(kind))
        link = self._resized(kind, here, there) if self.pool == "adaptive_avg" else self.convolution(kind, here)
        found = link.layer(there.size(1), bias=False).infer(link.prepared(here))
        if found.dims[2:] != there.dims[2:]:
            raise OpError(f"with these arguments the edge gives {found}")
        return link

    def convolution(self, kind: Layer, here: Shape) -> Link:
        """A convolution of a map into one whose size follows from the arguments. Raises OpError if they do not fit."""
        kernel = self._kernel(kind, here)
        match self.pool:
            case None:
                self._check_stride(SPATIAL[kind], f"a {kind}")
                return Link((), kind, kernel, self.stride)
            case "max" | "avg":
                return Link((("pool", self._windows(here)),), kind, kernel)
            case _:
                raise OpError(f"{self._pool} makes a vector, not a map")

    def _resized(self, kind: Layer, here: Shape, there: Shape) -> Link:
        kernel = self._kernel(kind, here)
        if self.stride != 1:
            raise OpError(f"{self._pool} gives a map of the target's size by itself, without {self.prefix}stride")
        if any(a < b for a, b in zip(here.sizes[1:], there.sizes[1:], strict=True)):
            raise OpError(f"{self._pool} makes a map smaller")
        grid = _pool("adaptive_avg_pool", here, output_size=_short(there.sizes[1:]))
        return Link((("pool", grid),), kind, kernel)

    def _kernel(self, kind: Layer, here: Shape) -> Extents:
        if here.rank != SPATIAL[kind] + 2:
            raise OpError(_axes_of(kind))
        return checked_kernel(self.kernel, SPATIAL[kind])

    def _linear(self, here: Shape, there: Shape) -> Link:
        windows = self.pool in ("max", "avg")
        if self.kernel is not None:
            raise OpError("kernel_size goes with a convolution between two maps")
        if self.stride != 1 and not windows:
            raise OpError(f"{self.prefix}stride goes with a convolution between two maps, or with a pool over windows")
        if (windows or self.pool == "global_avg") and not (self.from_map(here) and there.rank == 2):
            also = ", or with a convolution between two maps" if windows else ""
            raise OpError(f"{self._pool} leads from a map (N, C, H, W) to a vector (N, F){also}")
        match self.pool:
            case None:
                if here.dims[:-1] != there.dims[:-1]:
                    raise OpError("a linear edge keeps all axes but the last")
                return Link()
            case "max" | "avg":
                if self.stride == 1:
                    raise OpError(f"{self._pool} over windows of 1 would only flatten")
                return Link((("pool", self._windows(here)), ("flat", Flatten())))
            case "global_avg":
                return Link((("pool", _pool("adaptive_avg_pool", here, output_size=1)), ("flat", Flatten())))
            case "flatten":
                if not (here.rank > 2 == there.rank):
                    raise OpError(f"{self._pool} leads from a value of more axes to a vector (N, F)")
                return Link((("flat", Flatten()),))
            case _:
                raise OpError(f"{self._pool} goes with a convolution between two maps")

    def from_map(self, here: Shape) -> bool:
        """Whether the value is a map."""
        return self.convolved or is_map(here)

    @property
    def _pool(self) -> str:
        return f"{self.prefix}pool={self.pool!r}"

    def _windows(self, here: Shape) -> Op:
        self._check_stride(here.rank - 2, "the map")
        if any(a < b for a, b in zip(here.sizes[1:], in_full(self.stride, here.rank - 2), strict=True)):
            raise OpError(f"{self._pool} over windows of {self.prefix}stride={self.stride} needs a larger map")
        return _pool(f"{self.pool}_pool", here, kernel_size=self.stride)

    def _check_stride(self, axes: int, what: str) -> None:
        if isinstance(self.stride, tuple) and len(self.stride) != axes:
            raise OpError(f"{self.prefix}stride has {len(self.stride)} numbers, but {what} has {axes} axes")


def _axes_of(kind: Layer) -> str:
    return f"a {kind} leads from a value of {SPATIAL[kind] + 2} axes, (N, C, ...), to another"


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
        stride: Of the convolution, or of the pool over windows.
        pool: How a map gets smaller: `max` or `avg` over windows of `stride`; `adaptive_avg` over a grid of the
            target's size; `global_avg` over all positions, or `flatten` as it is, for a target (N, F). For such a
            target every pool is followed by a flatten.
        layer: `conv2d`, or `conv3d`, between two maps and `linear` elsewhere, unless said; (N, C, L) may have `conv1d`.
    """

    version: ClassVar[int] = 2

    source: Reference
    target: Reference
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
        """The link from source to target, which are known to exist and to hold floats.

        Raises:
            PassRefused: The arguments lead elsewhere; with the nearest ones that fit.
        """
        shapes = shapes_of(graph)
        state = find_state(graph, self.target).node
        here, there = shapes[self.source], shapes[state]
        way = Way(self.kernel_size, self.stride, self.pool, self.layer)
        try:
            return way.link(here, there)
        except OpError as error:
            problem = str(error)
        advice = next((f"; try {fields}" for fields in fitting(here, there, way)), "")
        if not advice and is_map(here) and here.rank == there.rank:
            advice = f"; no edge enlarges a map: choose a source of at least {positions(there)}"
        elif not advice:
            advice = "; choose a source that differs from the target in its last axis only"
        raise PassRefused(
            f"{self.name}: {problem}, but {cut(self.source)} is {here} and {cut(state)} is {there}{advice}"
        )


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


def positions(shape: Shape) -> str:
    """The size of a map, as messages say it."""
    return " x ".join(str(size) for size in shape.sizes[1:])


NO_WAY = Way()


def fitting(here: Shape, there: Shape, meant: Way = NO_WAY) -> Iterator[Fields]:
    """Arguments that lead from a value of one shape to a state of another: those nearest to some, then the simplest."""
    if not (is_linear(here) and is_linear(there)):
        return
    if meant.from_map(here) and here.rank == there.rank:
        yield from _map_to_map(here.sizes[1:], there.sizes[1:])
    elif here.dims[:-1] == there.dims[:-1]:
        yield Fields()
    elif there.rank == 2:
        if meant.from_map(here):
            yield from near_windows(here, meant)
            yield Fields(pool="global_avg")
        yield Fields(pool="flatten")


def near_windows(here: Shape, meant: Way) -> Iterator[Fields]:
    """The pool over windows that was meant, with windows that the map has, or none where they are of 1."""
    axes = here.rank - 2
    if meant.pool in ("max", "avg") and len(in_full(meant.stride, axes)) == axes:
        windows = _short([min(pair) for pair in zip(here.sizes[1:], in_full(meant.stride, axes), strict=True)])
        yield Fields(pool="flatten") if windows == 1 else Fields(stride=windows, pool=meant.pool)


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
            fields = next(fitting(shapes[name], there), None)
            if name not in later and fields is not None:
                yield name, state, fields


def _axes(shape: Shape) -> tuple[object, ...]:
    return (shape.dims[0], *shape.dims[2:]) if is_map(shape) else shape.dims[:-1]
