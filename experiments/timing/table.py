"""Tables of what `experiments.timing.when` has written: accuracies, and differences to a growth in two steps.

python -m experiments.timing.table when.jsonl
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from experiments.lines import Line
from experiments.tables import grid, paired, print_table, spread
from experiments.timing.when import ENDINGS

YARDSTICK = "2 up to .5"


def accuracies(lines: Sequence[Line], arm: str, how: str) -> dict[int, float]:
    """By seed, of one arm and one way to end."""
    mine = [(line["seed"], end) for line in lines if line["arm"] == arm for end in line["endings"]]
    return {seed: end["accuracy"] for seed, end in mine if end["rate"] == how}


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Means and standard deviations over seeds, then differences, seed by seed, with standard errors."""
    arms = list(dict.fromkeys(line["arm"] for line in lines))
    base = accuracies(lines, YARDSTICK, ENDINGS[0])

    def means() -> Iterator[Sequence[object]]:
        for arm in arms:
            mine = [line["parameters"] for line in lines if line["arm"] == arm]
            cells = [spread(list(accuracies(lines, arm, how).values())) for how in ENDINGS]
            yield [arm, len(mine), f"{statistics.fmean(mine):.0f}", *cells]

    def differences() -> Iterator[Sequence[object]]:
        for arm in arms:
            found = [None if (arm, how) == (YARDSTICK, ENDINGS[0]) else accuracies(lines, arm, how) for how in ENDINGS]
            gaps = [None if each is None else paired(each, base) for each in found]
            yield [arm, *("" if gap is None else gap.told() for gap in gaps)]

    yield from grid(["growth", "seeds", "parameters", *ENDINGS], means())
    yield ""
    yield from grid([f"less {YARDSTICK}, {ENDINGS[0]}", *ENDINGS], differences())


def main(given: Sequence[str] | None = None) -> None:
    """Print the tables."""
    print_table(__doc__, table, given)


if __name__ == "__main__":
    main()
