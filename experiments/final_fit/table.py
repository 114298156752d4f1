"""The table of what `experiments.final_fit.fits` has written: loss on held-out samples by start and length.

    python -m experiments.final_fit.table fits.jsonl

The selection part and the test part are both held out here, so each loss is the mean of the two. Losses are shares of
the lowest one of the same seed and strategy: 1.00 is the best of the twenty fits. Then means over seeds, strategies and
problems, geometric ones since losses differ by problem.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from experiments.final_fit.fits import SHARES, STARTS
from experiments.lines import Line
from experiments.tables import grid, print_table


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

    def rows() -> Iterator[Sequence[str]]:
        for start in STARTS:
            each = {f"{share:g}": [found[problem, start, share] for problem in problems] for share in SHARES}
            each["best"] = [min(column) for column in zip(*each.values(), strict=True)]
            for length, cells in each.items():
                every = math.exp(statistics.fmean(map(math.log, cells)))
                yield [start, length, *(f"{cell:.2f}" for cell in [*cells, every])]

    yield from grid(["start", "length", *problems, "all"], rows())


def main(given: Sequence[str] | None = None) -> None:
    """Print it."""
    print_table(__doc__, table, given)


if __name__ == "__main__":
    main()
