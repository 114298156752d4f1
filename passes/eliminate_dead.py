"""EliminateDead: remove nodes whose values reach no output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

from growir.edits import Drop, Edit, Rename
from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.ops import Dropout
from growir.params import owners, param_table
from growir.rewrite import Change, Pass, Preserves


def live_nodes(graph: Graph) -> set[str]:
    """Names of the nodes and inputs that some output depends on."""
    found = set(graph.outputs)
    for node in reversed(graph.nodes):
        if node.name in found:
            found.update(node.inputs)
    return found


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
        draws = any(isinstance(n.op, Dropout) and n.op.p > 0 for n in graph.nodes if n.name not in live)
        return Preserves.EVAL if draws else Preserves.EXACT

    def change(self, graph: Graph, step: int) -> Change:
        live = live_nodes(graph)
        edits: list[Edit] = []
        heirs: dict[str, str] = {}
        users: dict[str, list[str]] = {}
        for key, owner in owners(graph).items():
            if key.rpartition(".")[0] in live:
                users.setdefault(owner, []).append(key)
        for key in param_table(graph):
            if key.rpartition(".")[0] in live:
                continue
            if users.get(key):
                heirs[key] = users[key][0]
                edits.append(Rename(key, heirs[key]))
            else:
                edits.append(Drop(key))
        nodes = [_inherit(node, heirs) for node in graph.nodes if node.name in live]
        return Change(nodes, graph.outputs, edits)

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        live = live_nodes(graph)
        if any(node.name not in live for node in graph.nodes):
            yield cls()


def _inherit(node: Node, heirs: dict[str, str]) -> Node:
    if not any(owner in heirs for owner in node.tied.values()):
        return node
    tied = {name: heirs.get(owner, owner) for name, owner in node.tied.items()}
    mine = {name: owner for name, owner in tied.items() if owner != f"{node.name}.{name}"}
    return node.model_copy(update={"tied": mine})
