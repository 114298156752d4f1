"""Ten tasks of MNIST, each with the pixels in an order of its own: accuracy and memory against the number of tasks.

    python -m experiments.continual.permuted --mnist mnist.npz --out runs/permuted.jsonl
    python -m experiments.continual.permuted --table experiments/continual/permuted.jsonl

A perceptron of two layers of 32, 2000 images to train on and 2000 to test, others with each seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.continual.nets import mlp
from experiments.continual.run import images
from experiments.lines import Line, add, read
from experiments.tables import grid, spread
from growir import from_torch
from growir.continual import Experience, by_classes, learn

TASKS, SAMPLES, WIDTH = 10, 2000, 32
SETTINGS: Mapping[str, Any] = {"epochs": 8, "batch_size": 64, "learning_rate": 0.002}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "grown": {"target": "best"},
    "firefly": {"target": "best"},
    "grow_only": {"target": "best"},
    "separate": {},
    "fine_tuned": {},
    "ewc": {},
    "joint": {},
}
SHOWN = (1, 2, 5, 10)


def experiences(path: Path, seed: int) -> list[Experience]:
    """The tasks of a seed; the first is MNIST as it is."""
    rng = np.random.default_rng([seed, 10])
    x, y, x_test, y_test = images(path)
    train, test = rng.permutation(len(x))[:SAMPLES], rng.permutation(len(x_test))[:SAMPLES]
    found: list[Experience] = []
    for k in range(TASKS):
        order = rng.permutation(x[0].size) if k else np.arange(x[0].size)
        parts = [each.reshape(len(each), -1)[:, order].reshape(-1, 1, 28, 28) for each in (x[train], x_test[test])]
        found += by_classes(parts[0], y[train], [range(10)], test=(parts[1], y_test[test]), names=[f"order {k}"])
    return found


def run(path: Path, method: str, seed: int) -> Line:
    """One sequence."""
    graph = from_torch(mlp((1, 28, 28), 10, (WIDTH, WIDTH)), torch.zeros(2, 1, 28, 28)).graph
    settings = {**SETTINGS, **METHODS[method]}
    found = learn(graph, experiences(path, seed), method=method, settings=settings, seed=seed)
    means = [float(np.mean(found.accuracy[t, : t + 1])) for t in range(TASKS)]
    return {
        "method": method,
        "seed": seed,
        "accuracy": means,
        "learned": [float(x) for x in np.diag(found.accuracy)],
        "bytes": list(found.sizes),
        "parameters": list(found.parameters),
    }


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Accuracy of all tasks so far, and what is kept, after so many tasks."""
    methods = list(dict.fromkeys(line["method"] for line in lines))
    heads = ["method", *(f"accuracy, {t}" for t in SHOWN), *(f"bytes, {t}" for t in SHOWN)]
    rows: list[list[str]] = []
    for method in methods:
        mine = [line for line in lines if line["method"] == method]
        right = [spread([100 * line["accuracy"][t - 1] for line in mine]) for t in SHOWN]
        kept = [f"{np.mean([line['bytes'][t - 1] for line in mine]):,.0f}" for t in SHOWN]
        rows.append([method, *right, *kept])
    yield from grid(heads, rows)


def main(given: Sequence[str] | None = None) -> None:
    """Run what is not there yet, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/permuted.jsonl"))
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args(given)
    if options.table is not None:
        print("\n".join(table(read(options.table))))
        return
    if options.mnist is None:
        parser.error("name the archive of MNIST: --mnist")
    torch.set_num_threads(1)
    known = {(line["method"], line["seed"]) for line in read(options.out)}
    for seed in options.seeds:
        for method in METHODS:
            if (method, seed) not in known:
                line = run(options.mnist, method, seed)
                add(options.out, [line])
                print(f"{method}, seed {seed}: {line['accuracy'][-1]:.3f}, {line['bytes'][-1]} bytes", flush=True)


if __name__ == "__main__":
    main()
