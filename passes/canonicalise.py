"""Canonicalise: the simplest graph that computes the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

from growir.errors import PassRefused
from growir.graph import Graph, Node, per_graph
from growir.passes.eliminate_dead import drops
from growir.passes.simplify import simplified
from growir.rewrite import Change, Pass, Preserves


class Canonicalise(Pass):
    """Remove what does nothing, join what is one, name what has a name; then remove every node that reaches no output.

    Sums and concatenations of one value, reshapes of reshapes, orders of axes that cancel, slices of everything,
    dropouts that drop nothing, activations on numbers they keep; sums of sums; hardswish and silu spelled out. A second
    run finds nothing to do.
    """

    name: ClassVar[str] = "canonicalise"

    def check(self, graph: Graph) -> None:
        if not _simpler(graph):
            raise PassRefused("the graph is canonical already; there is nothing to do")

    def preserves(self, graph: Graph) -> Preserves:
        # A dead dropout still draws numbers, so without it the others would draw other ones.
        kept = {node.name for node in _canonical(graph)[0]}
        draws = any(n.op.draws for n in graph.nodes if n.name not in kept)
        return Preserves.EVAL if draws else Preserves.EXACT

    def change(self, graph: Graph, step: int) -> Change:
        nodes, outputs = _canonical(graph)
        return Change(nodes, outputs, drops(graph, {node.name for node in nodes}))

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        if _simpler(graph):
            yield cls()


@per_graph
def _canonical(graph: Graph) -> tuple[list[Node], list[str]]:
    return simplified(graph)


def _simpler(graph: Graph) -> bool:
    nodes, outputs = _canonical(graph)
    return nodes != list(graph.nodes) or outputs != list(graph.outputs)
