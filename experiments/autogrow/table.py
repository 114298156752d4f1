"""The table of what `experiments.autogrow.depths` has written.

    python -m experiments.autogrow.table depths.jsonl

Accuracies are of the test images, in per cent: means and standard deviations over seeds, and growth less the found
network from scratch, seed by seed, with standard errors. *Cost* is the median of what all of the run took, in
operations, over training the found network for as many epochs.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from experiments.lines import Line
from experiments.tables import grid, mean_of, print_table, spread

HEADS = (
    "data",
    "net",
    "arm",
    "seeds",
    "found",
    "accuracy",
    "before the fit",
    "less from scratch, equal epochs",
    "less from scratch, equal FLOPs",
    "cost",
    "CPU s",
)


def table(lines: Sequence[Line]) -> Iterator[str]:
    """A row for each arm, in the order in which they were run."""
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line["data"], line["net"], line["arm"]), []).append(line)
    yield from grid(HEADS, (_row(*key, found) for key, found in groups.items()))


def _row(data: str, net: str, arm: str, lines: Sequence[Line]) -> list[str]:
    found = ", ".join(line["found"].partition("-")[2] for line in lines)
    accuracies = [line["accuracy"] for line in lines]
    costs = [line["flops"] / line["scratch"]["equal epochs"]["flops"] for line in lines if "scratch" in line]
    seconds = statistics.fmean(line["cpu"] for line in lines)
    return [
        data,
        net,
        arm,
        str(len(lines)),
        found,
        spread(accuracies, 2),
        spread([line["before_fit"] for line in lines], 2),
        *(_less(lines, how) for how in ("equal epochs", "equal FLOPs")),
        f"{statistics.median(costs):.2f}" if costs else "",
        f"{seconds:.1f}",
    ]


def _less(lines: Sequence[Line], how: str) -> str:
    twins = [line for line in lines if "scratch" in line]
    found = mean_of([line["accuracy"] - line["scratch"][how]["accuracy"] for line in twins])
    return "" if found is None else found.told()


def main(given: Sequence[str] | None = None) -> None:
    """Print it."""
    print_table(__doc__, table, given)


if __name__ == "__main__":
    main()
