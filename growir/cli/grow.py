"""`growir grow`: train, grow, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def grow(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN.toml|DATA.npz|digits",
            help="A run file, data with all settings left alone, or the bundled demo.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run directory [default: a new runs/NAME-NNN].")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of the run file's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last completed step.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress display.")] = False,
) -> None:
    """Grow a network on data, from nothing to an ONNX file."""
    from growir.growth.command import run_command

    run_command(target, out=out, seed=seed, resume=resume, quiet=quiet)
