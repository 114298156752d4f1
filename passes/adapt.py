"""Adapt and MergeAdapter: a low-rank adapter beside a layer, and the layer with its adapter folded into it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import StrictBool

from growir.edits import Derive, Edit
from growir.errors import PassRefused, cut
from growir.graph import Graph, Name, Node, Reference
from growir.layers import channel_axis, is_layer, shared_tensors
from growir.nearest import alternatives
from growir.ops import Add, Affine, Constant, Linear, Op
from growir.ops.base import PositiveInt, PositiveReal
from growir.ops.conv import Conv
from growir.passes.eliminate_dead import drops
from growir.passes.state import repoint
from growir.rewrite import Change, Pass, Preserves, check_new_names, create
from growir.shapes import own_tables, shapes_of


class Adapt(Pass):
    """Put a low-rank adapter beside a layer: what was W x becomes W x + scale * up(down(x)).

    `down` takes the layer's input to `rank` channels with drawn weights, `up` takes these to the layer's outputs with
    weights that start at zero, so the function is kept (LoRA, Hu et al. 2021, arXiv 2106.09685). The rank is a channel
    space like any other: `widen` it by name, and new directions are exact too. Beside a convolution `down` is one with
    the same kernel, and `up` one of 1 x 1.

    Attributes:
        node: The layer: linear or a convolution, with a weight of its own.
        rank: The channels between the two.
        scale: What the adapter's value is multiplied by; LoRA's alpha divided by the rank.
        freeze: Whether the layer's own weights are no longer trained.
        module: What the adapter is called; by default the layer's name with _adapter behind it.
    """

    name: ClassVar[str] = "adapt"

    node: Reference
    rank: PositiveInt
    scale: PositiveReal = 1.0
    freeze: StrictBool = True
    module: Name | None = None

    def resolved(self, graph: Graph) -> Self:
        return self.model_copy(update={"module": self._module(graph)})

    def check(self, graph: Graph) -> None:
        if self.node not in graph:
            raise PassRefused(f"{cut(self.node)!r} does not exist.{alternatives(self.node, graph.by_name)}")
        where = f"adapt {cut(self.node)}"
        if not _can_adapt(graph, self.node):
            raise PassRefused(
                f"{where}: it is {graph[self.node].op.kind()}; only a linear layer, or a convolution in one group, "
                "with a weight of its own has an adapter"
            )
        if self.freeze and (users := shared_tensors(graph, self.node)):
            raise PassRefused(
                f"{where}: {cut(users[0])} uses its tensors too, and would be frozen with it; use freeze=False"
            )
        module = self._module(graph)
        check_new_names(graph, where, module, _names(module, self.scale))

    def _module(self, graph: Graph) -> str:
        if self.module is not None:
            return self.module
        stem, k = f"{self.node}_adapter", 0
        used = {name.rpartition(".")[0] for name in graph.used_names} | set(graph.used_names)
        while (called := f"{stem}_{k}" if k else stem) in used:
            k += 1
        return called

    def preserves(self, graph: Graph) -> Preserves:
        given = self.values.get(f"{self._module(graph)}.up.weight", 0)
        return Preserves.NOTHING if np.any(given) else Preserves.EXACT

    def change(self, graph: Graph, step: int) -> Change:
        layer = graph[self.node]
        down, up, *rest = _names(self._module(graph), self.scale)
        first, last = _two(graph, self.node, self.rank)
        made = [Node(name=down, op=first, inputs=layer.inputs), Node(name=up, op=last, inputs=(down,))]
        if len(rest) > 1:
            made.append(Node(name=rest[0], op=Affine(scale=self.scale), inputs=(up,)))
        made.append(Node(name=rest[-1], op=Add(), inputs=(self.node, made[-1].name)))
        shapes = shapes_of(graph)
        inward = first.params(shapes[layer.inputs[0]])["weight"]
        outward = last.params(first.infer(shapes[layer.inputs[0]]))["weight"]
        edits = [
            create(f"{down}.weight", inward, self.seed, step, self.values),
            create(f"{up}.weight", replace(outward, init=Constant(0.0)), self.seed, step, self.values),
        ]
        nodes, outputs = repoint(graph, self.node, rest[-1])
        if self.freeze:
            held = tuple(sorted(name for name, param in own_tables(graph)[self.node].items() if not param.buffer))
            nodes = [n.model_copy(update={"frozen": held}) if n.name == self.node else n for n in nodes]
        return Change([*nodes, *made], outputs, edits, [node.name for node in made])

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for node in graph.nodes:
            if _can_adapt(graph, node.name):
                yield cls(node=node.name, rank=1, freeze=not shared_tensors(graph, node.name))


class MergeAdapter(Pass):
    """Fold an adapter into the layer that it stands beside: one layer of the weight W + scale * U D is left.

    The function is kept. The layer stays frozen, or not, as it is; optimizer state of its weight starts anew.

    Attributes:
        node: The sum of the layer and its adapter, as `adapt` made it, or an imported one of the same form.
    """

    name: ClassVar[str] = "merge_adapter"

    node: Reference

    def check(self, graph: Graph) -> None:
        if self.node not in graph:
            raise PassRefused(f"{cut(self.node)!r} does not exist.{alternatives(self.node, graph.by_name)}")
        found = adapter_at(graph, self.node)
        if isinstance(found, str):
            raise PassRefused(f"merge_adapter {cut(self.node)}: {found}")
        for name in (found.layer, found.down, found.up):
            if users := shared_tensors(graph, name):
                raise PassRefused(
                    f"merge_adapter {cut(self.node)}: {cut(users[0])} uses tensors of {cut(name)} too; what is shared "
                    "cannot change or go for one user alone"
                )

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.EXACT

    def change(self, graph: Graph, step: int) -> Change:
        found = adapter_at(graph, self.node)
        assert isinstance(found, Adapter)
        key, sources = f"{found.layer}.weight", (f"{found.up}.weight", f"{found.down}.weight")
        nodes, outputs = repoint(graph, self.node, found.layer)
        gone = {self.node, found.down, found.up, *found.between}
        kept = [node for node in nodes if node.name not in gone]
        edits: list[Edit] = [Derive(key, partial(folded, found.scale), (key, *sources))]
        return Change(kept, outputs, [*edits, *drops(graph, {node.name for node in kept})])

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for node in graph.nodes:
            if isinstance(node.op, Add):
                step = cls(node=node.name)
                if step.fits(graph):
                    yield step


@dataclass(frozen=True, slots=True)
class Adapter:
    """A layer and its adapter.

    Attributes:
        layer: The layer.
        down: What takes its input to the rank.
        up: What takes the rank to its outputs.
        between: Nodes that only scale.
        scale: What they multiply by, together.
    """

    layer: str
    down: str
    up: str
    between: tuple[str, ...]
    scale: float


def adapter_at(graph: Graph, total: str) -> Adapter | str:
    """The layer and the adapter that a node adds; or why it adds none."""
    node = graph[total]
    if not isinstance(node.op, Add) or len(node.inputs) != 2:
        return f"it is {node.op.kind()}; the sum of a layer and its adapter is an add of two values"
    reasons: list[str] = []
    for layer, other in (node.inputs, node.inputs[::-1]):
        found = _beside(graph, total, layer, other)
        if isinstance(found, Adapter):
            return found
        reasons.append(found)
    return reasons[0]


def _beside(graph: Graph, total: str, layer: str, value: str) -> Adapter | str:
    """The adapter that ends in a value, beside a layer."""
    if not _can_adapt(graph, layer):
        return f"{cut(layer)} is no linear layer or convolution with a weight of its own"
    scale, between = 1.0, list[str]()
    while value in graph and isinstance(op := graph[value].op, Affine) and op.shift == 0:
        scale *= op.scale
        between.append(value)
        value = graph[value].inputs[0]
    down = graph[value].inputs[0] if value in graph and graph[value].inputs else ""
    if not (_can_adapt(graph, value) and _can_adapt(graph, down)):
        return f"{cut(value)} is not the second of two layers, which an adapter is"
    if graph[down].inputs != graph[layer].inputs:
        return f"{cut(down)} does not read what {cut(layer)} reads"
    if (graph[down].op, graph[value].op) != _two(graph, layer, shapes_of(graph)[down].size(channel_axis(graph, down))):
        return (
            f"{cut(down)} and {cut(value)} are no adapter of {cut(layer)}: two layers without bias, the first like it"
        )
    inner = (layer, down, value, *between)
    readers = {reader for name in inner for reader in graph.consumers[name]} - {total, *inner}
    outside = sorted(readers) or [name for name in inner if name in graph.outputs]
    if outside:
        return f"{cut(outside[0])} {'reads what lies inside' if readers else 'is an output'}, so it cannot be folded"
    return Adapter(layer, down, value, tuple(between), scale)


def folded(scale: float, _: Any, weight: Any, up: Any, down: Any) -> Any:
    """W + scale * U D, with kernels seen as rows of numbers."""
    rank = down.shape[0]
    return weight + scale * (up.reshape(-1, rank) @ down.reshape(rank, -1)).reshape(weight.shape)


def _can_adapt(graph: Graph, name: str) -> bool:
    if not is_layer(graph, name):
        return False
    op = graph[name].op
    return isinstance(op, Linear) or (isinstance(op, Conv) and op.groups == 1 and not op.depthwise)


def _two(graph: Graph, layer: str, rank: int) -> tuple[Op, Op]:
    """The layers of an adapter: one like the layer to the rank, and one position by position to its outputs."""
    op, out = graph[layer].op, shapes_of(graph)[layer].size(channel_axis(graph, layer))
    if isinstance(op, Linear):
        return Linear(out_features=rank, bias=False), Linear(out_features=out, bias=False)
    assert isinstance(op, Conv)
    like = {**op.attributes(), "out_channels": rank, "bias": False}
    up = {"out_channels": out, "kernel_size": 1, "bias": False, "frames": op.frames}
    return type(op).model_validate(like), type(op).model_validate(up)


def _names(module: str, scale: float) -> list[str]:
    """The nodes of an adapter: down, up, perhaps what scales, and the sum."""
    return [f"{module}.{part}" for part in ("down", "up", *(["scaled"] if scale != 1 else []), "sum")]
