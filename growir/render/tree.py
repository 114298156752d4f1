"""The nodes of a graph as a tree of modules, any of which can be drawn as one box without making a cycle of boxes.

A module's name says which nodes belong together, but a node that growth put between two of them belongs to another:

    body.fc, out, sum, body.act        `sum` reads from body.fc and out, and body.act from `sum`

As one box, `body` would feed `sum` and read from it, and one of these two arrows would have to point upwards. So the
nodes are put into an order in which each comes after all it reads from, and a module of the tree is a run of neighbours
in that order. Whichever modules are drawn as one box, every arrow then leads from an earlier run to a later one. A
module is one run wherever it can be, and few where it cannot:

    out, body (1 of 2): body.fc, sum, body (2 of 2): body.act
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from growir.graph import Graph, Node


@dataclass(slots=True, eq=False)
class Group:
    """A node, a module or a part of one, or a run of neighbours.

    Attributes:
        label: What a box with all of it is called.
        path: The dotted name of the module it is, or is a part of.
        parts: What it is opened into, in order.
        node: The node, if it is a single one.
        alike: So many equal groups, if it is a run of them.
        sealed: Whether it is opened only for a node in focus.
        stage: Whether it is a node with those that only carry on its value.
        depth: How many groups are around it.
        first: The label of its first part that has a name of its own; its label, if it has one itself.
        last: That of its last.
    """

    label: str
    path: str
    parts: list[Group] = field(default_factory=list["Group"])
    node: Node | None = None
    alike: int = 0
    sealed: bool = False
    stage: bool = False
    depth: int = 0
    first: str = ""
    last: str = ""

    def __post_init__(self) -> None:
        self.first = self.first or self.label
        self.last = self.last or self.label

    def nodes(self) -> Iterator[Node]:
        """All nodes in it, in order."""
        stack: list[Group] = [self]
        while stack:
            group = stack.pop()
            if group.node is not None:
                yield group.node
            stack.extend(reversed(group.parts))


def joined(parts: list[Group], path: str, *, alike: int = 0, sealed: bool = False, stage: bool = False) -> Group:
    """A run of neighbours as a group, called by its first and last; the module that both are in is said once."""
    first, last = parts[0].first, parts[-1].last
    module = first[: first.rfind(".") + 1]
    label = first if first == last else f"{first} to {last.removeprefix(module)}"
    return Group(label, path, parts, alike=alike, sealed=sealed, stage=stage, first=first, last=last)


def module_tree(graph: Graph) -> Group:
    """The nodes of a verified graph by their modules; every group is a run of neighbours in one topological order."""
    return _tree(graph.nodes, "", "", graph.consumers)


def _tree(nodes: Sequence[Node], path: str, label: str, consumers: Mapping[str, Sequence[str]]) -> Group:
    """The tree of some nodes of one module, which stand in document order."""
    root = Group(label, path)
    if len(nodes) == 1 and path:
        return _leaf(nodes[0])
    runs = _Runs(nodes, len(path) + 1 if path else 0, consumers).found()
    count: dict[str, int] = {}
    for child, _ in runs:
        count[child] = count.get(child, 0) + 1
    seen: dict[str, int] = {}
    for child, members in runs:
        seen[child] = seen.get(child, 0) + 1
        if not child.endswith("."):
            root.parts.append(_leaf(members[0]))
            continue
        name = child[:-1]
        called = f"{name} ({seen[child]} of {count[child]})" if count[child] > 1 else name
        root.parts.append(_tree(members, name, called, consumers))
    return root


def _leaf(node: Node) -> Group:
    return Group(node.name, node.name.rpartition(".")[0], node=node)


class _Runs:
    """Cuts the nodes of one module into runs of its children, each after all that it reads from.

    A child is a node, or a module inside, written with a dot at its end. Children that wait for nothing come first,
    whole. Where each of those that are left waits for another, some wait for each other in a circle (a knot). Of the
    first of these that can begin only what can be computed is taken; its rest comes later.
    """

    def __init__(self, nodes: Sequence[Node], start: int, consumers: Mapping[str, Sequence[str]]) -> None:
        self.nodes = nodes
        self.number = {node.name: k for k, node in enumerate(nodes)}
        self.readers = [[self.number[c] for c in consumers[node.name] if c in self.number] for node in nodes]
        self.child = [_child(node.name, start) for node in nodes]
        self.members: dict[str, list[int]] = {}
        self.unmet = [0] * len(nodes)  # how many of a node's inputs are still to come
        self.waiting: dict[str, int] = {}  # how many inputs from other children
        for k, child in enumerate(self.child):
            self.members.setdefault(child, []).append(k)
            self.waiting.setdefault(child, 0)
        for k, readers in enumerate(self.readers):
            for reader in readers:
                self.unmet[reader] += 1
                self.waiting[self.child[reader]] += self.child[reader] != self.child[k]
        self.done = [False] * len(nodes)
        self.whole = [(members[0], child) for child, members in self.members.items() if not self.waiting[child]]
        self.ready = [k for k, unmet in enumerate(self.unmet) if not unmet]  # both are heaps: they are in order
        self.knot: set[str] = set()

    def found(self) -> list[tuple[str, list[Node]]]:
        """The runs in order: the child, and its nodes in document order."""
        runs: list[tuple[str, list[Node]]] = []
        while True:
            if self.whole:
                _, child = heappop(self.whole)
                run = [k for k in self.members[child] if not self.done[k]]
                for k in run:
                    self._take(k)
            else:
                first = self._first_of_a_knot()
                if first is None:
                    return runs
                child, run = self.child[first], self._part(first)
            runs.append((child, [self.nodes[k] for k in sorted(run)]))

    def _take(self, k: int) -> None:
        self.done[k] = True
        for reader in self.readers[k]:
            self.unmet[reader] -= 1
            if not self.unmet[reader]:
                heappush(self.ready, reader)
            child = self.child[reader]
            if child != self.child[k]:
                self.waiting[child] -= 1
                if not self.waiting[child]:
                    heappush(self.whole, (self.members[child][0], child))

    def _part(self, first: int) -> list[int]:
        """Take all of the child of `first` that can be computed now."""
        child = self.child[first]
        run: list[int] = []
        stack = [k for k in self.ready if not self.done[k] and self.child[k] == child]
        while stack:
            k = stack.pop()
            self._take(k)
            run.append(k)
            stack += [r for r in self.readers[k] if self.child[r] == child and not self.unmet[r]]
        return run

    def _first_of_a_knot(self) -> int | None:
        """The first node that can be computed and whose child is in a knot; None if all is done.

        A child that is in pieces already is taken before one that is still whole and may stay so.
        """
        self.ready = sorted(k for k in self.ready if not self.done[k])
        for k in self.ready:
            if self.child[k] in self.knot and self.done[self.members[self.child[k]][0]]:
                return k
        ahead, behind = self._links()
        for k in self.ready:
            self.knot = _reached(self.child[k], ahead) & _reached(self.child[k], behind)
            if self.knot:
                return k
        return None

    def _links(self) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        """For each child those that wait for it, and those that it waits for."""
        ahead: dict[str, set[str]] = {}
        behind: dict[str, set[str]] = {}
        for k, readers in enumerate(self.readers):
            for reader in readers:
                if not self.done[k] and self.child[reader] != self.child[k]:
                    ahead.setdefault(self.child[k], set()).add(self.child[reader])
                    behind.setdefault(self.child[reader], set()).add(self.child[k])
        return ahead, behind


def _reached(start: str, steps: Mapping[str, set[str]]) -> set[str]:
    """What can be reached in one step or more."""
    found: set[str] = set()
    stack = [start]
    while stack:
        new = steps.get(stack.pop(), set()) - found
        found |= new
        stack += new
    return found


def _child(name: str, start: int) -> str:
    """The node itself, or the module around it, by the part of its name that begins at `start`."""
    dot = name.find(".", start)
    return name if dot < 0 else name[: dot + 1]
