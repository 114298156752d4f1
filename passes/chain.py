"""Where a block is put in a chain, and who reads what afterwards.

    before, after -> later                          each reads the last two values, as cells of DARTS do
    before, after -> NEW        after, NEW -> later

From (before, after) the block makes (after, NEW). So what read `after` reads NEW, and what read `before` reads `after`.
What `after` itself is computed from stays as it is, and so does what no output depends on. A block that reads one value
of its chain has no `before`, so only the readers of `after` change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from growir.errors import PassRefused, cut
from growir.graph import Graph, Node
from growir.passes.state import ancestors, check_value, repoint
from growir.reach import live_nodes
from growir.shapes import shapes_of


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a chain.

    Attributes:
        after: The value that a block is put behind.
        before: The value one step before it, if the block reads that too.
    """

    after: str
    before: str | None = None

    def check(self, graph: Graph) -> None:
        """Raise PassRefused unless the graph has both values, in this order."""
        check_value(graph, self.after, "after")
        if self.before is None:
            return
        check_value(graph, self.before, "before")
        if self.after in ancestors(graph, self.before):
            found = (
                "the value itself" if self.before == self.after else f"{cut(self.before)}, which is computed from it"
            )
            raise PassRefused(f"{self}: before is {found}; it names the value one step before {cut(self.after)}")

    def check_readers(self, graph: Graph) -> None:
        """Raise PassRefused unless all that read the value before can read `after` in its place."""
        if self.before is None:
            return
        old, new = (shapes_of(graph)[name] for name in (self.before, self.after))
        if old != new and (readers := self._readers(graph)):
            raise PassRefused(
                f"{self}: {readers[0]} reads {cut(self.before)}, which is {old}, and would read {cut(self.after)}, "
                f"which is {new}; put the block where both values have one shape, or where nothing later reads "
                f"{cut(self.before)}"
            )

    def check_kept(self, graph: Graph) -> None:
        """Raise PassRefused if the function changes even where the block gives back what it reads."""
        if readers := self._readers(graph):
            raise PassRefused(
                f"{self} cannot keep the function, as an exact one does: {readers[0]} would read {cut(self.after)} in "
                f"place of {cut(str(self.before))}; with exact=False the function changes"
            )

    def repointed(self, graph: Graph, new: str) -> tuple[list[Node], list[str]]:
        """A graph's nodes and outputs, reading what they do once a block stands here and gives a new value."""
        nodes, outputs = repoint(graph, self.after, new)
        if self.before is None:
            return nodes, outputs
        # Only now, when nobody reads `after` any more: who reads both values goes on with two.
        later = set(self._later(graph, self.before))
        moved = [
            node.with_inputs(self.after if name == self.before else name for name in node.inputs)
            if node.name in later
            else node
            for node in nodes
        ]
        return moved, [self.after if name == self.before else name for name in outputs]

    def _later(self, graph: Graph, before: str) -> list[str]:
        """The nodes that read the value before, but for those that `after` is computed from."""
        # Nor those that no output depends on. A cell that uses only state 0 still prepares state 1, which is the value
        # before; `after` is not computed from that, and yet it belongs to the cell that gives `after`.
        needed, live = ancestors(graph, self.after), live_nodes(graph)
        return [name for name in graph.consumers[before] if name in live and name not in needed]

    def _readers(self, graph: Graph) -> Sequence[str]:
        """All that will read `after` in place of the value before, as messages call it."""
        if self.before is None:
            return ()
        outputs = ["an output"] if self.before in graph.outputs else []
        return [*(cut(name) for name in self._later(graph, self.before)), *outputs]

    def __str__(self) -> str:
        return f"a block after {cut(self.after)}"
