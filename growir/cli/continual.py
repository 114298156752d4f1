"""`growir continual`: learn one task after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from growir.cli.output import print_page


def continual(
    path: Annotated[
        Path, typer.Argument(metavar="RUN.toml", help="A run file with data, tasks and method.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run directory [default: a new runs/NAME-NNN].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on behind the last task that was finished.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Nothing is said after each task.")] = False,
) -> None:
    """Learn one task after the other, and keep what each has learned.

    docs/continual.md says what stands in a run file.
    """
    from growir.continual.command import run_sequence

    found = run_sequence(path, out=out, resume=resume, quiet=quiet)
    if not quiet:
        print()
    print_page(found)
