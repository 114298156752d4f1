"""Graphs that are one but for what their nodes are called."""

from __future__ import annotations

import numpy as np

from growir.graph import Graph
from growir.network import Network
from growir.params import param_table


def numbered(graph: Graph) -> dict[str, str]:
    """New names of all nodes that an output depends on, in an order that follows from their wiring alone."""
    found: dict[str, str] = {}
    stack = list(reversed(graph.outputs))
    while stack:
        waiting = [value for value in graph[stack[-1]].inputs if value in graph and value not in found]
        if waiting:
            stack.append(waiting[0])
        else:
            found.setdefault(stack.pop(), f"n{len(found)}")
    return found


def unnamed(graph: Graph) -> Graph:
    """The same graph by these names, without what no output depends on and without a history."""
    called = numbered(graph)
    nodes = []
    for old, new in called.items():
        read = tuple(called.get(value, value) for value in graph[old].inputs)
        nodes.append(graph[old].model_copy(update={"name": new, "inputs": read}))
    outputs = [called[name] for name in graph.outputs]
    return graph.replace(nodes=nodes, outputs=outputs, history=None)


def with_weights_of(graph: Graph, net: Network) -> Network:
    """A network with the tensors that another one has at the same places."""
    theirs = {new: old for old, new in numbered(net.graph).items()}
    mine = numbered(graph)
    arrays = {}
    for key, param in param_table(graph).items():
        host, _, name = key.rpartition(".")
        at = theirs.get(mine.get(host, ""))
        arrays[key] = np.zeros(param.shape) if at is None else net.arrays[f"{at}.{name}"]
    return Network(graph, arrays)
