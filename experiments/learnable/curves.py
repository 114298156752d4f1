"""Learnable growth beside learnable sparse growth on one task: figure 2 of GROWN, on thin networks.

    python -m experiments.learnable.curves cifar10.npz --out runs/curves.jsonl     # a line for each epoch
    python -m experiments.learnable.curves --table experiments/learnable/curves.jsonl

The first five classes of CIFAR-10 are the task, 2500 images at 16 x 16 to train on as in the paper, and 2500 to test. A
thin VGG is trained for WARM epochs. Then ROUNDS times gates and weights learn together for an epoch, what is open
grows, and the network is trained for another epoch: each epoch is a point of the curves. Both arms have one seed
network, one order of batches and one penalty.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

import growir
from experiments.lines import Line, add, read
from experiments.networks import Images, cifar, vgg
from experiments.tables import grid, mean_of, paired, spread
from growir.data.parts import Data
from growir.growth.budget import Budget
from growir.growth.config import parse_run
from growir.growth.policies.learnable import Learnable, LearnableSettings
from growir.growth.problem import Problem
from growir.growth.session import Session
from growir.network import Network
from growir.passes import Sequence as Steps
from growir.passes import Update
from growir.rewrite import Pass

CLASSES, EACH, SIZE, BATCH = 5, 500, 16, 64
WIDTHS = (4, 4, 8, 8, 16, 16)
READ = 12  # images that hold one of each class, on average and more
WARM, ROUNDS = 2, 6
ARMS: Mapping[str, bool] = {"learnable": False, "learnable sparse": True}
HEADS = ("growth", "accuracy", "loss", "falls", "rises", "last loss less least", "growth ratio", "of open kernels")


def task(path: Path, part: str, each: int) -> Images:
    """The first images of each of the classes, and their labels."""
    x, y = cifar(path, part, 0, READ * each, SIZE)  # of ten classes
    keep = np.sort(np.concatenate([np.flatnonzero(y == k)[:each] for k in range(CLASSES)]))
    return x[keep], y[keep]


def session_of(data: Data, seed: int) -> Session:
    """A session that holds the seed network."""
    torch.manual_seed(seed)
    start: Network = growir.from_torch(vgg(WIDTHS), torch.zeros(2, 3, SIZE, SIZE))
    settings = {"policy": {"name": "learnable"}, "seed": seed, "threads": 1}
    settings |= {"train": {"batch_size": BATCH}, "budget": {"parameters": 10**6}}  # which no arm comes near
    config = parse_run(settings, "curves").started_from(given=True)
    return Session(start, Problem.of_data(data), config)


def grown(session: Session, policy: Learnable, key: int) -> int | None:
    """Grow by what is open; returns how many of the new numbers closed kernels leave at zero, None where nothing is."""
    budget = Budget(session.config.budget, session.graph)
    scores = policy.score(session, policy.propose(session, budget), key)
    chosen = policy.select(session, scores, budget)
    if not chosen:
        return None
    step = policy.build(session, chosen)
    session.grow(step)
    session.recalibrate(3, key)
    return zeros(step)


def zeros(step: Pass) -> int:
    """How many numbers of kernels and matrices a rewrite brings that are zero."""
    # Behind what the old weights have learned there is one sequence, which holds the numbers of all its widenings.
    grown = step.passes[1] if isinstance(step, Steps) and isinstance(step.passes[0], Update) else step
    return sum(int((array == 0).sum()) for array in grown.values.values() if array.ndim > 1)


def lines(data: Data, arm: str, seed: int, rounds: int = ROUNDS) -> Iterator[Line]:
    """The network after each epoch: test accuracy in per cent, test loss, its size beside the seed network's."""
    session, began = session_of(data, seed), time.process_time()
    steps = session.batch_count(session.data.train)
    assert steps is not None
    assert session.data.test is not None
    policy = Learnable(LearnableSettings(sparse=ARMS[arm], learn_steps=steps))
    first, closed = session.graph.costs().parameters, 0

    def told(epoch: int, what: str) -> Line:
        assert session.data.test is not None
        found, parameters = session.measure(session.data.test).metrics, session.graph.costs().parameters
        test = {"accuracy": 100 * found["accuracy"], "loss": found["loss"]}
        size = {"ratio": parameters / first, "open_ratio": (parameters - closed) / first}
        cpu = round(time.process_time() - began, 2)
        return {"arm": arm, "seed": seed, "epoch": epoch, "after": what, **test, **size, "cpu": cpu}

    for epoch in range(1, WARM + 1):
        session.train({"epochs": 1, "batch_size": BATCH}, epoch)
        yield told(epoch, "training")
    for turn in range(1, rounds + 1):
        more = grown(session, policy, turn)
        closed += more or 0
        yield told(WARM + 2 * turn - 1, "nothing" if more is None else "growth")
        session.train({"epochs": 1, "batch_size": BATCH}, WARM + turn)
        yield told(WARM + 2 * turn, "training")


def summary(curve: Sequence[Line]) -> dict[str, float]:
    """What the numbers of one run come to, epochs in order.

    *Falls* and *rises* are how far test accuracy falls, and test loss rises, from one epoch to the next: the mean over
    all epochs behind the warm ones, of which those where it does not count as 0.
    """
    pairs = list(itertools.pairwise(curve[WARM - 1 :]))
    last = curve[-1]
    return {
        "accuracy": last["accuracy"],
        "loss": last["loss"],
        "falls": statistics.fmean(max(0.0, a["accuracy"] - b["accuracy"]) for a, b in pairs),
        "rises": statistics.fmean(max(0.0, b["loss"] - a["loss"]) for a, b in pairs),
        "last loss less least": last["loss"] - min(line["loss"] for line in curve),
        "growth ratio": last["ratio"],
        "of open kernels": last["open_ratio"],
    }


def table(given: Sequence[Line]) -> Iterator[str]:
    """Means and standard deviations over seeds, and sparse growth less the other, paired, with standard errors."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for arm in ARMS:
        mine = [line for line in given if line["arm"] == arm]
        found[arm] = {seed: summary([each for each in mine if each["seed"] == seed]) for seed in _seeds(mine)}
    rows = [
        [arm, *(spread([each[name] for each in seeds.values()], _digits(name)) for name in HEADS[1:])]
        for arm, seeds in found.items()
    ]
    dense, sparse = (found[arm] for arm in ARMS)
    less: list[str] = []
    for name in HEADS[1:]:
        one, other = ({seed: each[name] for seed, each in seeds.items()} for seeds in (sparse, dense))
        difference = paired(one, other)
        less.append("" if difference is None else difference.told(_digits(name)))
    yield from grid(HEADS, [*rows, ["sparse less the other", *less]])


def curve_table(given: Sequence[Line]) -> Iterator[str]:
    """A row for each epoch: means over seeds of test accuracy, test loss and growth ratio of both."""
    heads = ["epoch", *(f"{name}, {arm}" for name in ("accuracy", "loss", "ratio") for arm in ARMS)]
    rows: list[list[str]] = []
    for epoch in sorted({line["epoch"] for line in given}):
        row = [str(epoch)]
        for name, digits in (("accuracy", 1), ("loss", 3), ("ratio", 2)):
            for arm in ARMS:
                mean = mean_of([line[name] for line in given if line["arm"] == arm and line["epoch"] == epoch])
                row.append("" if mean is None else f"{mean.mean:.{digits}f}")
        rows.append(row)
    yield from grid(heads, rows)


def _digits(name: str) -> int:
    return 3 if "los" in name or name == "rises" else 2


def _seeds(given: Sequence[Line]) -> list[int]:
    return sorted({line["seed"] for line in given})


def main(given: Sequence[str] | None = None) -> None:
    """Run what is asked for and is not there yet, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path("curves.jsonl"))
    parser.add_argument("--seeds", default="0-4", help="the first and the last")
    parser.add_argument("--table", type=Path, help="print the tables of these lines")
    options = parser.parse_args(given)
    if options.table is not None:
        found = read(options.table)
        print("\n".join([*table(found), "", *curve_table(found)]))
        return
    if options.archive is None:
        parser.error("give the archive of CIFAR-10, or --table with lines")
    torch.set_num_threads(1)
    low, high = map(int, options.seeds.split("-"))
    done = {(each["arm"], each["seed"]) for each in read(options.out)}
    data = Data.from_arrays(*task(options.archive, "train", EACH), test=task(options.archive, "test", EACH))
    for seed in range(low, high + 1):
        for arm in ARMS:
            if (arm, seed) not in done:
                add(options.out, list(lines(data, arm, seed)))
                print(json.dumps({"arm": arm, "seed": seed}), flush=True)


if __name__ == "__main__":
    main()
