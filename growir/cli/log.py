"""`growir log`: what grew, when, why, at what gain and cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from growir.cli.output import (
    MAX_PARAMETERS,
    AsJson,
    MaxParameters,
    print_json,
    print_page,
    printable,
)
from growir.staging import replaceable

if TYPE_CHECKING:
    from growir.columns import Grid
    from growir.runs.reading import RunLog


def log(
    path: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory, or whatever has a history.", show_default=False)
    ],
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Predicted against measured gains of all candidates.")
    ] = False,
    gaps: Annotated[
        bool, typer.Option("--gaps", help="Scores on the training and the selection part, around each growth.")
    ] = False,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Write the plot as a picture too.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    max_parameters: MaxParameters = MAX_PARAMETERS,
) -> None:
    """Show what grew, when, why, at what gain and cost.

    Of a run directory, finished or not, each growth with the candidates it was chosen from, its predicted and its
    measured gain, the losses after the training that followed, and a plot of the score against parameters. Of a network
    or document, the steps of its history.
    """
    from growir.errors import RunError
    from growir.runs.reading import EVENTS, read_run

    if calibration and gaps:
        raise typer.BadParameter("give one of --calibration and --gaps, not both", param_hint="--gaps")
    if path.is_dir() and (path / EVENTS).exists():
        _show_run(read_run(path), _view("calibration" if calibration else "gaps" if gaps else "run"), svg, as_json)
        return
    if calibration or gaps or svg is not None:
        asked = "--calibration" if calibration else "--gaps" if gaps else "--svg"
        raise RunError(f"{path}: is no run directory: it has no {EVENTS}, which {asked} reads")
    from growir.network import load_graph
    from growir.runs.report import history_log, history_page

    graph = load_graph(path, max_parameters=max_parameters)
    if as_json:
        print_json({"name": graph.name, "hash": graph.hash, "steps": history_log(graph)})
    else:
        print_page(history_page(graph))


class _View(NamedTuple):
    """One way to look at a run: as data, as a page, and as an SVG file."""

    data: Callable[[RunLog], dict[str, Any]]
    page: Callable[[RunLog], Iterator[str | Grid]]
    picture: Callable[[RunLog], str]


def _view(name: Literal["run", "calibration", "gaps"]) -> _View:
    if name == "calibration":
        from growir.runs import calibration

        return _View(calibration.calibration_data, calibration.calibration_page, calibration.calibration_picture)
    if name == "gaps":
        from growir.runs import gaps

        return _View(gaps.gaps_data, gaps.gaps_page, gaps.gaps_picture)
    from growir.runs import scores
    from growir.runs.reading import RunLog

    return _View(RunLog.to_json, scores.page, scores.picture)


def _show_run(found: RunLog, view: _View, svg: Path | None, as_json: bool) -> None:
    if svg is not None:
        from growir.cli.render import is_picture
        from growir.errors import ExportError
        from growir.store import write_file

        if svg.suffix.lower() != ".svg":
            raise ExportError(f"{svg}: only .svg can be drawn; give a name that ends in it")
        replaceable(svg, is_picture)
        write_file(svg, view.picture(found).encode())
    if as_json:
        print_json(view.data(found))
        return
    print_page(view.page(found))
    if svg is not None:
        print(printable(f"\nwrote {svg}"))
