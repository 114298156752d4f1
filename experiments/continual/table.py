"""The tables of a file of lines that `run` has written.

python -m experiments.continual.table experiments/continual/five_tasks.jsonl
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

from experiments.continual.run import ARMS
from experiments.lines import Line
from experiments.tables import grid, mean_of, paired, print_table, spread

Key = tuple[str, str]  # data and network
KEPT = {
    "parameters": "Numbers kept at the end",
    "bytes": "Bytes kept at the end, masks and what else protects among them",
}
ABLATION = ("grow only", "+ select", "+ sparse", "grown")
AGAINST = ("grow only", "fine-tuned", "columns", "cpg", "separate", "ewc", "joint")


def end(line: Line) -> float:
    """Mean accuracy over tasks at the end, in percent."""
    return 100 * fmean(line["accuracy"][-1])


def when_learned(line: Line) -> float:
    """Mean accuracy of each task when it was learned, in percent."""
    return 100 * fmean(row[t] for t, row in enumerate(line["accuracy"]))


def of(lines: Sequence[Line], key: Key, arm: str) -> dict[int, Line]:
    """The lines of an arm, by order."""
    return {line["order"]: line for line in lines if (line["data"], line["net"], line["arm"]) == (*key, arm)}


def tables(lines: Sequence[Line]) -> Iterator[str]:
    """All of them."""
    keys = list(dict.fromkeys((line["data"], line["net"]) for line in lines))
    arms = [arm for arm in ARMS if any(line["arm"] == arm for line in lines)]
    heads = ["arm", *(" ".join(key) for key in keys)]
    yield "### Accuracy at the end, mean over five tasks, mean ± standard deviation over orders"
    yield ""
    yield from grid(heads, _rows(lines, keys, arms, lambda found: spread([end(line) for line in found])))
    yield ""
    yield "### Forgetting: accuracy when learned less at the end, in points"
    yield ""
    yield from grid(
        heads, _rows(lines, keys, arms, lambda found: f"{fmean(when_learned(x) - end(x) for x in found):.1f}")
    )
    yield ""
    for kept, title in KEPT.items():
        yield f"### {title}, over those of one network"
        yield ""
        yield from grid(heads, [[arm, *(_share(lines, key, arm, kept) for key in keys)] for arm in arms])
        yield ""
    for arm in ("grown", "firefly"):
        if arm in arms:
            yield f"### {arm} less others at the end, in points, mean ± standard error over orders"
            yield ""
            yield from _against(lines, keys, arm, [each for each in AGAINST if each in arms])
            yield ""
    yield "### The parts of GROWN, each with those above it: accuracy at the end, and numbers kept over one network"
    yield ""
    yield from grid(heads, [[arm, *(_part(lines, key, arm) for key in keys)] for arm in ABLATION])
    yield ""
    yield "### CPU seconds of a sequence"
    yield ""
    yield from grid(heads, _rows(lines, keys, arms, lambda found: f"{fmean(x['cpu'] for x in found):.0f}"))
    total = sum(line["cpu"] for line in lines)
    yield ""
    yield f"In all {len(lines)} sequences, {total / 60:.0f} CPU minutes."


def _rows(
    lines: Sequence[Line], keys: Sequence[Key], arms: Sequence[str], told: Callable[[Sequence[Line]], str]
) -> Iterator[list[str]]:
    """Of each arm what is told of its lines."""
    for arm in arms:
        found = [list(of(lines, key, arm).values()) for key in keys]
        yield [arm, *(told(each) if each else "" for each in found)]


def _share(lines: Sequence[Line], key: Key, arm: str, kept: str) -> str:
    """What an arm keeps at the end, over what one network does."""
    found = of(lines, key, arm).values()
    if not found:
        return ""
    one = fmean(line[kept][0] for line in of(lines, key, "separate").values())
    return f"{fmean(line[kept][-1] for line in found) / one:.2f}"


def _against(lines: Sequence[Line], keys: Sequence[Key], arm: str, others: Sequence[str]) -> Iterator[str]:
    """Paired differences by order; the last column has all networks and orders together."""
    rows: list[list[str]] = []
    for other in others:
        both = {key: (ends(lines, key, arm), ends(lines, key, other)) for key in keys}
        cells = [paired(*each) for each in both.values()]
        every = [one[k] - two[k] for one, two in both.values() for k in one if k in two]
        whole = mean_of(every)
        rows.append([other, *("" if cell is None else cell.told() for cell in (*cells, whole))])
    yield from grid(["less", *(" ".join(key) for key in keys), "all"], rows)


def ends(lines: Sequence[Line], key: Key, arm: str) -> Mapping[int, float]:
    """What an arm has at the end, by order."""
    return {order: end(line) for order, line in of(lines, key, arm).items()}


def _part(lines: Sequence[Line], key: Key, arm: str) -> str:
    found = list(of(lines, key, arm).values())
    if not found:
        return ""
    return f"{fmean(map(end, found)):.1f}, {_share(lines, key, arm, 'parameters')}"


def main(given: Sequence[str] | None = None) -> None:
    """Print the tables."""
    print_table(__doc__, tables, given)


if __name__ == "__main__":
    main()
