"""What is said of a search for cells, as lines and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

from growir.cells.genotype import Genotype
from growir.cells.plan import KINDS
from growir.cells.reading import cells_of
from growir.columns import Grid
from growir.errors import counted
from growir.graph import Graph


def widths(graph: Graph) -> Iterator[str | Grid]:
    """A table of each kind of cell: the inner channels of each operation on each edge, in the mean over cells."""
    for kind in KINDS:
        cells = [at for at in cells_of(graph) if at.kind == kind]
        names = list(dict.fromkeys(each.edge.operation for at in cells for each in at.operations))
        rows: dict[tuple[int, int], dict[str, list[int]]] = {}
        for at in cells:
            for each in at.operations:
                row = rows.setdefault((each.edge.source, each.edge.target), {})
                row.setdefault(each.edge.operation, []).extend([] if each.inner is None else [each.inner])
        table: list[tuple[str, ...]] = []
        for (source, target), row in rows.items():
            each_width = [f"{fmean(row[name]):g}" if row.get(name) else "-" for name in names]
            table.append((f"{source} to {target}", *each_width))
        yield f"inner channels of {counted(len(cells), f'{kind} cell')}:"
        yield Grid(("edge", *names), tuple(table), frozenset(names))


def cost_line(what: str, graph: Graph, count: int) -> str:
    """How large a network of cells is."""
    costs = graph.costs()
    return f"{what}: {counted(count, 'cell')}, {costs.parameters:,} parameters, {costs.macs / 1e6:,.2f} million MACs"


def genotype_lines(found: Genotype) -> Iterator[str]:
    """A genotype by kind and node: "normal 2: sep_conv_3x3 of 0, skip_connect of 1"."""
    for kind in KINDS:
        by_node: dict[int, list[str]] = {}
        for edge in found.edges(kind):
            by_node.setdefault(edge.target, []).append(f"{edge.operation} of {edge.source}")
        yield from (f"{kind} {node}: {', '.join(parts)}" for node, parts in by_node.items())


def search_cost(summary: dict[str, Any]) -> dict[str, float]:
    """What a growth run took in all: operations and CPU seconds."""
    phases = summary["phases"].values()
    return {
        "flops": sum(phase["flops"] for phase in phases),
        "cpu_seconds": round(sum(phase["cpu_seconds"] for phase in phases), 2),
    }
