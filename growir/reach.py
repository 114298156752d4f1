"""Which values of a graph depend on its inputs, and which ones its outputs depend on."""

from __future__ import annotations

from growir.graph import Graph


def fed_values(graph: Graph) -> set[str]:
    """Names of the inputs, and of the nodes that depend on one: all that is no constant."""
    found = {entry.name for entry in graph.inputs}
    for node in graph.nodes:
        if not found.isdisjoint(node.inputs):
            found.add(node.name)
    return found


def live_nodes(graph: Graph) -> set[str]:
    """Names of the nodes and inputs that some output depends on."""
    found = set(graph.outputs)
    for node in reversed(graph.nodes):
        if node.name in found:
            found.update(node.inputs)
    return found
