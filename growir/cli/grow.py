"""`growir grow`: train, grow, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def _list_settings(wanted: bool) -> None:
    if wanted:
        from growir.growth.settings import settings_page

        print(settings_page(), end="")
        raise typer.Exit


def grow(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN.toml|DATA|digits",
            help="A run file, data (.csv, .tsv or .npz), or the bundled demo.",
            show_default=False,
        ),
    ],
    predicted: Annotated[
        str | None, typer.Option("--target", metavar="COLUMN", help="The column of a table that is learned.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="classification or regression [default: by the targets]."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="COLUMN", help="A column that is not read; again for more."),
    ] = None,
    categories: Annotated[
        list[str] | None,
        typer.Option("--categories", metavar="COLUMN", help="A column whose numbers are words; again for more."),
    ] = None,
    separator: Annotated[
        str | None, typer.Option("--separator", metavar="CHAR", help="Between cells of a table [default: comma].")
    ] = None,
    test: Annotated[
        str | None,
        typer.Option("--test", metavar="FILE|SHARE", help="To test on, or to hold out; 0: none [default: 0.2]."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="N", help="The most parameters [default: by the number of samples]."),
    ] = None,
    threads: Annotated[
        str | None, typer.Option("--threads", metavar="N", help="Of torch [default: 1 where training steps are small].")
    ] = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="N", help="Of everything random [default: 0].")] = None,
    others: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as train.epochs_final=20; again for more."),
    ] = None,
    list_settings: Annotated[
        bool,
        typer.Option("--settings", help="List all settings and exit.", callback=_list_settings, is_eager=True),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run directory [default: a new runs/NAME-NNN].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last completed growth.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress display.")] = False,
) -> None:
    """Grow a network on data, from nothing to an ONNX file.

    Settings given here go before those of a run file.
    """
    from growir.growth.command import run_command

    # Options that are spellings of --set.
    spelled = {
        ("--target", "data.target"): predicted,
        ("--task", "data.task"): task,
        ("--separator", "data.separator"): separator,
        ("--test", "data.test"): test,
        ("--budget", "budget.parameters"): budget,
        ("--threads", "threads"): threads,
        ("--seed", "seed"): seed,
    }
    lists = {("--ignore", "data.ignore"): ignore, ("--categories", "data.categories"): categories}
    settings = [
        (f"{option} {value}", f"{key}={value}") for (option, key), value in spelled.items() if value is not None
    ]
    settings += [
        (" ".join(f"{option} {each}" for each in values), f"{key}={json.dumps(values)}")
        for (option, key), values in lists.items()
        if values
    ]
    settings += [(f"--set {text}", text) for text in others or []]
    run_command(target, settings=settings, out=out, resume=resume, quiet=quiet)
