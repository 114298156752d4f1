"""`growir log`: what grew, when, why, at what gain and cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from growir.cli.output import (
    MAX_PARAMETERS,
    AsJson,
    MaxParameters,
    print_json,
    print_page,
    printable,
    replaceable,
)

if TYPE_CHECKING:
    from growir.events import RunLog


def log(
    path: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory, or whatever has a history.", show_default=False)
    ],
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Predicted against measured gains of all candidates.")
    ] = False,
    gaps: Annotated[
        bool, typer.Option("--gaps", help="Scores on what is trained on and on what chooses, around each growth.")
    ] = False,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Write the plot of either as a picture too.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    max_parameters: MaxParameters = MAX_PARAMETERS,
) -> None:
    """Show what grew, when, why, at what gain and cost.

    Of a run directory, finished or not, each growth with the candidates it was chosen from, its predicted and its
    measured gain, and the losses after the training that followed. Of a network or document, the steps of its history.
    """
    from growir.errors import RunError
    from growir.events import EVENTS, read_run

    if calibration and gaps:
        raise typer.BadParameter("give one of --calibration and --gaps, not both", param_hint="--gaps")
    if svg is not None and not (calibration or gaps):
        raise typer.BadParameter("goes with --calibration or --gaps", param_hint="--svg")
    a_run = path.is_dir() and (path / EVENTS).exists()
    if calibration or gaps:
        asked = "--calibration" if calibration else "--gaps"
        if not a_run:
            raise RunError(f"{path}: is no run directory: it has no {EVENTS}, which {asked} reads")
        _show_plot(read_run(path), svg, as_json, calibration=calibration)
        return
    if a_run:
        _show_run(read_run(path), as_json)
        return
    from growir.network import load_graph
    from growir.report import history_log, history_page

    graph = load_graph(path, max_parameters=max_parameters)
    if as_json:
        print_json({"name": graph.name, "hash": graph.hash, "steps": history_log(graph)})
    else:
        print_page(history_page(graph))


def _show_run(found: RunLog, as_json: bool) -> None:
    from growir.report import run_page

    if as_json:
        print_json(found.to_json())
    else:
        print_page(run_page(found))


def _show_plot(found: RunLog, svg: Path | None, as_json: bool, *, calibration: bool) -> None:
    if calibration:
        from growir.calibration import calibration_data as data
        from growir.calibration import calibration_page as page
        from growir.calibration import calibration_picture as picture
    else:
        from growir.gaps import gaps_data as data
        from growir.gaps import gaps_page as page
        from growir.gaps import gaps_picture as picture
    if svg is not None:
        from growir.cli.render import is_picture
        from growir.errors import ExportError
        from growir.store import write_file

        if svg.suffix.lower() != ".svg":
            raise ExportError(f"{svg}: only .svg can be drawn; give a name that ends in it")
        replaceable(svg, is_picture)
        write_file(svg, picture(found).encode())
    if as_json:
        print_json(data(found))
        return
    print_page(page(found))
    if svg is not None:
        print(printable(f"\nwrote {svg}"))
