"""The table of what `experiments.rules.rules` has written.

    python -m experiments.rules.table rules.jsonl

For each set and rule the mean over seeds of test loss, as a share of the lowest that any rule has on that seed, with
parameters; and over all sets geometric means. Of a set on which all rules choose one network a row says nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from experiments.lines import Line
from experiments.rules.rules import ANY, RULES
from experiments.tables import grid, mean_of, paired, print_table

NAMES = [*RULES, ANY]


def shares(lines: Sequence[Line], table: str, rule: str) -> dict[int, float]:
    """By seed, the logarithm of a rule's test loss over the lowest of all rules."""
    mine = [line for line in lines if line["set"] == table]
    lowest = {seed: min(line["test"] for line in mine if line["seed"] == seed) for seed in {x["seed"] for x in mine}}
    return {line["seed"]: math.log(line["test"] / lowest[line["seed"]]) for line in mine if line["rule"] == rule}


def size(lines: Sequence[Line], table: str, rule: str) -> float:
    """The median of the parameters that a rule chose."""
    return statistics.median(float(x["parameters"]) for x in lines if x["set"] == table and x["rule"] == rule)


def table(lines: Sequence[Line]) -> Iterator[str]:
    """A row for each set, and one for all; then what other rules lose and save beside the first."""
    sets = list(dict.fromkeys(line["set"] for line in lines))
    means = {(name, rule): statistics.fmean(shares(lines, name, rule).values()) for name in sets for rule in NAMES}

    def by_set() -> Iterator[Sequence[object]]:
        for name in sets:
            seeds = len({line["seed"] for line in lines if line["set"] == name})
            yield [
                name,
                seeds,
                *(f"{math.exp(means[name, rule]):.3f} ({size(lines, name, rule):.0f})" for rule in NAMES),
            ]
        alls = [statistics.fmean(means[name, rule] for name in sets) for rule in NAMES]
        yield ["all", "", *(f"{math.exp(each):.3f}" for each in alls)]

    def by_rule() -> Iterator[Sequence[object]]:
        for rule in NAMES[1:]:
            gaps = [paired(shares(lines, name, rule), shares(lines, name, NAMES[0])) for name in sets]
            found = mean_of([100 * gap.mean for gap in gaps if gap is not None])
            sizes = [math.log(size(lines, name, rule) / size(lines, name, NAMES[0])) for name in sets]
            yield [rule, found.told(1) if found else "", f"times {math.exp(statistics.fmean(sizes)):.2f}"]

    yield from grid(["set", "seeds", *NAMES], by_set())
    yield ""
    yield from grid([f"less {NAMES[0]}", "percent of test loss", "parameters"], by_rule())


def main(given: Sequence[str] | None = None) -> None:
    """Print the table."""
    print_table(__doc__, table, given)


if __name__ == "__main__":
    main()
