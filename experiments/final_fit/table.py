"""The table of what `experiments.final_fit.fits` has written: loss on held-out samples by start and length.

    python -m experiments.final_fit.table fits.jsonl

The selection part and the test part are both held out here, so each loss is the mean of the two. Losses are shares of
the lowest one of the same seed and strategy: 1.00 is the best of the twenty fits. Then means over seeds, strategies and
problems, geometric ones since losses differ by problem.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.final_fit.fits import SHARES, STARTS
from experiments.lines import read

Line = dict[str, Any]


def ratios(lines: Sequence[Line]) -> dict[tuple[str, str, float], float]:
    """The loss over the best one, by problem, start and share: the geometric mean over seeds and strategies."""
    groups: dict[tuple[str, int, str], dict[tuple[str, float], float]] = {}
    for line in lines:
        loss = (line["selection"] + line["test"]) / 2
        groups.setdefault((line["problem"], line["seed"], line["strategy"]), {})[line["start"], line["share"]] = loss
    found: dict[tuple[str, str, float], list[float]] = {}
    for (problem, _, _), losses in groups.items():
        least = min(losses.values())
        for (start, share), loss in losses.items():
            found.setdefault((problem, start, share), []).append(math.log(loss / least))
    return {key: math.exp(statistics.fmean(logs)) for key, logs in found.items()}


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Rows of Markdown: a start and a length each, and last the best length for each problem."""
    found = ratios(lines)
    problems = list(dict.fromkeys(line["problem"] for line in lines))
    yield f"| start | length | {' | '.join(problems)} | all |"
    yield "|---" * (3 + len(problems)) + "|"
    for start in STARTS:
        rows = [[found[problem, start, share] for problem in problems] for share in SHARES]
        for share, cells in zip(SHARES, rows, strict=True):
            yield _row(start, f"{share:g}", cells)
        yield _row(start, "best", [min(column) for column in zip(*rows, strict=True)])


def _row(start: str, length: str, cells: Sequence[float]) -> str:
    every = math.exp(statistics.fmean(map(math.log, cells)))
    return f"| {start} | {length} | {' | '.join(f'{cell:.2f}' for cell in cells)} | {every:.2f} |"


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path)
    for row in table(read(parser.parse_args().lines)):
        print(row)


if __name__ == "__main__":
    main()
