"""Stages: a node together with those that only carry on its value, such as `conv, batch_norm, relu`.

They are the smallest thing that a picture gathers. A chain of twenty layers is sixty nodes and twenty stages:

    conv1 -> bn1 -> relu -> conv2 -> bn2 -> add        conv1 to relu -> conv2 to bn2 -> add
"""

from __future__ import annotations

from growir.graph import Graph, Node
from growir.render.tree import Group, joined

# The rooms of growir.ops whose nodes end a stage and begin none where another node's value comes in.
CARRIERS = frozenset({"activation", "arithmetic", "layout", "norm", "reduction"})


def family(node: Node) -> str:
    """The room of growir.ops that a node's operator lives in."""
    return type(node.op).__module__.rpartition(".")[2]


def gather_stages(group: Group, graph: Graph) -> None:
    """Put each node of the tree and the neighbours that only carry on its value into a group, in place."""
    stages: list[list[Group]] = []
    for part in group.parts:
        if part.node is None:
            gather_stages(part, graph)
        before = stages[-1][-1] if stages else None
        if before is not None and _carries_on(before, part, graph):
            stages[-1].append(part)
        else:
            stages.append([part])
    if len(stages) == 1:  # a module that is one stage has a name of its own
        group.stage = len(group.parts) > 1
        return
    group.parts = [run[0] if len(run) == 1 else joined(run, group.path, stage=True) for run in stages]


def _carries_on(before: Group, part: Group, graph: Graph) -> bool:
    """Whether a node reads another's value alone and is alone in reading it."""
    source, node = before.node, part.node
    return (
        source is not None
        and node is not None
        and family(node) in CARRIERS
        and set(node.inputs) == {source.name}
        and set(graph.consumers[source.name]) == {node.name}
        and source.name not in graph.outputs
    )
