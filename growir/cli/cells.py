"""`growir cells`: search for cells by growing them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from growir.cli.output import print_page


def cells(
    path: Annotated[
        Path,
        typer.Argument(metavar="RUN.toml", help="A run file with data, cells and evaluation.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run directory [default: a new runs/NAME-NNN].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it was stopped.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress display.")] = False,
) -> None:
    """Search for the cells of a network by growing them, and train it from scratch.

    docs/cells.md says what stands in a run file.
    """
    from growir.cellsearch.command import run_search

    found = run_search(path, out=out, resume=resume, quiet=quiet)
    if not quiet:
        print()
    print_page(found)
