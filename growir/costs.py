"""What a graph costs: parameters, multiply-accumulates, activation memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from growir.graph import Graph, per_graph
from growir.ops import Shape
from growir.shapes import of_untouched, own_tables, shapes_of


@dataclass(frozen=True, slots=True)
class NodeCosts:
    """What one node costs; a tied tensor counts at the node that owns it.

    Attributes:
        parameters: Trainable numbers.
        buffers: Numbers kept beside them, such as running statistics.
        macs: Multiply-accumulates per sample.
        activation_bytes: Size of its value per sample.
    """

    parameters: int
    buffers: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What a graph costs; memory is per sample, in float32 (int64 where a value holds integers).

    Attributes:
        parameters: Trainable numbers, tied ones once.
        buffers: Numbers kept beside them, such as running statistics.
        macs: Multiply-accumulates per sample.
        peak_bytes: Largest size of all live values while running in document order, each freed after its last reader.
        training_bytes: Size of all values together, as kept for the backward pass.
        nodes: The same by node name.
    """

    parameters: int
    buffers: int
    macs: int
    peak_bytes: int
    training_bytes: int
    nodes: Mapping[str, NodeCosts]


@per_graph
def costs_of(graph: Graph) -> Costs:
    """The costs of a graph or network, in total and by node. Raises GraphError if shapes do not fit."""
    shapes, nodes = shapes_of(graph), _of_nodes(graph)
    sizes = {entry.name: value_bytes(shapes[entry.name]) for entry in graph.inputs}
    sizes |= {name: node.activation_bytes for name, node in nodes.items()}
    return Costs(
        parameters=sum(n.parameters for n in nodes.values()),
        buffers=sum(n.buffers for n in nodes.values()),
        macs=sum(n.macs for n in nodes.values()),
        peak_bytes=_peak(graph, sizes),
        training_bytes=sum(sizes.values()),
        nodes=nodes,
    )


@per_graph
def _of_nodes(graph: Graph) -> Mapping[str, NodeCosts]:
    shapes, tables, before = shapes_of(graph), own_tables(graph), of_untouched(_of_nodes, graph)
    nodes: dict[str, NodeCosts] = {}
    for node in graph.nodes:
        if node.name in before:
            nodes[node.name] = before[node.name]
            continue
        trainable = buffers = 0
        for name, param in tables[node.name].items():
            if name in node.tied:
                continue
            if param.buffer:
                buffers += param.elements
            else:
                trainable += param.elements
        out = shapes[node.name]
        macs = node.op.macs(out, *(shapes[source] for source in node.inputs))
        nodes[node.name] = NodeCosts(trainable, buffers, macs, value_bytes(out))
    return nodes


def value_bytes(shape: Shape) -> int:
    """Bytes per sample of a value; one without a batch axis is a weight, and costs a sample nothing."""
    if not shape.batched:
        return 0
    return shape.elements * (8 if shape.dtype == "int64" else 4)


def _peak(graph: Graph, sizes: Mapping[str, int]) -> int:
    live = {entry.name: sizes[entry.name] for entry in graph.inputs}
    total = peak = sum(live.values())
    readers = graph.consumers
    last = {name: found[-1] for name, found in readers.items() if found}
    kept = set(graph.outputs)
    for node in graph.nodes:
        live[node.name] = sizes[node.name]
        total += live[node.name]
        peak = max(peak, total)
        for name in (*node.inputs, node.name):
            if name in live and name not in kept and last.get(name, node.name) == node.name:
                total -= live.pop(name)
    return peak
