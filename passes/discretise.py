"""Discretise: of the operations on each edge of a cell one stays, and of the edges into each node the strongest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Annotated, ClassVar, Self

from pydantic import Field

from growir.cells.plan import Kind
from growir.cells.reading import SKIP, CellAt, OperationAt, cells_of
from growir.errors import GraphError, PassRefused, cut
from growir.graph import Graph, Reference
from growir.nearest import suggestion
from growir.passes.eliminate_dead import drops
from growir.reach import live_nodes
from growir.rewrite import Change, Pass, Preserves

MOST_OPERATIONS = 100_000
Where = tuple[int, int]  # an edge: the state that it comes from, and the node that it leads to


class Discretise(Pass):
    """Leave one operation on each edge of all cells, and the strongest edges into each node.

    The function is kept where what goes gives zero; `measure` says how far the outputs move.

    Cells of a kind keep the same, so that one structure is left. Of the operations of an edge the one with the most
    inner channels stays, in the mean over all cells of its kind: what growth has made largest (Firefly, Wu et al. 2020,
    section 3). Where none has more than `threshold` channels, it is the identity, or else the first operation that has
    no channels that could grow, if there is one. An edge is as strong as its largest operation is wide. Of equal ones
    the first stays.

    Attributes:
        threshold: Channels of an operation, in the mean over cells, that count as hardly grown.
        inputs: How many edges each node keeps at most.
        operations: Which stay instead, as modules: normal.0.edge_0_2.sep_conv_3x3.
    """

    name: ClassVar[str] = "discretise"

    threshold: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = 0.0
    inputs: Annotated[int, Field(strict=True, ge=1, le=100)] = 2
    operations: Annotated[tuple[Reference, ...], Field(max_length=MOST_OPERATIONS)] | None = None

    def resolved(self, graph: Graph) -> Self:
        return self.model_copy(update={"operations": self._kept(graph)})

    def check(self, graph: Graph) -> None:
        try:
            cells = cells_of(graph)
        except GraphError as error:  # another pass may have put something between the parts of a cell
            raise PassRefused(str(error)) from None
        if not cells:
            raise PassRefused(
                "the graph has no cells: sums called node_2, node_3 and so on, of operations called "
                "edge_0_2.OPERATION.*, as growir.cells.network names them"
            )
        kept = set(self._kept(graph))
        known = {operation.module for at in cells for operation in at.operations}
        for module in self.operations or ():
            if module not in known:
                raise PassRefused(f"operations: no cell has {cut(module)!r}.{suggestion(module, known)}")
        for at in cells:
            for state, node in at.sums:
                if not any(each.module in kept for each in at.operations if each.edge.target == state):
                    raise PassRefused(f"operations: none of those of {cut(node)} stays; name one at least")
        if kept == known:
            raise PassRefused("all operations of the cells stay, so there is nothing to do")

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.APPROXIMATE  # to what the other operations add; only measuring can tell that it is zero

    def change(self, graph: Graph, step: int) -> Change:
        kept = set(self._kept(graph))
        changed = {
            node: graph[node].with_inputs(
                each.value for each in at.operations if each.edge.target == state and each.module in kept
            )
            for at in cells_of(graph)
            for state, node in at.sums
        }
        fed = graph.replace(nodes=[changed.get(node.name, node) for node in graph.nodes])
        live = live_nodes(fed)
        return Change([node for node in fed.nodes if node.name in live], graph.outputs, drops(graph, live))

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        step = cls()
        if step.fits(graph):
            yield step

    def _kept(self, graph: Graph) -> tuple[str, ...]:
        """The modules of the operations that stay."""
        if self.operations is not None:
            return self.operations
        found: list[str] = []
        by_kind: dict[Kind, list[CellAt]] = {}
        for at in cells_of(graph):
            by_kind.setdefault(at.kind, []).append(at)
        for kind, cells in by_kind.items():
            if any(at.edges != cells[0].edges for at in cells):
                raise PassRefused(
                    f"the {kind} cells differ in their operations, so no structure can be left in all of them; name "
                    "the operations that stay"
                )
            widths = [_mean(at.operations[k] for at in cells) for k in range(len(cells[0].operations))]
            stays = set(self._strongest(cells[0], widths))
            found += [each.module for at in cells for k, each in enumerate(at.operations) if k in stays]
        return tuple(found)

    def _strongest(self, at: CellAt, widths: list[float | None]) -> Iterator[int]:
        """The places of those operations of a cell that stay."""
        between: dict[Where, list[int]] = {}
        for k, each in enumerate(at.operations):
            between.setdefault((each.edge.source, each.edge.target), []).append(k)
        for state, _ in at.sums:
            here = {edge: places for edge, places in between.items() if edge[1] == state}
            strength = {edge: max(widths[k] or 0.0 for k in places) for edge, places in here.items()}
            strongest = sorted(here, key=lambda edge: (-strength[edge], edge[0]))[: self.inputs]
            for edge in sorted(strongest):
                yield self._chosen(here[edge], widths, [each.edge.operation for each in at.operations])

    def _chosen(self, places: list[int], widths: list[float | None], names: list[str]) -> int:
        """Of the operations of an edge the one that stays."""
        sized = {k: width for k in places if (width := widths[k]) is not None}
        plain = [k for k in places if k not in sized]
        if plain and not any(width > self.threshold for width in sized.values()):
            return next((k for k in plain if names[k] == SKIP), plain[0])
        return max(sized, key=lambda k: (sized[k], -k))


def _mean(operations: Iterable[OperationAt]) -> float | None:
    """The inner channels of one operation in the mean over cells; None where it has none."""
    widths = [each.inner for each in operations if each.inner is not None]
    return fmean(widths) if widths else None
