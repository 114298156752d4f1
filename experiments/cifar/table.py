"""Tables of what `experiments.cifar.compare` has written.

    python -m experiments.cifar.table compare.jsonl

For each network a table of accuracies with standard deviations over seeds, and one of differences, seed by seed, to
growth by random new units and to the evenly widened network from scratch, with their standard errors.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

Line = dict[str, Any]
WAYS = tuple(product(("epochs", "operations"), ("falling", "rewarmed")))
YARDSTICKS = ("random new units", "even")


def ending(line: Line, way: tuple[str, str]) -> Line:
    """How a line ended in one of the ways."""
    return next(each for each in line["endings"] if (each["equal"], each["rate"]) == way)


def accuracies(lines: Sequence[Line], arm: str, way: tuple[str, str]) -> dict[int, float]:
    """By seed."""
    return {line["seed"]: ending(line, way)["accuracy"] for line in lines if line["arm"] == arm}


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Means of all that ended, of one network and size."""
    heads = ["policy", "seeds", "parameters", "MACs", "TFLOP", "growing s"]
    heads += [f"equal {equal}, {rate}" for equal, rate in WAYS]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for arm in dict.fromkeys(sorted((line["arm"] for line in lines), key=lambda arm: ("scratch" in arm, arm))):
        mine = [line for line in lines if line["arm"] == arm]
        cells = [arm, str(len(mine)), f"{_mean(mine, 'parameters'):.0f}", f"{_mean(mine, 'macs') / 1e3:.0f} k"]
        cells.append(f"{statistics.fmean(ending(line, WAYS[0])['teraflop'] for line in mine):.3f}")
        cells.append(f"{_mean(mine, 'cpu_growing'):.1f}")
        for way in WAYS:
            found = list(accuracies(lines, arm, way).values())
            cells.append(f"{statistics.fmean(found):.1f} ± {statistics.stdev(found) if len(found) > 1 else 0:.1f}")
        yield f"| {' | '.join(cells)} |"


def differences(lines: Sequence[Line], yardstick: str) -> Iterator[str]:
    """Of each policy to another, seed by seed."""
    yield f"| less {yardstick} | {' | '.join(f'equal {equal}, {rate}' for equal, rate in WAYS)} |"
    yield "|---" * (1 + len(WAYS)) + "|"
    for arm in dict.fromkeys(line["arm"] for line in lines if line["arm"] != yardstick):
        cells: list[str] = []
        for way in WAYS:
            one, other = accuracies(lines, arm, way), accuracies(lines, yardstick, way)
            found = [one[seed] - other[seed] for seed in one if seed in other]
            if len(found) < 2:
                cells.append("")
                continue
            error = statistics.stdev(found) / len(found) ** 0.5
            cells.append(f"{statistics.fmean(found):+.2f} ± {error:.2f}")
        yield f"| {arm} | {' | '.join(cells)} |"


def _mean(lines: Sequence[Line], key: str) -> float:
    return statistics.fmean(line[key] for line in lines)


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", type=Path)
    options = parser.parse_args()
    rows = [row for path in options.lines for row in path.read_text(encoding="utf-8").splitlines()]
    lines: list[Line] = [json.loads(row) for row in rows]
    for net, size in dict.fromkeys((line["net"], line["size"]) for line in lines):
        some = [line for line in lines if (line["net"], line["size"]) == (net, size)]
        print(f"\n{net} at {size} x {size}\n")
        print(*table(some), sep="\n")
        for yardstick in YARDSTICKS:
            print()
            print(*differences(some, yardstick), sep="\n")


if __name__ == "__main__":
    main()
