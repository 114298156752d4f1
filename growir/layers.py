"""Layers as passes see them: which nodes make channels from a stored weight, and which numbers values can hold."""

from __future__ import annotations

from collections.abc import Mapping

from growir.graph import Graph, per_graph
from growir.ops import Linear
from growir.ops.base import Framed
from growir.ops.ranges import ANY, Range, gives
from growir.shapes import own_tables, owners, shapes_of


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
    op = graph[layer].op
    if isinstance(op, Linear):
        return shapes_of(graph)[layer].rank - 1
    return 1 + op.frames if isinstance(op, Framed) else 1


@per_graph
def ranges_of(graph: Graph) -> Mapping[str, Range]:
    """A range for every value that holds all of its numbers, whatever the weights and the inputs are."""
    found: dict[str, Range] = {entry.name: ANY for entry in graph.inputs}
    for node in graph.nodes:
        found[node.name] = gives(node.op, *(found[name] for name in node.inputs))
    return found


@per_graph
def users_of(graph: Graph) -> Mapping[str, tuple[str, ...]]:
    """The nodes that use each stored tensor."""
    found: dict[str, list[str]] = {}
    for key, owner in owners(graph).items():
        found.setdefault(owner, []).append(key.rpartition(".")[0])
    return {owner: tuple(names) for owner, names in found.items()}


def shared_tensors(graph: Graph, node: str) -> list[str]:
    """Other nodes that use a node's tensors."""
    own, users = owners(graph), users_of(graph)
    mine = (own[f"{node}.{name}"] for name in own_tables(graph)[node])
    return [name for name in dict.fromkeys(user for key in mine for user in users[key]) if name != node]
