"""The search itself: a stack of template cells grows, and what has grown largest is left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from growir import store
from growir.cells.genotype import Genotype, genotype
from growir.cells.plan import KINDS
from growir.cells.reading import cells_of, fragment, genotype_of
from growir.cellsearch.config import CellSearchConfig
from growir.cellsearch.problem import Images
from growir.document import dumps
from growir.errors import GraphError, RunError
from growir.graph import Graph
from growir.growth.observer import Observer
from growir.growth.running import start_run
from growir.passes import Discretise
from growir.runs.folder import CONFIG

FOUND, GROWN = "genotype.txt", "search"


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search has found.

    Attributes:
        genotype: The cells.
        grown: The graph in which they grew, with every operation.
        left: What `Discretise` left of it.
        summary: Of the growth run.
    """

    genotype: Genotype
    grown: Graph
    left: Graph
    summary: dict[str, Any]


def search(
    config: CellSearchConfig, images: Images, folder: Path | None = None, observer: Observer | None = None
) -> Found:
    """Search for cells, or go on where a search was stopped.

    Args:
        config: What is asked for.
        images: The data.
        folder: Where the growth run is kept, as its folder `search`, and what it has found; None keeps nothing.
        observer: Of the growth run.

    Raises:
        RunError: A setting is wrong, or the run in the folder had others.
    """
    start = images.network(config.cells.template(), config.cells, config.name, config.seed)
    out = None if folder is None else folder / GROWN
    if out is not None and not (out / CONFIG).exists():
        for rest in out.glob(f".{CONFIG}.new-*"):  # of a process that was killed as it wrote
            rest.unlink()
    result = start_run(
        config.growth(inner_sites(start.graph)),
        images.problem,
        start,
        out=out,
        resume=out is not None and (out / CONFIG).exists(),
        observer=observer,
    )
    grown = result.network.graph
    left = left_of(grown, config.cells.most)
    found = Found(genotype_of(left), grown, left, result.summary)
    if folder is not None:
        for kind in KINDS:
            # The last one, whose two inputs have one size where there are enough cells of it.
            module = [at.module for at in cells_of(left) if at.kind == kind][-1]
            store.write_file(folder / f"{kind}.json", dumps(fragment(left, module, whole=True)).encode())
        # Last, since who goes on takes it that all of the search is there.
        store.write_file(folder / FOUND, f"{found.genotype}\n".encode())
    return found


def left_of(graph: Graph, threshold: float) -> Graph:
    """What `Discretise` leaves of the cells of a graph; the graph where there is nothing to choose."""
    step = Discretise(threshold=threshold).resolved(graph)
    every = {each.module for at in cells_of(graph) for each in at.operations}
    return graph if every == set(step.operations or ()) else step.rewrite(graph).graph


def first_found(config: CellSearchConfig, start: Graph) -> Genotype:
    """What would be found of cells that have not grown: a genotype of the size that any search has.

    Raises:
        RunError: A search of these cells gives no genotype, or nothing of them can grow.
    """
    if not inner_sites(start):
        raise RunError("[cells] operations: none has inner channels, so nothing could grow; name one that has")
    try:
        return genotype_of(left_of(start, config.cells.most))
    except GraphError as error:
        raise RunError(f"[cells] what is left of them is no genotype: {error}") from None


def inner_sites(graph: Graph) -> list[str]:
    """Patterns of the names of all spaces of inner channels: one for each layer that makes them."""
    found: dict[str, None] = {}
    for at in cells_of(graph):
        for each in at.operations:
            for space in each.spaces:
                found[f"*.edge_*.{each.edge.operation}{space.removeprefix(each.module)}"] = None
    return list(found)


def known(folder: Path) -> Genotype | None:
    """What a search has found in a folder; None where it is not over. Raises GraphError if it is damaged."""
    path = folder / FOUND
    return genotype(path) if path.exists() else None
