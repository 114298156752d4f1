"""Which modules of a graph get a forward of their own, and which slices of one value are one split of it.

blocks.0.norm   reads stem                     blocks.0 is a part: it reads stem, and what is read of it outside is
blocks.0.fc     reads blocks.0.norm            blocks.0.sum alone
blocks.0.sum    reads stem, blocks.0.fc
head            reads blocks.0.sum
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from growir.graph import Graph, Node
from growir.ops import Slice
from growir.reach import fed_values, live_nodes
from growir.shapes import shapes_of


class Part(NamedTuple):
    """A prefix of names whose nodes give one value to the others.

    Attributes:
        path: The prefix.
        given: The values of others that its nodes read, in the order in which they first do; those that no input of the
            graph reaches, such as tables of positions, come behind the others.
        gives: The node whose value the others read. It is the last one of the part in the document.
    """

    path: str
    given: tuple[str, ...]
    gives: str


@dataclass(slots=True)
class _Prefix:
    """What is known so far of the nodes under a prefix."""

    count: int = 0
    read: dict[str, None] = field(default_factory=dict[str, None])
    left: set[str] = field(default_factory=set[str])  # those of its values that others read
    whole: bool = True  # every value in it reaches an output


def parts_of(graph: Graph) -> dict[str, Part]:
    """The parts of a graph by path.

    A part reads something, gives one value, holds no value that reaches no output, and is not all there is. Each value
    in it then leads to the one that it gives. So nothing that reads this one is read inside, and a part can run as a
    whole where its last node stands: no other order of the nodes is needed, and parts nest as their paths do.
    """
    prefixes: dict[str, _Prefix] = {}
    chains: dict[str, tuple[tuple[str, _Prefix], ...]] = {}  # by a module's path, it and the modules around it
    inside: dict[str, tuple[tuple[str, _Prefix], ...]] = {entry.name: () for entry in graph.inputs}
    for node in graph.nodes:
        path = node.name.rpartition(".")[0]
        if path not in chains:
            chains[path] = tuple((each, prefixes.setdefault(each, _Prefix())) for each in _prefixes(path))
        inside[node.name] = chain = chains[path]
        for _, prefix in chain:
            prefix.count += 1
        for name in node.inputs:
            theirs = inside[name]
            common = _common(chain, theirs) if theirs else 0
            for _, prefix in chain[common:]:
                prefix.read.setdefault(name)
            for _, prefix in theirs[common:]:
                prefix.left.add(name)
    for name in graph.outputs:
        for _, prefix in inside[name]:
            prefix.left.add(name)
    reaching, reached = live_nodes(graph), fed_values(graph)
    for node in graph.nodes:
        if node.name not in reaching:
            for _, prefix in inside[node.name]:
                prefix.whole = False
    found: dict[str, Part] = {}
    for path, prefix in prefixes.items():
        if prefix.read and len(prefix.left) == 1 and prefix.whole and prefix.count < len(graph.nodes):
            given = sorted(prefix.read, key=lambda name: name not in reached)
            found[path] = Part(path, tuple(given), next(iter(prefix.left)))
    return found


def splits_of(nodes: Iterable[Node], graph: Graph) -> Mapping[str, tuple[Node, ...]]:
    """By each slice among some nodes the slices, from the first position on, that cut a value up with it.

    Side by side they are the whole of an axis. One split of it runs backward as one concatenation; a slice alone makes
    a gradient of the size of the whole, and the gradients are added.
    """
    shapes = shapes_of(graph)
    cuts: dict[tuple[str, int], dict[int, Node]] = {}
    twice: set[tuple[str, int]] = set()
    for node in nodes:
        if isinstance(node.op, Slice):
            value, axis = node.inputs[0], node.op.axis
            key = value, axis % shapes[value].rank
            at = cuts.setdefault(key, {})
            if node.op.start in at:
                twice.add(key)
            at[node.op.start] = node
    found: dict[str, tuple[Node, ...]] = {}
    for key, at in cuts.items():
        (value, axis), group = key, tuple(at[start] for start in sorted(at))
        lengths = [node.op.length for node in group if isinstance(node.op, Slice)]
        ends = [start + length for start, length in zip(sorted(at), lengths)]
        if key not in twice and len(group) > 1 and [0, *ends] == [*sorted(at), shapes[value].size(axis)]:
            found |= {node.name: group for node in group}
    return found


def _prefixes(path: str) -> list[str]:
    """a.b: a, a.b."""
    parts = path.split(".") if path else []
    return [".".join(parts[: k + 1]) for k in range(len(parts))]


def _common(one: tuple[tuple[str, _Prefix], ...], other: tuple[tuple[str, _Prefix], ...]) -> int:
    """How many of the outermost modules are the same."""
    if one is other:
        return len(one)
    return next((k for k, (a, b) in enumerate(zip(one, other)) if a[1] is not b[1]), min(len(one), len(other)))
