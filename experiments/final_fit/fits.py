"""What the final fit should start from, and how long it should be: measured on held-out data, at equal lengths.

    python -m experiments.final_fit.fits --out fits.jsonl --problems wine digits --seeds 0-2
    python -m experiments.final_fit.table fits.jsonl

A network grows by one strategy and stays as it was before its final fit. Then the same fit, the one-cycle schedule of a
run, starts from its weights as they are (`warm`); from all matrices times .5 or .2 (`half`, `fifth`); from .4 of them
and .3 of new ones (`perturbed`, Ash and Adams 2020); and from new ones (`new`). Each is done at a quarter, a half, one
and two times the epochs that a run has by its number of samples. All train on what is trained on between growths, so
that the selection part and the test part say how good the fit is. A fit costs the same wherever it starts.

A line of JSON is written for each fit. What is there already is not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import growir
from experiments.lines import add, read
from experiments.yardsticks.problems import PROBLEMS, Arrays, Files, Problem
from experiments.yardsticks.run import lacks, seed_range
from growir.growth.config import parse_run
from growir.growth.data import check_data
from growir.growth.problem import Problem as Solved
from growir.growth.session import Session
from growir.network import Network
from growir.params import initial_arrays

SHARES = (0.25, 0.5, 1.0, 2.0)  # of the epochs that a run has
STRATEGIES = ("widen", "whole")
PLAIN = [name for name, problem in PROBLEMS.items() if not problem.maps]  # which no convolutions read
Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _matrices(change: Change) -> Change:
    """A change that leaves vectors, biases and scales, as they are."""
    return lambda weight, new: change(weight, new) if weight.ndim > 1 else weight


STARTS: Mapping[str, Change] = {
    "warm": lambda weight, new: weight,
    "half": _matrices(lambda weight, new: 0.5 * weight),
    "fifth": _matrices(lambda weight, new: 0.2 * weight),
    "perturbed": _matrices(lambda weight, new: 0.4 * weight + 0.3 * new),
    "new": lambda weight, new: new,
}


def grown(arrays: Arrays, task: str, strategy: str, seed: int) -> Network:
    """A network before its final fit."""
    schedule = {"name": "alternating", "fit": False}
    policy = {"name": "dag", "strategy": strategy}  # without trials, a third of the budget's worth of neurons at once
    return growir.grow(None, arrays, task=task, policy=policy, schedule=schedule, seed=seed, threads=1).grown


def session_of(network: Network, arrays: Arrays, task: str, seed: int) -> Session:
    """A session whose optimizer has the rate of a final fit."""
    train = {"learning_rate": 1e-2}
    settings = {"seed": seed, "threads": 1, "data": {"task": task}, "policy": {"name": "dag"}, "train": train}
    config = parse_run(settings, "final fit")
    return Session(network, Solved.of_loaded(check_data(arrays, config.data, "data", seed), None), config)


def fits(problem: Problem, strategy: str, seed: int, files: Files) -> Iterator[dict[str, Any]]:
    """What each fit of the network of one seed came to."""
    arrays, task = problem.draw(seed, files), "classification" if problem.classes else "regression"
    found = grown(arrays, task, strategy, seed)
    for start, change in STARTS.items():
        for share in SHARES:
            session = session_of(found, arrays, task, seed)
            drawn = initial_arrays(session.graph, seed)
            with torch.no_grad():
                for key, weight in session.learned.items():
                    weight.copy_(change(weight, torch.from_numpy(drawn[key])))
            usual, size = session.train_config.epochs_final, session.train_config.batch_size
            epochs, began = max(1, round((usual or 1) * share)), time.process_time()
            session.train({"epochs": epochs, "batch_size": size, "rate": {"name": "one_cycle"}}, 2)
            assert session.data.select is not None
            assert session.data.test is not None
            test = session.measure(session.data.test).metrics
            yield {
                "start": start,
                "share": share,
                "epochs": epochs,
                "parameters": found.graph.costs().parameters,
                "train": session.measure(session.data.train).metrics["loss"],
                "selection": session.measure(session.data.select).metrics["loss"],
                "test": test["loss"],
                "accuracy": test.get("accuracy"),
                "cpu": round(time.process_time() - began, 2),
            }


def main() -> None:
    """Run what is asked for and is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("fits.jsonl"))
    parser.add_argument("--problems", nargs="*", choices=PLAIN, default=PLAIN)
    parser.add_argument("--seeds", type=seed_range, default=(0, 2), help="the first and the last, as in 0-2")
    parser.add_argument("--mnist", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    low, high = options.seeds
    done = {tuple(line[key] for key in ("problem", "seed", "strategy")) for line in read(options.out)}
    for name in options.problems:
        if lacks(options, PROBLEMS[name]):
            continue
        for seed in range(low, high + 1):
            for strategy in STRATEGIES:
                if (name, seed, strategy) in done:
                    continue
                head = {"problem": name, "seed": seed, "strategy": strategy}
                add(options.out, [head | line for line in fits(PROBLEMS[name], strategy, seed, Files(options.mnist))])


if __name__ == "__main__":
    main()
