"""Tables of what `experiments.timing.when` has written: accuracies, and differences to a growth in two steps.

python -m experiments.timing.table when.jsonl
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.lines import Line, read
from experiments.timing.when import ENDINGS

YARDSTICK = "2 up to .5"


def accuracies(lines: Sequence[Line], arm: str, how: str) -> dict[int, float]:
    """By seed, of one arm and one way to end."""
    mine = [(line["seed"], end) for line in lines if line["arm"] == arm for end in line["endings"]]
    return {seed: end["accuracy"] for seed, end in mine if end["rate"] == how}


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Means and standard deviations over seeds, then differences, seed by seed, with standard errors."""
    arms = list(dict.fromkeys(line["arm"] for line in lines))
    yield f"| growth | seeds | parameters | {' | '.join(ENDINGS)} |"
    yield "|---" * (3 + len(ENDINGS)) + "|"
    for arm in arms:
        mine = [line["parameters"] for line in lines if line["arm"] == arm]
        cells = [arm, str(len(mine)), f"{statistics.fmean(mine):.0f}"]
        for how in ENDINGS:
            found = list(accuracies(lines, arm, how).values())
            cells.append(f"{statistics.fmean(found):.1f} ± {statistics.stdev(found) if len(found) > 1 else 0:.1f}")
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield f"| less {YARDSTICK}, {ENDINGS[0]} | {' | '.join(ENDINGS)} |"
    yield "|---" * (1 + len(ENDINGS)) + "|"
    base = accuracies(lines, YARDSTICK, ENDINGS[0])
    for arm in arms:
        cells = [arm]
        for how in ENDINGS:
            of = accuracies(lines, arm, how)
            gaps = [of[seed] - base[seed] for seed in of if seed in base]
            error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
            cells.append(f"{statistics.fmean(gaps):+.2f} ± {error:.2f}" if error else "")
        yield f"| {' | '.join(cells)} |"


def main(given: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path)
    print("\n".join(table(read(parser.parse_args(given).lines))))


if __name__ == "__main__":
    main()
