"""`growir render`: a picture of a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from growir.cli.masters import graph_at
from growir.cli.output import MAX_PARAMETERS, GraphPath, MaxParameters, printable
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
    if suffix not in (".svg", ".html"):
        raise ExportError(f"{out}: only .svg and .html can be drawn; give a name that ends in one")
    if scores and suffix != ".svg":
        raise ExportError(f"{out}: scores are drawn as .svg; give a name that ends so")
    if growth is not None and not scores:
        raise RunError("--growth says of which growth --scores are drawn; give both")
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


def is_picture(path: Path) -> bool:
    """Whether a file is a picture or page that growir wrote."""
    from growir.render.svg import WRITTEN

    with path.open("rb") as file:
        return WRITTEN.encode() in file.read(100)
