"""`growir diff`: what is different in one graph or network compared with another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from growir.cli.masters import master_of, opened
from growir.cli.output import MAX_PARAMETERS, PATH_HELP, AsJson, MaxParameters, line_width, print_json, print_lines
from growir.staging import replaceable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from growir.difference import Difference, Weighted
    from growir.graph import Graph
    from growir.network import Network

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

    Compares nodes, widths, edges, costs, and weights where both have them. Of an .onnx file, weights are what it holds,
    and those of a network are compared with it as float32.

    Exits with 0 if they are the same, 1 if they differ, 2 if one cannot be read.
    """
    difference = _difference(a, b, max_parameters)
    apart = _tasks_apart(a, b)
    if html is not None:
        _write_page(difference, html)
    if as_json:
        print_json(difference.to_json() | ({} if apart is None else {"tasks": apart}))
    else:
        if not (apart and difference.same):
            _print(difference)
        for line in apart or ():
            print_lines(line)
    raise typer.Exit(SAME if difference.same and not apart else DIFFERENT)


def _tasks_apart(a: Path, b: Path) -> list[str] | None:
    """What the tasks of two masters have not in common; None where one of the two is none."""
    first, second = (master_of(path) if path.is_dir() else None for path in (a, b))
    return None if first is None or second is None else first.tasks_apart(second)


def _difference(a: Path, b: Path, max_parameters: int) -> Difference:
    from growir.difference import diff as difference_of

    first, second = (opened(path, max_parameters=max_parameters) for path in (a, b))
    exported = [_exported(path, found) for path, found in ((a, first), (b, second))]
    return difference_of(exported[0] or _as_in(exported[1], first), exported[1] or _as_in(exported[0], second))


@dataclass(frozen=True)
class _Exported:
    """The graph of an .onnx file with the tensors that are in it.

    Attributes:
        absent: The keys of those that are not, since inference has no use for them.
    """

    graph: Graph
    arrays: Mapping[str, NDArray[Any]]

    @property
    def absent(self) -> frozenset[str]:
        from growir.params import param_table

        return frozenset(param_table(self.graph)) - self.arrays.keys()


def _exported(path: Path, found: Graph | Network) -> _Exported | None:
    """What an .onnx file holds; None for any other file."""
    from growir.graph import Graph

    if not isinstance(found, Graph) or path.is_dir() or path.suffix.lower() != ".onnx":
        return None
    from growir.backends.onnx_ir import read_weights
    from growir.params import param_table

    return _Exported(found, read_weights(path, param_table(found)))


def _as_in(file: _Exported | None, found: Graph | Network) -> Graph | Weighted:
    """A network with its weights as they are compared with an .onnx file: what the file has none of left out."""
    from growir.graph import Graph

    if file is None or isinstance(found, Graph):
        return found
    from growir.backends.onnx_ir import as_stored

    absent = file.absent
    return _Exported(found.graph, {key: as_stored(array) for key, array in found.arrays.items() if key not in absent})


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
