"""What fresh entries of optimizer state start with: losses after growth in mid-training, beside a new optimizer's.

Each row is a problem at a number of steps after its growth. Every run is split at the growth: all variants go on from
the same weights with the same batches, so what is compared is their difference seed by seed. Losses are means over five
measurements in the last tenth of the steps. `python -m benchmarks fresh` takes about six minutes of one core.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from benchmarks._fresh import PROBLEMS, SPLITS, Problem, Run, started
from growir import live
from growir.moments import CopyState, FreshState

SEEDS = range(10, 15)  # `SMALL` in growir/moments.py was chosen on seeds 0 to 2
CARRIED: tuple[FreshState, ...] = ("small", "mean")
VARIANTS = ("new optimizer", *CARRIED, "not grown")
# Of splits: what added copies start with. Each table compares its second column with a new optimizer.
COPIES: dict[str, CopyState] = {"copies fresh": "fresh", "copies carried": "carried"}
OF_COPIES = ("new optimizer", *COPIES, "not grown")


class Measured(NamedTuple):
    """The losses of one variant of one run, by the steps after growth."""

    problem: str
    seed: int
    variant: str
    losses: dict[int, float]


def measure(problem: Problem, seed: int, variants: Sequence[str] = VARIANTS) -> list[Measured]:
    """Every variant of one run."""
    run = started(problem, seed)
    return [Measured(problem.name, seed, name, losses(grown(problem, run, seed, name), problem)) for name in variants]


def grown(problem: Problem, run: Run, seed: int, variant: str) -> Run:
    run = run.copied()
    fresh: FreshState = next((law for law in CARRIED if law == variant), "small")
    if variant != "not grown":
        copies = COPIES.get(variant, "carried")
        run.module, _ = live.grow(run.module, problem.growth(seed), run.optimizer, fresh=fresh, copies=copies)
    if variant == "new optimizer":
        run.optimizer = problem.optimizer(run.module.parameters())
    return run


def losses(run: Run, problem: Problem) -> dict[int, float]:
    found: dict[int, float] = {}
    done = 0
    for steps in problem.after:
        gap = max(steps // 50, 1)
        run.train(steps - done - 4 * gap)
        points = [run.measured()]
        for _ in range(4):
            run.train(gap)
            points.append(run.measured())
        found[steps], done = statistics.mean(points), steps
    return found


def rows(measured: Iterable[Measured]) -> list[dict[str, Any]]:
    """A row for each problem and number of steps: mean losses, and by how much a law is ahead of a new optimizer.

    The law is "small", and of splits "copies fresh".
    """
    table: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    for found in measured:
        for steps, loss in found.losses.items():
            table.setdefault((found.problem, steps), {}).setdefault(found.variant, {})[found.seed] = loss
    out: list[dict[str, Any]] = []
    for (problem, steps), by_variant in table.items():
        law = "small" if "small" in by_variant else "copies fresh"
        ours, other = by_variant[law], by_variant["new optimizer"]
        gains = [100 * math.log(other[seed] / ours[seed]) for seed in ours]
        gain, error = statistics.mean(gains), statistics.stdev(gains) / math.sqrt(len(gains))
        means = {name: statistics.mean(losses.values()) for name, losses in by_variant.items()}
        ahead = {f"{law} ahead of new, % (log)": f"{gain:+.1f} +- {error:.1f}", "behind": bool(gain < -error)}
        out.append({"problem": problem, "steps after": steps, **means, **ahead})
    return out


def run() -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small only wait for each other on more
    try:
        found = [each for problem in PROBLEMS for seed in SEEDS for each in measure(problem, seed)]
        found += [each for problem in SPLITS for seed in SEEDS for each in measure(problem, seed, OF_COPIES)]
    finally:
        torch.set_num_threads(threads)
    return {"rows": rows(found), "runs": [each._asdict() for each in found], "torch": torch.__version__, "threads": 1}
