"""`growir predict`: what the network of a run says of new samples."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from growir.cli.output import printable
from growir.staging import replaceable


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A .csv or .tsv table, an .npz file with x, or x_test if it has no x, or an .npy file.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="FILE.csv or FILE.npz, to be written [default: print CSV]."),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option("--separator", metavar="CHAR", help="Between cells of a table [default: as in the run's own]."),
    ] = None,
) -> None:
    """Ask the network of a run about new samples.

    One line for each sample: of classes the most probable label and the probability of each, of a regression the
    numbers.
    """
    from growir.data.answers import is_answers, writer_of

    write = None if out is None else writer_of(out)
    if out is not None:
        replaceable(out, is_answers)
    from growir.growth.predicting import predict
    from growir.store import write_file

    # As for growir grow, a tab may be typed with its escape.
    answers = predict(run, data, separator="\t" if separator == r"\t" else separator)
    if out is None or write is None:
        text = answers.to_csv()
        # A terminal would obey what some labels may hold; another program gets them as they are.
        print(printable(text) if sys.stdout.isatty() else text, end="")
        return
    write_file(out, write(answers))
    print(printable(f"wrote {out}: {len(answers.predicted)} samples"))
