"""What the tables of experiments are made of: rows in Markdown, and means with what they are worth."""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.lines import Line, read


class Mean(NamedTuple):
    """A mean of some numbers.

    Attributes:
        mean: The mean.
        error: Its standard error; NaN of one number.
    """

    mean: float
    error: float

    def told(self, digits: int = 2) -> str:
        """With its sign, and with its error where there is one."""
        error = f" ± {self.error:.{digits}f}" if math.isfinite(self.error) else ""
        return f"{self.mean:+.{digits}f}{error}"


def mean_of(values: Sequence[float]) -> Mean | None:
    """Of what there is; None of nothing."""
    if not values:
        return None
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.nan
    return Mean(statistics.fmean(values), error)


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Mean | None:
    """One less the other, seed by seed; None where they have no seed in common."""
    return mean_of([one[seed] - other[seed] for seed in one if seed in other])


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The mean and the standard deviation, 0 of one number; empty of none."""
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}"


def grid(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A table in Markdown."""
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def print_table(doc: str | None, table: Callable[[Sequence[Line]], Iterator[str]], given: Sequence[str] | None) -> None:
    """The command of a module that makes a table of a file of lines.

    Args:
        doc: What the module says of itself.
        table: The rows of lines.
        given: Arguments; None for those of the command.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path)
    print("\n".join(table(read(parser.parse_args(given).lines))))
