"""`growir log`: what grew, when, why, at what gain and cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from growir.cli.output import MAX_PARAMETERS, AsJson, MaxParameters, print_json, print_page

if TYPE_CHECKING:
    from growir.events import RunLog


def log(
    path: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory, or whatever has a history.", show_default=False)
    ],
    as_json: AsJson = False,
    max_parameters: MaxParameters = MAX_PARAMETERS,
) -> None:
    """Show what grew, when, why, at what gain and cost.

    Of a run directory, finished or not, each growth with the candidates it was chosen from, its predicted and its
    measured gain, and the losses after the training that followed. Of a network or document, the steps of its history.
    """
    from growir.events import EVENTS

    if path.is_dir() and (path / EVENTS).exists():
        from growir.events import read_run

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
