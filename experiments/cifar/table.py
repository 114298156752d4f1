"""Tables of what `experiments.cifar.compare` has written.

    python -m experiments.cifar.table compare.jsonl --figure compare.svg

For each network a table of accuracies with standard deviations over seeds, and one of differences, seed by seed, to
growth by random new units and to the evenly widened network from scratch, with their standard errors. The figure shows
the latter for re-warmed rates, of the first network.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from experiments.lines import Line, read
from experiments.tables import Mean, grid, paired, spread
from growir.plot import Axis, linear_axis
from growir.render.axes import ABOVE, BELOW, HEAD, RIGHT, Panel, chart, marker

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

    def rows() -> Iterator[Sequence[object]]:
        for arm in dict.fromkeys(sorted((line["arm"] for line in lines), key=lambda arm: ("scratch" in arm, arm))):
            mine = [line for line in lines if line["arm"] == arm]
            cells = [arm, str(len(mine)), f"{_mean(mine, 'parameters'):.0f}", f"{_mean(mine, 'macs') / 1e3:.0f} k"]
            cells.append(f"{statistics.fmean(ending(line, WAYS[0])['teraflop'] for line in mine):.3f}")
            cells.append(f"{_mean(mine, 'cpu_growing'):.1f}")
            yield [*cells, *(spread(list(accuracies(lines, arm, way).values())) for way in WAYS)]

    yield from grid(heads, rows())


def difference(lines: Sequence[Line], arm: str, yardstick: str, way: tuple[str, str]) -> Mean | None:
    """One less another, seed by seed; None of fewer than two seeds, which have no error."""
    found = paired(accuracies(lines, arm, way), accuracies(lines, yardstick, way))
    return found if found is not None and math.isfinite(found.error) else None


def differences(lines: Sequence[Line], yardstick: str) -> Iterator[str]:
    """Of each policy to another, seed by seed."""

    def rows() -> Iterator[Sequence[str]]:
        for arm in dict.fromkeys(line["arm"] for line in lines if line["arm"] != yardstick):
            gaps = [difference(lines, arm, yardstick, way) for way in WAYS]
            yield [arm, *("" if gap is None else gap.told() for gap in gaps)]

    yield from grid([f"less {yardstick}", *(f"equal {equal}, {rate}" for equal, rate in WAYS)], rows())


LOOKS = {"epochs": ("edge", "circle", False), "operations": ("selection", "square", True)}
NAMES, WIDTH, ROW = 250, 420, 24  # of the picture: room for names, the plot's width, a row's height


def figure(lines: Sequence[Line], yardstick: str = "even") -> str:
    """The differences to a yardstick as SVG, the best at equal operations on top, with standard errors."""
    rows: dict[str, dict[str, Mean]] = {}
    for arm in dict.fromkeys(line["arm"] for line in lines if line["arm"] != yardstick):
        found = {equal: difference(lines, arm, yardstick, (equal, "rewarmed")) for equal in LOOKS}
        if all(found.values()):
            rows[arm] = {equal: each for equal, each in found.items() if each is not None}
    arms = sorted(rows, key=lambda arm: rows[arm]["operations"].mean)
    ends = [mean + side * error for row in rows.values() for mean, error in row.values() for side in (-1, 1)]
    y = Axis(-0.6, len(arms) - 0.4, tuple((float(k), arm) for k, arm in enumerate(arms)))
    panel = Panel(NAMES, HEAD + ABOVE, WIDTH, ROW * len(arms), linear_axis([0.0, *ends]), y)
    body = panel.frame("", "points of accuracy less the evenly widened network from scratch", "")
    top, bottom = panel.at(0, y.high), panel.at(0, y.low)
    body.append(f'<path class="guide line" d="M{top[0]} {top[1]}V{bottom[1]}"/>')
    for k, arm in enumerate(arms):
        for (equal, (series, shape, hollow)), shift in zip(LOOKS.items(), (0.16, -0.16), strict=True):
            mean, error = rows[arm][equal]
            (low, height), (high, _) = panel.at(mean - error, k + shift), panel.at(mean + error, k + shift)
            body.append(f'<path class="{series} line" d="M{low} {height}H{high}"/>')
            told = f"{arm}, equal {equal}: {mean:+.2f} ± {error:.2f}"
            body.append(marker(panel.at(mean, k + shift), series, shape, hollow=hollow, text=told))
    legend = [(marker((0, 0), s, shape, hollow=h), f"equal {equal}") for equal, (s, shape, h) in LOOKS.items()]
    size = (NAMES + WIDTH + RIGHT, HEAD + ABOVE + ROW * len(arms) + BELOW)
    return chart("growth of a thin network on CIFAR-10", "Differences of accuracy by policy.", legend, body, size)


def _mean(lines: Sequence[Line], key: str) -> float:
    return statistics.fmean(line[key] for line in lines)


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", type=Path)
    parser.add_argument("--figure", type=Path, help="an SVG file")
    options = parser.parse_args()
    lines = [line for path in options.lines for line in read(path)]
    for net, size in dict.fromkeys((line["net"], line["size"]) for line in lines):
        some = [line for line in lines if (line["net"], line["size"]) == (net, size)]
        if options.figure and some[0] is lines[0]:
            options.figure.write_text(figure(some), encoding="utf-8")
        print(f"\n{net} at {size} x {size}\n")
        print(*table(some), sep="\n")
        for yardstick in YARDSTICKS:
            print()
            print(*differences(some, yardstick), sep="\n")


if __name__ == "__main__":
    main()
