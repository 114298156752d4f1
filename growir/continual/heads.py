"""Heads: a graph with one for each task."""

from __future__ import annotations

from collections.abc import Sequence

from growir.continual.learner import head_of
from growir.graph import Graph, Node


def heads(graph: Graph, output: str, classes: Sequence[int]) -> tuple[Graph, list[str]]:
    """A graph with one head for each task, each as the one that is there but for its width.

    Args:
        graph: With one output.
        output: Its head.
        classes: How many classes each task has.
    """
    mine = [node for node in graph.nodes if node.name in head_of(graph, output)]
    rest = [node for node in graph.nodes if node.name not in head_of(graph, output)]
    nodes: list[Node] = [*rest]
    outputs: list[str] = []
    for k, count in enumerate(classes):
        called = {node.name: f"task_{k}.{node.name}" for node in mine}
        for node in mine:
            wide = {"out_features": count} if node.name == mine[0].name else {}
            inputs = [called.get(name, name) for name in node.inputs]
            copy = node.with_op(**wide) if wide else node
            nodes.append(copy.model_copy(update={"name": called[node.name], "inputs": tuple(inputs)}))
        outputs.append(called[output])
    return graph.replace(nodes=tuple(nodes), outputs=tuple(outputs), history=None), outputs
