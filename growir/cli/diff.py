"""`growir diff`: what is different in one graph or network compared with another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from growir.cli.output import MAX_PARAMETERS, PATH_HELP, AsJson, MaxParameters, line_width, print_json
from growir.staging import replaceable

if TYPE_CHECKING:
    from growir.difference import Difference

SAME, DIFFERENT = 0, 1
_STYLES = {"heading": "bold", "added": "green", "removed": "red", "changed": "yellow", "width": "bold yellow"}


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help=PATH_HELP, show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Likewise.", show_default=False)],
    as_json: AsJson = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a web page with both pictures too.", show_default=False),
    ] = None,
    max_parameters: MaxParameters = MAX_PARAMETERS,
) -> None:
    """Show what two graphs or networks have not in common.

    Compares nodes, widths, edges, costs, and weights where both have them.

    Exits with 0 if they are the same, 1 if they differ, 2 if one cannot be read.
    """
    from growir.difference import diff as difference_of
    from growir.network import open_path

    first, second = (open_path(path, max_parameters=max_parameters) for path in (a, b))
    difference = difference_of(first, second)
    if html is not None:
        _write_page(difference, html)
    if as_json:
        print_json(difference.to_json())
    else:
        _print(difference)
    raise typer.Exit(SAME if difference.same else DIFFERENT)


def _write_page(difference: Difference, out: Path) -> None:
    from growir.cli.render import is_picture
    from growir.render import difference_page
    from growir.store import write_file

    replaceable(out, is_picture)
    write_file(out, difference_page(difference).encode())


def _print(difference: Difference) -> None:
    import sys

    from growir.columns import folded
    from growir.difference import lines

    if not sys.stdout.isatty():
        print(difference)  # which folds its lines itself
        return
    from rich.console import Console
    from rich.text import Text

    console, width = Console(), line_width()
    for line in lines(difference):
        console.print(Text(folded(line.text, width), style=_STYLES.get(line.kind, "")), soft_wrap=True)
