"""`growir render`: a picture of a graph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from growir.cli.masters import graph_at, names_graph
from growir.cli.output import MAX_PARAMETERS, GraphPath, MaxParameters, printable
from growir.errors import cut
from growir.staging import replaceable


def render(
    path: GraphPath,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="FILE", help="NET.svg or NET.html, to be written.", show_default=False),
    ],
    boxes: Annotated[
        int | None,
        typer.Option(
            "--boxes",
            metavar="N",
            min=2,
            help="The most boxes [default: 60, and 16 below each other]",
            show_default=False,
        ),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Of a run: units of the network before a growth, coloured by score.")
    ] = False,
    growth: Annotated[
        int | None,
        typer.Option(
            "--growth", metavar="N", min=1, help="With --scores, the growth [default: the last]", show_default=False
        ),
    ] = None,
    cell: Annotated[
        bool,
        typer.Option(
            "--cell", help="Its cells, as papers draw them; PATH may also be a genotype: a name, text or file."
        ),
    ] = False,
    max_parameters: MaxParameters = MAX_PARAMETERS,
) -> None:
    """Draw a graph as SVG, or as a web page with its history.

    Large graphs are collapsed by module. Nodes that growth made are marked. The file loads nothing from anywhere; only
    one that growir wrote is ever replaced.
    """
    from growir.errors import ExportError, RunError
    from growir.render import draw, graph_page
    from growir.render.svg import WRITTEN
    from growir.store import write_file

    suffix = out.suffix.lower()
    if cell and suffix != ".svg":
        raise ExportError(f"{out}: cells are drawn as .svg; give a name that ends so")
    if suffix not in (".svg", ".html"):
        raise ExportError(f"{out}: only .svg and .html can be drawn; give a name that ends in one")
    if cell and (scores or growth is not None or boxes is not None):
        raise RunError("--cell draws cells alone, so it takes none of --scores, --growth and --boxes; leave them out")
    if scores and suffix != ".svg":
        raise ExportError(f"{out}: scores are drawn as .svg; give a name that ends so")
    if growth is not None and not scores:
        raise RunError("--growth says of which growth --scores are drawn; give both")
    if cell:
        text = _cells(path, max_parameters)
        replaceable(out, is_picture)
        write_file(out, f"{WRITTEN}\n{text}".encode())
        print(printable(f"wrote {out}"))
        return
    graph = graph_at(path, max_parameters=max_parameters)
    replaceable(out, is_picture)
    if scores:
        from growir.runs.reading import read_run
        from growir.runs.units import picture

        write_file(out, f"{WRITTEN}\n{picture(read_run(Path(path)), graph, growth, boxes)}".encode())
        print(printable(f"wrote {out}"))
        return
    text = graph_page(graph, boxes) if suffix == ".html" else f"{WRITTEN}\n{draw(graph, limit=boxes)}"
    write_file(out, text.encode())
    print(printable(f"wrote {out}"))


def _cells(source: Path, max_parameters: int) -> str:
    """The cells of a graph, or those of a genotype, as SVG."""
    from growir.cells import PUBLISHED, genotype
    from growir.errors import GraphError
    from growir.render import cells_of_graph, cells_of_plan, draw_cells

    if not names_graph(source):
        # A file goes before the published genotype that is called like it.
        text = f".{os.sep}{source}" if str(source) in PUBLISHED and source.is_file() else str(source)
        return draw_cells(cells_of_plan(genotype(text)), f"cells of {cut(source)}")
    graph = graph_at(source, max_parameters=max_parameters)
    try:
        return draw_cells(cells_of_graph(graph), f"cells of {graph.name}")
    except GraphError as error:
        raise error.at(str(source)) from None


def is_picture(path: Path) -> bool:
    """Whether a file is a picture or page that growir wrote."""
    from growir.render.svg import WRITTEN

    with path.open("rb") as file:
        return WRITTEN.encode() in file.read(100)
