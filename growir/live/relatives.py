"""Where a parameter that growth creates belongs: with the nearest of those that are like it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from growir.graph import Graph, per_graph
from growir.params import owners, param_table
from growir.shapes import own_tables

DEPTH = 3  # how many operators ahead and behind say what a layer is for


@dataclass(frozen=True, slots=True)
class Relative:
    """The parameter that a new one is most like.

    Attributes:
        key: Its key.
        likeness: 0, the same parameter of the same kind of operator; 1, the same parameter of another kind; 2, a matrix
            or vector alike; 3, anything.
        role: Whether its layer feeds the same kinds of operators, or is an output alike.
        alike: The others of the same likeness, the relative first.
        rivals: Those of them whose layers feed the same too, two operators ahead: blocks of one kind, say.
    """

    key: str
    likeness: int
    role: bool
    alike: tuple[str, ...]
    rivals: tuple[str, ...]


def nearest(graph: Graph, key: str, among: Collection[str]) -> Relative | None:
    """The parameter nearest to a new one, among some of the grown graph's parameters; None if there are none.

    Likeness comes first, since people group by it (no decay on biases and norms): the same parameter of the same kind
    of operator, then the same parameter, matrix or vector alike, then any matrix or any vector, then anything. Of the
    same parameters of the same kind those come first whose layers do the same: what they feed, then what they read,
    then their own name in their module. Among equals the fewest steps from node to node decide, then the order of the
    document.

    A new last block in a residual chain, before a head:

        emb -> (fc1 gelu fc2) + -> (new1 gelu new2) + -> head

    new2 is two steps from head and three from fc2. But new2 and fc2 feed a sum, and head nothing; all that new2 shares
    with head is the kind. So new2 joins the blocks, whatever group the head is in.
    """
    if not among:
        return None
    table, users = param_table(graph), _users(graph)
    order = {name: k for k, name in enumerate(table)}
    host, _, name = key.rpartition(".")
    matrix = len(table[key].shape) > 1
    steps = _steps(graph, host)

    def likeness(other: str) -> int:
        its_host, _, its_name = other.rpartition(".")
        if (len(table[other].shape) > 1) != matrix:
            return 3
        if its_name != name:
            return 2
        return int(graph[its_host].op.kind() != graph[host].op.kind())

    def difference(other: str) -> int:
        return min(_difference(graph, host, user) for user in users[other])

    def distance(other: str) -> tuple[int, int]:
        return min(steps.get(user, len(order)) for user in users[other]), order[other]

    found = {other: likeness(other) for other in among}
    least = min(found.values())
    alike = sorted((other for other in among if found[other] == least), key=distance)
    differs = {other: 0 if least else difference(other) for other in alike}
    best = min(alike, key=lambda other: differs[other])  # the nearest of those
    rest = tuple(other for other in alike if other != best)
    rivals = () if least else tuple(other for other in rest if _same(graph, host, users[other], 2))
    return Relative(best, least, not least and _same(graph, host, users[best], 1), (best, *rest), rivals)


def _difference(graph: Graph, one: str, other: str) -> int:
    """How far two nodes of one kind are from doing the same: the depths at which what is ahead or behind differs."""
    ahead, behind = _surroundings(graph)
    differ = sum(2 * (level[one] != level[other]) for level in ahead)
    differ += sum(level[one] != level[other] for level in behind)
    return differ + (one.rpartition(".")[2] != other.rpartition(".")[2])


def _same(graph: Graph, one: str, others: Collection[str], depth: int) -> bool:
    """Whether a node feeds the same kinds of operators as one of some others, so many operators ahead."""
    ahead, _ = _surroundings(graph)
    return any(ahead[depth - 1][one] == ahead[depth - 1][other] for other in others)


Level = Mapping[str, int]


@per_graph
def _surroundings(graph: Graph) -> tuple[list[Level], list[Level]]:
    """What lies ahead of every node and behind it, up to one operator, two, and so on; equal numbers mean the same."""
    readers = graph.consumers
    own = {entry.name: ("input", entry.name in graph.outputs) for entry in graph.inputs}
    own |= {node.name: (node.op.kind(), node.name in graph.outputs) for node in graph.nodes}

    def levels(near: Mapping[str, Collection[str]]) -> list[Level]:
        numbers: dict[object, int] = {}
        now = {name: numbers.setdefault(what, len(numbers)) for name, what in own.items()}
        found: list[Level] = []
        for _ in range(DEPTH):
            # How often a kind is read is no part of it: later blocks of a residual chain are read by all that follow.
            what = {name: (own[name], frozenset(now[other] for other in near[name])) for name in own}
            now = {name: numbers.setdefault(described, len(numbers)) for name, described in what.items()}
            found.append(now)
        return found

    sources = {name: graph[name].inputs if name in graph else () for name in own}
    return levels(readers), levels(sources)


@per_graph
def _users(graph: Graph) -> dict[str, list[str]]:
    """The nodes that use each stored tensor."""
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
