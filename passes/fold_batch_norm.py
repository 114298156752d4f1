"""FoldBatchNorm: a batch norm taken into the layer before it, as networks are deployed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, Self

from growir.edits import Derive, Edit
from growir.errors import PassRefused, cut
from growir.graph import Graph, Node, Reference
from growir.layers import channel_axis, has_bias, is_layer, shared_tensors
from growir.nearest import alternatives
from growir.ops import BatchNorm, Linear, Param
from growir.passes.eliminate_dead import drops
from growir.passes.state import repoint
from growir.rewrite import Change, Pass, Preserves
from growir.shapes import own_tables, shapes_of


class FoldBatchNorm(Pass):
    """Remove a batch norm by scaling and shifting the layer before it, which then has a bias.

    The function is kept in eval mode: y = gamma (W x + b - mean) / sqrt(var + eps) + beta is a layer again. In train
    mode a batch norm normalises by the batch, which no layer does.

    Attributes:
        node: The batch norm. It reads a linear layer or a convolution that nothing else reads.
    """

    name: ClassVar[str] = "fold_batch_norm"

    node: Reference

    def check(self, graph: Graph) -> None:
        if self.node not in graph:
            raise PassRefused(f"{cut(self.node)!r} does not exist.{alternatives(self.node, graph.by_name)}")
        norm = graph[self.node]
        if not isinstance(norm.op, BatchNorm):
            raise PassRefused(f"{cut(self.node)} is of kind {norm.op.kind()}; only a batch_norm can be folded")
        if not norm.op.track_running_stats:
            raise PassRefused(
                f"{cut(self.node)} has no running statistics and normalises by the batch in eval mode too, which no "
                "layer can do; only one with track_running_stats can be folded"
            )
        layer = norm.inputs[0]
        where = f"{cut(self.node)} cannot be folded into {cut(layer)}"
        if not is_layer(graph, layer):
            what = graph[layer].op.kind() if layer in graph else "a graph input"
            raise PassRefused(
                f"{where}, which is {what}; directly before it must stand a linear layer or a convolution with a "
                "weight of its own"
            )
        axis, made = 1 + norm.op.frames, channel_axis(graph, layer)
        if made != axis:
            shape = shapes_of(graph)[layer]
            what = "the last one" if isinstance(graph[layer].op, Linear) else f"axis {made}"
            raise PassRefused(f"{where}: it normalises axis {axis} of {shape}, and the layer makes {what}")
        readers = [name for name in graph.consumers[layer] if name != self.node]
        if readers or layer in graph.outputs:
            who = ", ".join(cut(name) for name in readers[:4]) or "the graph's outputs"
            raise PassRefused(f"{where}, whose own value is read by {who} too")
        for owner in (layer, self.node):
            users = shared_tensors(graph, owner)
            if users:
                raise PassRefused(
                    f"{where}: {cut(users[0])} uses tensors of {cut(owner)} too; what is shared cannot change or go "
                    "for one user alone"
                )

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.EVAL

    def change(self, graph: Graph, step: int) -> Change:
        norm = graph[self.node]
        layer = norm.inputs[0]
        assert isinstance(norm.op, BatchNorm)
        scale = (f"{norm.name}.running_var", *([f"{norm.name}.weight"] if norm.op.affine else []))
        weight = own_tables(graph)[layer]["weight"]
        width = shapes_of(graph)[layer].size(channel_axis(graph, layer))
        biased = has_bias(graph, layer)
        shift = [f"{layer}.bias"] if biased else []
        shift += [f"{norm.name}.running_mean", *scale]
        shift += [f"{norm.name}.bias"] if norm.op.affine else []
        weigh = partial(folded_weight, norm.op.eps, *weight_views(weight, width))
        edits: list[Edit] = [
            Derive(f"{layer}.bias", partial(folded_bias, norm.op.eps, biased, norm.op.affine), tuple(shift)),
            Derive(f"{layer}.weight", weigh, (f"{layer}.weight", *scale)),
        ]
        nodes, outputs = repoint(graph, norm.name, layer)
        after = {norm.name: [], layer: [graph[layer] if biased else _with_bias(graph[layer], norm)]}
        kept = [new for node in nodes for new in after.get(node.name, [node])]
        return Change(kept, outputs, [*edits, *drops(graph, {node.name for node in kept})])

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for node in graph.nodes:
            if isinstance(node.op, BatchNorm):
                step = cls(node=node.name)
                if step.fits(graph):
                    yield step


def folded_weight(eps: float, view: tuple[int, ...], factor: tuple[int, ...], _: Any, weight: Any, *scale: Any) -> Any:
    """W gamma / sqrt(var + eps), with the weight seen as `view` and the factors as `factor`."""
    found = weight.reshape(view) * _scale(eps, *scale).reshape(factor)
    return found.reshape(weight.shape)


def folded_bias(eps: float, biased: bool, affine: bool, _: Any, *sources: Any) -> Any:
    """(b - mean) gamma / sqrt(var + eps) + beta; the sources are those of these that there are, in this order."""
    left = list(sources)
    bias = left.pop(0) if biased else 0.0
    beta = left.pop() if affine else 0.0
    mean, *scale = left
    return (bias - mean) * _scale(eps, *scale) + beta


def _scale(eps: float, var: Any, gamma: Any = 1.0) -> Any:
    return gamma / (var + eps) ** 0.5


def weight_views(weight: Param, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How a weight and its layer's `width` factors are seen so that they multiply by broadcasting.

    The weight of a transposed convolution has its outputs group by group: each group's on axis 1, the groups on axis 0.
    """
    shape, axis = weight.shape, weight.axes.index("out")
    groups = width // shape[axis]
    before = (groups, *shape[:axis]) if axis == 0 else (groups, shape[0] // groups, *shape[1:axis])
    view = (*before, *shape[axis:])
    factor = [1] * len(view)
    factor[0], factor[axis + 1] = groups, shape[axis]
    assert math.prod(view) == weight.elements
    return view, tuple(factor)


def _with_bias(layer: Node, norm: Node) -> Node:
    """The layer with a bias, which is trained if one of the parameters that make it was."""
    made_from = {name for name in ("weight", "bias") if norm.op.attributes().get("affine", True)}
    frozen = {"bias"} if "weight" in layer.frozen and made_from <= set(norm.frozen) else set[str]()
    return layer.with_op(bias=True).model_copy(update={"frozen": tuple(sorted({*layer.frozen, *frozen}))})
