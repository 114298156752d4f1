"""AddNode: a new hidden state between a value and a state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from growir.errors import PassRefused, cut
from growir.graph import Graph, Node, Reference
from growir.ops import OP_BY_KIND, BatchNorm, Constant, OpError, Shape
from growir.ops.base import PositiveInt
from growir.passes.link import (
    SPATIAL,
    Fields,
    Layer,
    Link,
    Linked,
    Pool,
    Size,
    Way,
    check_activation,
    connectable,
    fitting,
    is_map,
    layer_of,
    near_windows,
    positions,
)
from growir.passes.state import find_state
from growir.rewrite import Change, Preserves, create, fresh_name
from growir.shapes import shapes_of


class AddNode(Linked):
    """Put layer -> (norm) -> activation -> layer between a value and a state; the second layer starts at zero.

    The layers are as add_edge has them. Of two convolutions both have `kernel_size`, and the first the stride or pool.

    With `out_pool` the new state is a map whatever the target is: the first layer is a convolution, which alone says
    how large the map is, and `out_pool` leads from there to the target as `pool` of an edge does.

    Attributes:
        width: Neurons, or channels, of the new state.
        activation: Kind of the activation.
        out_pool: What stands behind the activation of a new map, in front of the second layer.
        out_stride: Of `out_pool` over windows.
        norm: What normalises the channels of the new state in front of its activation. The first layer then has no
            bias, as the norm has one.
    """

    name: ClassVar[str] = "add_node"

    width: PositiveInt
    activation: Reference = "relu"
    out_pool: Pool | None = None
    out_stride: Size = 1
    norm: Literal["batch_norm"] | None = None

    @model_validator(mode="after")
    def _stride_of_a_pool(self) -> Self:
        if self.out_pool is None and self.out_stride != 1:
            raise ValueError(f"out_stride={self.out_stride} is that of out_pool, which is missing; try out_pool='max'")
        return self

    @model_serializer(mode="wrap")
    def _as_recorded(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Growth keys its random numbers by this text, so a node without these fields reads as it did before they were.
        left_out = (() if self.out_pool else ("out_pool", "out_stride")) + (() if self.norm else ("norm",))
        return {key: value for key, value in handler(self).items() if key not in left_out}

    def check(self, graph: Graph) -> None:
        check_activation(self.activation)
        super().check(graph)
        shape = shapes_of(graph)[find_state(graph, self.target).node]
        if self.norm and self.link(graph).axis == -1 and shape.rank > 2:
            raise PassRefused(
                f"{self.name}: norm='batch_norm' is over axis 1, but the new state has its channels on the last axis, "
                f"as {cut(self.target)} is {shape}; leave norm out"
            )

    def preserves(self, graph: Graph) -> Preserves:
        # Whatever comes in, the function stays while the new state's outgoing weights are zero.
        outgoing = f"{fresh_name(graph, 'edge')}."
        given = any(np.any(array) for key, array in self.values.items() if key.startswith(outgoing))
        return Preserves.NOTHING if given else Preserves.EXACT

    def link(self, graph: Graph) -> Link:
        return self.links(graph)[0]

    def links(self, graph: Graph) -> tuple[Link, Link]:
        """The links from the source to the new state, and from there to the target. Raises PassRefused as `link`."""
        if self.out_pool is None:
            first = super().link(graph)
            return first, first.onward()
        shapes = shapes_of(graph)
        first = self._into_map(shapes[self.source])
        hidden = first.layer(self.width, bias=True).infer(first.prepared(shapes[self.source]))
        state = find_state(graph, self.target).node
        there = shapes[state]
        alike = hidden.rank == there.rank
        way = Way(
            self.kernel_size if alike else None,
            self.out_stride,
            self.out_pool,
            first.kind if alike else "linear",
            convolved=True,
            prefix="out_",
        )
        try:
            return first, way.link(hidden, there)
        except OpError as error:
            problem = str(error)
        raise PassRefused(
            f"{self.name}: {problem}, but the new map is {hidden} and {cut(state)} is {there}; "
            f"{_onward(hidden, there, way)}"
        )

    def _into_map(self, here: Shape) -> Link:
        kind = self.layer or layer_of(here)
        way = Way(self.kernel_size, self.stride, self.pool, convolved=True)
        fitting_kind = OF_AXES.get(here.rank)
        if fitting_kind is None:
            problem, advice = "out_pool stands behind a map", "choose a source (N, C, H, W), or leave out_pool out"
        elif kind != fitting_kind:
            problem = f"out_pool stands behind a map, but a {kind} layer makes none"
            advice = f"try layer={fitting_kind!r}"
        elif self.pool not in (None, "max", "avg"):
            problem = f"pool={self.pool!r} leaves no map for out_pool"
            advice = "try pool='max' with a stride, or leave pool out"
        elif self.pool is not None and self.stride == 1:
            problem, advice = f"pool={self.pool!r} over windows of 1 does nothing", "give its stride, or leave pool out"
        else:
            try:
                return way.convolution(kind, here)
            except OpError as error:
                problem = str(error)
            near = next(near_windows(here, way), Fields())
            advice = f"try {near}" if near.get("stride") else "try leaving kernel_size, stride and pool out"
        raise PassRefused(f"{self.name}: {problem}, but {cut(self.source)} is {here}; {advice}")

    def change(self, graph: Graph, step: int) -> Change:
        state, (link, onward) = find_state(graph, self.target), self.links(graph)
        shapes = shapes_of(graph)
        module, name = fresh_name(graph, "node"), fresh_name(graph, "edge")
        layer, activation = link.layer(self.width, bias=self.norm is None), OP_BY_KIND[self.activation]()
        last = onward.layer(shapes[state.node].size(onward.axis), bias=False)

        before, source = link.lead(self.source, module)
        first = Node(name=f"{module}.{layer.kind()}", op=layer, inputs=(source,))
        norms = [Node(name=f"{module}.norm", op=BatchNorm(), inputs=(first.name,))] if self.norm else []
        act = Node(name=f"{module}.act", op=activation, inputs=(norms[0].name if norms else first.name,))
        between, source = onward.lead(act.name, name)
        edge = Node(name=onward.name_in(name), op=last, inputs=(source,))
        nodes, outputs, made = state.feed(graph, edge)

        prepared = link.prepared(shapes[self.source])
        hidden = layer.infer(prepared)
        read = onward.prepared(hidden)
        params = {f"{first.name}.{key}": param for key, param in layer.params(prepared).items()}
        for node in (*norms, act):
            params |= {f"{node.name}.{key}": param for key, param in node.op.params(hidden).items()}
        params[f"{edge.name}.weight"] = replace(last.params(read)["weight"], init=Constant(0.0))
        edits = [create(key, param, self.seed, step, self.values) for key, param in params.items()]
        fresh = [*before, first, *norms, act, *between]
        return Change([*nodes, *fresh], outputs, edits, [*(node.name for node in fresh), edge.name, *made])

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        shapes = shapes_of(graph)
        for source, state, fields in connectable(graph):
            yield cls(source=source, target=state.node, width=1, **fields)
            if is_map(shapes[source]) and shapes[state.node].rank == 2:
                yield cls(source=source, target=state.node, width=1, out_pool="global_avg")


OF_AXES: Mapping[int, Layer] = {axes + 2: kind for kind, axes in SPATIAL.items() if axes}


def _onward(hidden: Shape, there: Shape, way: Way) -> str:
    """What to do where a way does not lead from the new map into the target."""
    for fields in fitting(hidden, there, way):
        if "pool" in fields:
            return f"try {Fields({f'out_{name}': value for name, value in fields.items()})}"
    if hidden.rank != there.rank:
        return "choose a target that is a vector (N, F) or a map, or leave out_pool out"
    if hidden.dims[2:] == there.dims[2:]:
        return "leave out_pool and out_stride out"
    return f"no pool enlarges a map: choose a stride that leaves at least {positions(there)}"
