"""Layers as passes see them: nodes that make channels of their own from a stored weight."""

from __future__ import annotations

from growir.graph import Graph
from growir.ops import Linear
from growir.shapes import own_tables, shapes_of


def is_layer(graph: Graph, name: str) -> bool:
    """Whether a value is made by a linear layer or a convolution with a weight of its own."""
    weight = own_tables(graph)[name].get("weight") if name in graph else None
    return weight is not None and {"out", "in"} <= set(weight.axes)


def has_bias(graph: Graph, name: str) -> bool:
    """Whether a layer, or a `bias` node, adds a learned vector to its channels."""
    bias = own_tables(graph)[name].get("bias") if name in graph else None
    return bias is not None and bias.axes == ("out",)


def channel_axis(graph: Graph, layer: str) -> int:
    """The axis of a layer's value along which its bias lies, counted from the front."""
    return shapes_of(graph)[layer].rank - 1 if isinstance(graph[layer].op, Linear) else 1
