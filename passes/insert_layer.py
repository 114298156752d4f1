"""InsertLayer: one more layer in sequence, as the identity, or beside what there is, as a residual."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from growir.edits import Create, Edit, Fresh
from growir.errors import PassRefused, cut
from growir.graph import Graph, Node, Reference
from growir.layers import ranges_of
from growir.ops import ACTIVATIONS, OP_BY_KIND, Add, BatchNorm, Constant, LayerNorm, Op, OpError, Param
from growir.ops.base import PositiveInt
from growir.ops.ranges import keeps
from growir.passes.link import SPATIAL, Layer, Link, Size, check_activation, checked_kernel, layer_of
from growir.passes.state import check_value, is_linear, repoint
from growir.rewrite import Change, Pass, Preserves, create, fresh_name
from growir.shapes import shapes_of

Norm = Literal["batch_norm", "layer_norm"]
NONE = "identity"  # the activation that needs no node


class InsertLayer(Pass):
    """Put a layer and its activation behind a value, so that all that read the value read them.

    The layer starts as the identity: a linear one over the last axis, or a convolution whose kernel has one 1 in its
    centre. That keeps the function only where the activation changes none of the numbers that the value can hold, as
    relu after relu. With `residual` any activation does: the value x becomes x + W2 act(W1 x), where W2 starts at zero.

    Attributes:
        after: A graph input or node.
        activation: Kind of the activation; `identity` for none.
        residual: Whether to add to the value rather than to replace it.
        width: Neurons, or channels, between the two layers of the residual form; by default as many as the value has.
        layer: `conv2d` for a map (N, C, H, W), `conv3d` for (N, C, D, H, W) and `linear` elsewhere, unless said;
            (N, C, L) may have `conv1d`.
        kernel_size: Of the convolutions, odd; 3 by default. One number, or one for each axis.
        norm: A normalisation before the activation of the residual form.
    """

    name: ClassVar[str] = "insert_layer"

    after: Reference
    activation: Reference = "relu"
    residual: bool = False
    width: PositiveInt | None = None
    layer: Layer | None = None
    kernel_size: Size | None = None
    norm: Norm | None = None

    def check(self, graph: Graph) -> None:
        if self.activation != NONE:
            check_activation(self.activation)
        check_value(graph, self.after, "after")
        shape = shapes_of(graph)[self.after]
        where = f"a layer after {cut(self.after)}"
        if not is_linear(shape):
            raise PassRefused(f"{where} needs floats with a batch axis and a width, but it is {shape} of {shape.dtype}")
        kind = self.layer or layer_of(shape)
        if kind != "linear" and shape.rank != SPATIAL[kind] + 2:
            raise PassRefused(f"{where}: a {kind} takes {SPATIAL[kind] + 2} axes, (N, C, ...), but it is {shape}")
        if kind == "linear" and self.kernel_size is not None:
            raise PassRefused(f"{where}: kernel_size goes with a convolution, but the layer is linear; leave it out")
        try:
            link = self._link(graph)
        except OpError as error:
            raise PassRefused(f"{where}: {error}") from None
        if self.residual:
            if self.norm == "batch_norm" and link.axis == -1 and shape.rank > 2:
                raise PassRefused(
                    f"{where}: batch_norm is over axis 1, and the layer makes the last one; use layer_norm"
                )
            return
        if self.width is not None:
            raise PassRefused(f"{where}: the identity is as wide as the value; width goes with residual=True")
        if self.norm is not None:
            raise PassRefused(
                f"{where}: norm goes with residual=True; no norm is an identity, a batch norm not in train mode"
            )
        self._check_kept(graph, where)

    def _check_kept(self, graph: Graph, where: str) -> None:
        held = ranges_of(graph)[self.after]
        kept = keeps(OP_BY_KIND[self.activation]())
        if kept is not None and held.within(kept):
            return
        what = "changes nearly every number" if kept is None else f"keeps only {kept}"
        fitting = _keeping(graph, self.after)[0]
        raise PassRefused(
            f"{where}: it starts as the identity, so the function would change: {self.activation} {what}, and the "
            f"value may hold {held}; activation={fitting!r} keeps it, and residual=True does with any activation"
        )

    def preserves(self, graph: Graph) -> Preserves:
        if not self.residual:
            # Other numbers than the identity are another function.
            return Preserves.NOTHING if self.values else Preserves.EXACT
        last = f"{fresh_name(graph, 'layer')}.last."
        given = any(key.startswith(last) and np.any(array) for key, array in self.values.items())
        return Preserves.NOTHING if given else Preserves.EXACT

    def resolved(self, graph: Graph) -> Self:
        link = self._link(graph)
        changes: dict[str, Any] = {"layer": link.kind, "kernel_size": link.kernel}
        if self.residual:
            changes["width"] = self.width or shapes_of(graph)[self.after].size(link.axis)
        return self.model_copy(update=changes)

    def _link(self, graph: Graph) -> Link:
        kind = self.layer or layer_of(shapes_of(graph)[self.after])
        return Link() if kind == "linear" else Link((), kind, checked_kernel(self.kernel_size, SPATIAL[kind]))

    def change(self, graph: Graph, step: int) -> Change:
        link, shape = self._link(graph), shapes_of(graph)[self.after]
        module = fresh_name(graph, "layer")
        whole = shape.size(link.axis)
        act: list[tuple[str, Op]] = [] if self.activation == NONE else [("act", OP_BY_KIND[self.activation]())]
        norms: dict[Norm | None, list[tuple[str, Op]]] = {
            None: [],
            "batch_norm": [("norm", BatchNorm())],
            "layer_norm": [("norm", LayerNorm())],
        }
        chain: list[tuple[str, Op]]
        if self.residual:
            first, last = (link.layer(size, bias=True) for size in (self.width or whole, whole))
            chain = [("first", first), *norms[self.norm], *act, ("last", last)]
        else:
            chain = [("layer", link.layer(whole, bias=True)), *act]
        nodes: list[Node] = []
        params: dict[str, Param] = {}
        value = self.after
        for name, op in chain:
            nodes.append(Node(name=f"{module}.{name}", op=op, inputs=(value,)))
            value = nodes[-1].name
            params |= {f"{value}.{key}": param for key, param in op.params(shape).items()}
            shape = op.infer(shape)
        if self.residual:
            nodes.append(Node(name=f"{module}.sum", op=Add(), inputs=(self.after, value)))
            value = nodes[-1].name
        edits = [self._start(f"{module}.", key, param, link, step) for key, param in params.items()]
        old, outputs = repoint(graph, self.after, value)
        return Change([*old, *nodes], outputs, edits, [node.name for node in nodes])

    def _start(self, module: str, key: str, param: Param, link: Link, step: int) -> Edit:
        match key.removeprefix(module):
            case "layer.weight":
                identity = self.values.get(key, _identity(param))
                return Create(key, param, Fresh(Constant(0.0), self.seed, step, identity))
            case "layer.bias" | "last.weight" | "last.bias":
                param = replace(param, init=Constant(0.0))
            case _:
                pass
        return create(key, param, self.seed, step, self.values)

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for name, shape in shapes_of(graph).items():
            if is_linear(shape) and (graph.consumers[name] or name in graph.outputs):
                yield cls(after=name, activation=_keeping(graph, name)[0])
                yield cls(after=name, residual=True, width=1)


def _keeping(graph: Graph, value: str) -> list[str]:
    """The activations that give back all that a value can hold; at the end none at all, which always does."""
    held = ranges_of(graph)[value]
    kept = {kind: keeps(op()) for kind, op in ACTIVATIONS.items()}
    return [*(kind for kind, numbers in kept.items() if numbers is not None and held.within(numbers)), NONE]


def _identity(param: Param) -> NDArray[np.float64]:
    """The weight (out, in, ...) that gives each channel back: 1 in the centre of its own kernel."""
    weight = np.zeros(param.shape)
    centre = tuple(size // 2 for size in param.shape[2:])
    own: tuple[Any, ...] = (np.arange(param.shape[0]), np.arange(param.shape[0]), *centre)
    weight[own] = 1.0
    return weight
