"""The tables of what `experiments.yardsticks.run` has written.

    python -m experiments.yardsticks.table yardsticks.jsonl [--growth NAME]

Scores are accuracies, or shares of the variance that are explained, times 100. Differences are growth less the
yardstick, seed by seed, with the standard error of their mean; growth is no worse where it is behind by at most two of
them. Where growth has several names, each has its tables.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from experiments.lines import Line, read
from experiments.tables import Mean, grid, mean_of, spread
from experiments.yardsticks.arms import SHARES
from experiments.yardsticks.problems import PROBLEMS

YARDSTICKS = ("fixed", "scratch", "random FLOPs", "random CPU", "optuna FLOPs", "optuna CPU", "trees")
ERRORS = 2.0  # standard errors that growth may be behind by
CLOSE = 0.001  # below a score that counts as that score: seeds differ by more
ALL = 0.97  # of growth's operations, which is as many: a training is of whole epochs
NONE = ""  # a cell without a value


def no_worse(found: Mean, errors: float = ERRORS) -> bool:
    """Whether growth is behind by no more than chance; of one seed whether it is not behind."""
    return found.mean >= (-errors * found.error if math.isfinite(found.error) else 0.0)


class Results:
    """The lines beside one growth.

    Args:
        lines: All lines.
        growth: The name of the growth.
    """

    def __init__(self, lines: Sequence[Line], growth: str) -> None:
        self.growth = growth
        own = [line for line in lines if line["of"] in (growth, "")]
        self.lines = {(line["problem"], line["arm"], line["seed"]): line for line in own}
        there = {line["problem"] for line in own if line["arm"] == growth}
        known = [name for name in PROBLEMS if name in there]
        self.problems = [*known, *sorted(there - set(known))]
        self.arms = [growth, *(arm for arm in YARDSTICKS if any(line["arm"] == arm for line in own))]

    def of(self, problem: str, arm: str) -> dict[int, Line]:
        """The lines of an arm by seed."""
        found = {key[2]: line for key, line in self.lines.items() if key[:2] == (problem, arm)}
        return dict(sorted(found.items()))

    def values(self, problem: str, arm: str, key: str) -> list[float]:
        """One number of each line of an arm, where it has it."""
        return [line[key] for line in self.of(problem, arm).values() if key in line]

    def paired(self, problem: str, arm: str, key: str = "score") -> list[tuple[float, float]]:
        """One number of growth and of a yardstick, of the seeds that both have."""
        ours, theirs = self.of(problem, self.growth), self.of(problem, arm)
        return [(ours[k][key], theirs[k][key]) for k in ours if k in theirs and key in theirs[k]]

    def difference(self, problem: str, arm: str) -> Mean | None:
        """Growth less a yardstick in points; None where they have no seed in common."""
        return mean_of([100 * (ours - theirs) for ours, theirs in self.paired(problem, arm)])

    def no_larger(self, problem: str, arm: str) -> bool:
        """Whether growth's net has, in the mean, at most as many parameters."""
        found = self.paired(problem, arm, "parameters")
        return statistics.fmean(ours - theirs for ours, theirs in found) <= 0 if found else False


def by_problem(results: Results, arms: Sequence[str], cell: Callable[[str, str], str]) -> Iterator[str]:
    """A table with a row for each problem and a column for each arm."""

    def rows() -> Iterator[Sequence[str]]:
        for problem in results.problems:
            seeds = len(results.of(problem, results.growth))
            yield [problem, str(seeds), *(cell(problem, arm) for arm in arms)]

    yield from grid(["problem", "seeds", *arms], rows())


def scores(results: Results) -> Iterator[str]:
    """Means and standard deviations of the test scores."""

    def cell(problem: str, arm: str) -> str:
        return spread([100 * value for value in results.values(problem, arm, "score")], 2)

    yield from by_problem(results, results.arms, cell)


def differences(results: Results) -> Iterator[str]:
    """Growth less each yardstick; bold where growth is behind by more than chance."""

    def cell(problem: str, arm: str) -> str:
        found = results.difference(problem, arm)
        if found is None:
            return NONE
        return found.told() if no_worse(found) else f"**{found.told()}**"

    yield from by_problem(results, results.arms[1:], cell)


def verdicts(results: Results) -> Iterator[str]:
    """On how many problems growth holds its own beside each yardstick; parts of one problem must all hold."""
    heads = ["beside", "problems", "no worse", "ahead", "within one error", "no worse, and no larger"]

    def rows() -> Iterator[Sequence[str]]:
        for arm in results.arms[1:]:
            groups = counted(results, arm)

            def sized(problem: str, found: Mean, arm: str = arm) -> bool:
                return no_worse(found) and results.no_larger(problem, arm)

            cells = [str(_holding(groups, verdict)) for verdict in VERDICTS]
            yield [arm, str(len(groups)), *cells, str(_holding(groups, sized)) if arm != "trees" else NONE]

    yield from grid(heads, rows())


def _holding(groups: Mapping[str, Mapping[str, Mean]], holds: Callable[[str, Mean], bool]) -> int:
    """How many groups something holds of, in all parts."""
    return sum(all(holds(*part) for part in parts.items()) for parts in groups.values())


VERDICTS: Sequence[Callable[[str, Mean], bool]] = (
    lambda problem, found: no_worse(found),
    lambda problem, found: found.mean > ERRORS * found.error,
    lambda problem, found: no_worse(found, 1.0),
)


def counted(results: Results, arm: str) -> Mapping[str, Mapping[str, Mean]]:
    """The differences to a yardstick by what the problems count as."""
    found: dict[str, dict[str, Mean]] = {}
    for problem in results.problems:
        difference = results.difference(problem, arm)
        if difference is not None:
            name = PROBLEMS[problem].counted if problem in PROBLEMS else problem
            found.setdefault(name, {})[problem] = difference
    return found


def sizes(results: Results) -> Iterator[str]:
    """Parameters: the mean, and for growth the smallest and the largest over seeds."""

    def cell(problem: str, arm: str) -> str:
        found = results.values(problem, arm, "parameters")
        if not found:
            return NONE
        mean = f"{statistics.fmean(found):.0f}"
        return f"{mean} ({min(found):.0f} to {max(found):.0f})" if arm == results.growth else mean

    yield from by_problem(results, [arm for arm in results.arms if arm != "trees"], cell)


def costs(results: Results) -> Iterator[str]:
    """Operations in units of 1e9, the least share of growth's over seeds where it is below all, and CPU seconds."""

    def cell(problem: str, arm: str) -> str:
        flops, cpu = results.values(problem, arm, "flops"), results.values(problem, arm, "cpu")
        seconds = f"{statistics.fmean(cpu):.1f} s" if cpu else NONE
        if not flops:
            return seconds
        share = min(theirs / ours for ours, theirs in results.paired(problem, arm, "flops"))
        least = f" (from {share:.2f})" if share < ALL else NONE
        return f"{statistics.fmean(flops) / 1e9:.3g}{least}, {seconds}"

    yield from by_problem(results, results.arms, cell)


# -- the time to the fixed net's score --------------------------------------------------------------------------------


def reached(growth: Line, score: float, unit: str) -> float:
    """What growth had spent when it first had this score, but for a tenth of a point; infinity if it never had it."""
    return next((each[unit] for each in growth["trace"] if each["score"] >= score - CLOSE), math.inf)


def of_length(runs: Sequence[Line], share: float | None) -> Line:
    """The fixed net that was trained so long; of None the shortest training that reaches the best of all scores."""
    if share is not None:
        return next(run for run in runs if run["share"] == share)
    best = max(run["score"] for run in runs)
    return next(run for run in runs if run["score"] >= best - CLOSE) | {"score": best}


def ratios(results: Results, problem: str, share: float | None, unit: str) -> list[float]:
    """For each seed what growth took to the score of the fixed net trained so long, over what that net took."""
    ours, theirs = results.of(problem, results.growth), results.of(problem, "fixed")
    found: list[float] = []
    for seed in ours.keys() & theirs.keys():
        run = of_length(theirs[seed]["runs"], share)
        found.append(reached(ours[seed], run["score"], unit) / run[unit])
    return found


def times(results: Results) -> Iterator[str]:
    """Medians of these ratios over seeds, and over problems in the last row."""
    lengths = (*SHARES, None)
    heads = ["problem", "seeds", "reached"]
    heads += [f"{unit}, {'best' if share is None else f'{share:g}'}" for unit in ("FLOPs", "CPU") for share in lengths]
    columns = [(unit, share) for unit in ("flops", "cpu") for share in lengths]

    def rows() -> Iterator[Sequence[str]]:
        medians: dict[tuple[str, float | None], list[float]] = {column: [] for column in columns}
        for problem in results.problems:
            found = {(unit, share): ratios(results, problem, share, unit) for unit, share in columns}
            whole = found["flops", 1]
            if not whole:
                continue
            for column, values in found.items():
                medians[column].append(statistics.median(values))
            held = sum(math.isfinite(value) for value in whole)
            yield [problem, str(len(whole)), str(held), *(_ratio(medians[column][-1]) for column in columns)]
        if any(medians.values()):
            yield ["median", NONE, NONE, *(_ratio(statistics.median(medians[column])) for column in columns)]

    yield from grid(heads, rows())


def found(results: Results) -> Iterator[str]:
    """What growth found with the first seed, and why it ended, by seed."""

    def rows() -> Iterator[Sequence[str]]:
        for problem in results.problems:
            lines = list(results.of(problem, results.growth).values())
            ended = ", ".join(line["ended"] for line in lines)
            branches = ", ".join(str(line["branch"]) for line in lines)
            yield [problem, lines[0]["found"], branches, ended]

    yield from grid(["problem", "found with the first seed", "branch", "ended"], rows())


def page(results: Results) -> Iterator[str]:
    """All tables of one growth, each under its heading."""
    parts: Mapping[str, Callable[[Results], Iterator[str]]] = {
        "Test scores, mean ± standard deviation": scores,
        "Growth less the yardstick, mean ± standard error": differences,
        "Problems on which growth is no worse": verdicts,
        "Parameters": sizes,
        "Operations in 1e9, CPU seconds": costs,
        "Growth's way to the fixed net's score, over what that net took": times,
        "What was found": found,
    }
    yield f"## {results.growth}"
    for heading, part in parts.items():
        yield f"\n### {heading}\n"
        yield from part(results)


def _ratio(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "never"


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", type=Path)
    parser.add_argument("--growth", help="the name of the growth; all of them by default")
    options = parser.parse_args()
    lines = [line for path in options.lines for line in read(path)]
    names = list(dict.fromkeys(line["of"] for line in lines if line["of"]))
    chosen = [name for name in names if options.growth in (None, name)]
    if not chosen:
        parser.error(f"--growth: there is no {options.growth!r}; there are {', '.join(map(repr, names)) or 'no lines'}")
    for name in chosen:
        print(*page(Results(lines, name)), sep="\n")
        print()


if __name__ == "__main__":
    main()
