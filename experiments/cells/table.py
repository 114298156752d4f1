"""The tables of a file of lines that `run` has written.

python -m experiments.cells.table experiments/cells/small.jsonl
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from experiments.cells.run import FOUND, PUBLISHED
from experiments.lines import Line
from experiments.tables import grid, mean_of, print_table, spread
from growir.cells import genotype

Seeds = dict[int, dict[str, Line]]  # lines by seed and cell


def by_seed(lines: Sequence[Line]) -> Seeds:
    """The lines of each seed, by cell."""
    found: Seeds = {}
    for line in lines:
        found.setdefault(line["seed"], {})[line["cell"]] = line
    return dict(sorted(found.items()))


def chance(cells: dict[str, Line]) -> list[Line]:
    """The lines of the random cells of a seed."""
    return [line for name, line in cells.items() if name.startswith("random ")]


def tables(lines: Sequence[Line]) -> Iterator[str]:
    """All of them."""
    seeds = by_seed(lines)
    yield "### The search"
    yield ""
    heads = ["seed", "operations in 1e9", "CPU seconds", "growths", "parameters at the end"]
    rows = [
        [str(seed), f"{s['flops'] / 1e9:,.0f}", f"{s['cpu_seconds']:.0f}", str(s["growths"]), f"{s['parameters']:,}"]
        for seed, cells in seeds.items()
        for s in [cells["search"]]
    ]
    yield from grid(heads, rows)
    yield ""
    yield "### Accuracy in percent after training from scratch, and parameters"
    yield ""
    heads = ["cell", *(f"seed {seed}" for seed in seeds), "mean ± deviation"]
    rows = []
    for name in dict.fromkeys(name for cells in seeds.values() for name in cells if name != "search"):
        mine = [cells.get(name) for cells in seeds.values()]
        each = ["" if m is None else f"{100 * m['accuracy']:.1f}, {m['parameters']:,}" for m in mine]
        rows.append([name, *each, spread([100 * m["accuracy"] for m in mine if m is not None])])
    best = [max(chance(cells), key=lambda line: line["accuracy"]) for cells in seeds.values() if chance(cells)]
    mean = [100 * fmean(line["accuracy"] for line in chance(cells)) for cells in seeds.values() if chance(cells)]
    rows.append(["random, mean", *(f"{value:.1f}" for value in mean), spread(mean)])
    tops = [100 * line["accuracy"] for line in best]
    rows.append(["random, best", *(f"{value:.1f}" for value in tops), spread(tops)])
    yield from grid(heads, rows)
    yield ""
    yield "### Found less others, in points, mean ± standard error over seeds"
    yield ""
    whole = {seed: cells for seed, cells in seeds.items() if FOUND in cells and chance(cells)}
    others = {
        f"{PUBLISHED}, scaled down": [cells[PUBLISHED]["accuracy"] for cells in whole.values() if PUBLISHED in cells],
        "random, mean": [fmean(line["accuracy"] for line in chance(cells)) for cells in whole.values()],
        "random, best": [max(line["accuracy"] for line in chance(cells)) for cells in whole.values()],
    }
    found = [cells[FOUND]["accuracy"] for cells in whole.values()]
    rows = []
    for name, values in others.items():
        difference = mean_of([100 * (a - b) for a, b in zip(found, values, strict=True)])
        rows.append([name, "" if difference is None else difference.told(1)])
    yield from grid(["less", "points"], rows)
    yield ""
    yield "### What was found"
    yield ""
    heads = ["seed", "cell", "nodes"]
    rows = []
    for seed, cells in seeds.items():
        cell = genotype(cells["search"]["genotype"])
        for kind in ("normal", "reduce"):
            nodes: dict[int, list[str]] = {}
            for edge in cell.edges(kind):
                nodes.setdefault(edge.target, []).append(f"{edge.operation} of {edge.source}")
            rows.append([str(seed), kind, "; ".join(f"{node}: {', '.join(each)}" for node, each in nodes.items())])
    yield from grid(heads, rows)
    spent = sum(float(line.get("cpu") or line.get("cpu_seconds") or 0) for line in lines)
    yield ""
    yield f"In all {spent / 60:.0f} CPU minutes."


if __name__ == "__main__":
    print_table(__doc__, tables, None)
