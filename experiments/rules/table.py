"""The table of what `experiments.rules.rules` has written.

    python -m experiments.rules.table rules.jsonl

For each set and rule the mean over seeds of test loss, as a share of the lowest that any rule has on that seed, with
parameters; and over all sets geometric means. Of a set on which all rules choose one network a row says nothing.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.lines import Line, read
from experiments.rules.rules import ANY, RULES

NAMES = [*RULES, ANY]


def shares(lines: Sequence[Line], table: str, rule: str) -> dict[int, float]:
    """By seed, the logarithm of a rule's test loss over the lowest of all rules."""
    mine = [line for line in lines if line["set"] == table]
    lowest = {seed: min(line["test"] for line in mine if line["seed"] == seed) for seed in {x["seed"] for x in mine}}
    return {line["seed"]: math.log(line["test"] / lowest[line["seed"]]) for line in mine if line["rule"] == rule}


def table(lines: Sequence[Line]) -> Iterator[str]:
    """A row for each set, and one for all; parameters are medians."""
    sets = list(dict.fromkeys(line["set"] for line in lines))
    yield f"| set | seeds | {' | '.join(NAMES)} |"
    yield "|---" * (2 + len(NAMES)) + "|"
    for name in sets:
        cells = [name, str(len({line["seed"] for line in lines if line["set"] == name}))]
        for rule in NAMES:
            found = shares(lines, name, rule)
            sizes = [line["parameters"] for line in lines if line["set"] == name and line["rule"] == rule]
            cells.append(f"{math.exp(statistics.fmean(found.values())):.3f} ({statistics.median(sizes):.0f})")
        yield f"| {' | '.join(cells)} |"
    cells = ["all", ""]
    for rule in NAMES:
        means = [statistics.fmean(shares(lines, name, rule).values()) for name in sets]
        cells.append(f"{math.exp(statistics.fmean(means)):.3f}")
    yield f"| {' | '.join(cells)} |"
    yield ""
    yield f"| less {NAMES[0]} | percent of test loss | parameters |"
    yield "|---" * 3 + "|"
    for rule in NAMES[1:]:
        gaps: list[float] = []
        sizes = []
        for name in sets:
            one, other = shares(lines, name, NAMES[0]), shares(lines, name, rule)
            gaps.append(statistics.fmean(other[seed] - one[seed] for seed in one))
            medians = [
                statistics.median(x["parameters"] for x in lines if x["set"] == name and x["rule"] == each)
                for each in (rule, NAMES[0])
            ]
            sizes.append(math.log(medians[0] / medians[1]))
        error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
        more = f"{100 * statistics.fmean(gaps):+.1f} ± {100 * error:.1f}"
        yield f"| {rule} | {more} | times {math.exp(statistics.fmean(sizes)):.2f} |"


def main(given: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path)
    print("\n".join(table(read(parser.parse_args(given).lines))))


if __name__ == "__main__":
    main()
