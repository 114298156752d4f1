"""Room in a list of blocks: those behind a place move up by one number, as a larger class would number them.

blocks.0 -> blocks.1 -> blocks.2          make_room(graph, "blocks.1")
blocks.0 -> blocks.2 -> blocks.3          the same nodes under other names, and their tensors renamed

The names blocks.1.* are then free for a block that is put between. Where the list was not longer before, only the names
of its last block are new.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from growir.edits import Rename
from growir.errors import PassRefused, cut
from growir.graph import Graph, Node, Ties
from growir.shapes import owners


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """A graph with room in a list.

    Attributes:
        graph: The same graph, without its history, where some nodes have other names.
        called: The new name of every node whose name changes.
        edits: What becomes of the tensors that are filed under these names, the last block first: each name is free
            when a tensor gets it.
    """

    graph: Graph
    called: Mapping[str, str]
    edits: tuple[Rename, ...]


def make_room(graph: Graph, module: str) -> Room:
    """A graph in which the blocks of a list from a module on have moved up by one number.

    Args:
        graph: The graph.
        module: The first that moves, by its path, whose last part is its number.

    Raises:
        PassRefused: It is no numbered module of the graph.
    """
    parent, _, number = module.rpartition(".")
    children = sorted({int(n) for node in graph.nodes if (n := _number(node.name, parent)) is not None})
    if not (parent and number.isdigit() and int(number) in children):
        found = f"its modules have the numbers {', '.join(map(str, children))}" if children else "there is no such list"
        raise PassRefused(
            f"{cut(module)!r} cannot move up to make room: a numbered module of the graph is needed, and of "
            f"{cut(parent)!r} {found}; leave shift out for a block behind the last"
        )
    moved = [n for n in children if n >= int(number)]
    called = {
        node.name: f"{parent}.{n + 1}{node.name[len(f'{parent}.{n}') :]}"
        for node in graph.nodes
        if (n := _number(node.name, parent)) in moved
    }
    nodes = [_moved(node, called, parent) for node in graph.nodes]
    outputs = [called.get(name, name) for name in graph.outputs]
    keys = [key for key, owner in owners(graph).items() if key == owner and key.rpartition(".")[0] in called]
    last_first = sorted(keys, key=lambda key: _number(key, parent) or 0, reverse=True)
    edits = tuple(Rename(key, renamed_key(key, called)) for key in last_first)
    return Room(graph.replace(nodes=nodes, outputs=outputs, history=None), called, edits)


def renamed_key(key: str, called: Mapping[str, str]) -> str:
    """The key of a tensor whose node may have another name."""
    host, _, parameter = key.rpartition(".")
    return f"{called.get(host, host)}.{parameter}"


def source_at(source: str | None, old: str, new: str) -> str | None:
    """What a node was called where it came from, for a block of another number: its module's path in place of the old.

    h.0.attn of "weight: h.0.attn.c_attn.weight" becomes h.1.attn; what names other modules stays.
    """
    if source is None or not old:
        return source
    return re.sub(rf"(?<![\w.]){re.escape(old)}(?=\.|,|$)", new, source)


def _number(name: str, parent: str) -> int | None:
    """The number of the child of a list that something stands in."""
    if not name.startswith(f"{parent}."):
        return None
    number = name[len(parent) + 1 :].split(".")[0]
    return int(number) if number.isdigit() and name != f"{parent}.{number}" else None


def _moved(node: Node, called: Mapping[str, str], parent: str) -> Node:
    changes: dict[str, object] = {}
    if not called.keys().isdisjoint(node.inputs):
        changes["inputs"] = tuple(called.get(name, name) for name in node.inputs)
    if node.tied:
        changes["tied"] = Ties({name: renamed_key(owner, called) for name, owner in node.tied.items()})
    if node.name in called:
        number = _number(node.name, parent)
        changes["name"] = called[node.name]
        changes["source"] = source_at(node.source, f"{parent}.{number}", f"{parent}.{(number or 0) + 1}")
    return node.model_copy(update=changes) if changes else node
