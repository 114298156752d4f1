"""EliminateDead: remove nodes whose values reach no output."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar, Self

from growir.edits import Drop
from growir.errors import PassRefused
from growir.graph import Graph
from growir.params import owners, param_table
from growir.reach import live_nodes
from growir.rewrite import Change, Pass, Preserves


def unread_without(graph: Graph, node: str, removed: str) -> set[str]:
    """The nodes that nothing reads any more once `node` no longer reads `removed`."""
    gone: set[str] = set()
    stack = [removed]
    while stack:
        name = stack.pop()
        readers = [r for r in graph.consumers[name] if r not in gone and (r, name) != (node, removed)]
        if name in graph and name not in graph.outputs and not readers:
            gone.add(name)
            stack.extend(graph[name].inputs)
    return gone


def drops(graph: Graph, kept: Collection[str]) -> list[Drop]:
    """The edits that remove the tensors which none of the kept nodes uses."""
    used = {owner for key, owner in owners(graph).items() if key.rpartition(".")[0] in kept}
    return [Drop(key) for key in param_table(graph) if key not in used]


class EliminateDead(Pass):
    """Remove every node that no output depends on; a tensor they shared passes to its next user."""

    name: ClassVar[str] = "eliminate_dead"

    def check(self, graph: Graph) -> None:
        live = live_nodes(graph)
        if all(node.name in live for node in graph.nodes):
            raise PassRefused("every node reaches an output; there is nothing to remove")

    def preserves(self, graph: Graph) -> Preserves:
        live = live_nodes(graph)
        # A dead dropout still draws numbers, so later ones would draw others.
        draws = any(n.op.draws for n in graph.nodes if n.name not in live)
        return Preserves.EVAL if draws else Preserves.EXACT

    def change(self, graph: Graph, step: int) -> Change:
        live = live_nodes(graph)
        return Change([node for node in graph.nodes if node.name in live], graph.outputs, drops(graph, live))

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        live = live_nodes(graph)
        if any(node.name not in live for node in graph.nodes):
            yield cls()
