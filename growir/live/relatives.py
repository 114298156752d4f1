"""Where a parameter that growth creates belongs: with the nearest of those that are like it."""

from __future__ import annotations

from collections.abc import Collection

from growir.graph import Graph
from growir.params import owners, param_table
from growir.shapes import own_tables


def nearest(graph: Graph, key: str, among: Collection[str]) -> str | None:
    """The parameter nearest to a new one, among some of the grown graph's parameters; None if there are none.

    Likeness comes first, since people group by it (no decay on biases and norms): the same parameter of the same kind
    of operator, then the same parameter, matrix or vector alike, then any matrix or any vector, then anything. Among
    equals the fewest steps from node to node decide, then the order of the document.
    """
    if not among:
        return None
    table = param_table(graph)
    order = {name: k for k, name in enumerate(table)}
    host, _, name = key.rpartition(".")
    matrix = len(table[key].shape) > 1
    steps = _steps(graph, host)

    def rank(other: str) -> tuple[int, int, int]:
        its_host, _, its_name = other.rpartition(".")
        if (len(table[other].shape) > 1) != matrix:
            likeness = 3
        elif its_name != name:
            likeness = 2
        else:
            likeness = int(graph[its_host].op.kind() != graph[host].op.kind())
        users = _users(graph)[other]
        return likeness, min(steps.get(user, len(order)) for user in users), order[other]

    return min(among, key=rank)


def _users(graph: Graph) -> dict[str, list[str]]:
    """The nodes that use each stored tensor."""
    return graph.recall(_all_users)


def _all_users(graph: Graph) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    own = owners(graph)
    for node, parameters in own_tables(graph).items():
        for parameter in parameters:
            found.setdefault(own[f"{node}.{parameter}"], []).append(node)
    return found


def _steps(graph: Graph, start: str) -> dict[str, int]:
    """How many edges, in either direction, lead from a node to each other one."""
    found, front = {start: 0}, [start]
    while front:
        reached: list[str] = []
        for name in front:
            inputs = graph[name].inputs if name in graph else ()
            for other in (*inputs, *graph.consumers[name]):
                if other not in found:
                    found[other] = found[name] + 1
                    reached.append(other)
        front = reached
    return found
