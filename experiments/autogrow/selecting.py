"""What it is worth to select on the test images, as the authors of AutoGrow do.

    python -m experiments.autogrow.selecting --mnist mnist.npz --cifar cifar10.npz --out selecting.jsonl --seeds 0-4
    python -m experiments.autogrow.selecting --table selecting.jsonl

Period 3 of `depths.py`, both ways. *Held out*: 600 images train and 300 others say when stages are closed. *Test*: all
900 train, and SELECTING of the test images say it. Either network then has a fit on the 900. Each is tested on the test
images that selected and on all others. What selecting on them is worth beyond more images to train on is how much
further ahead the second is on the ones than on the others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import growir
from experiments.autogrow import depths
from experiments.lines import Line, add, read
from experiments.tables import grid, mean_of, spread
from growir.data.parts import Data
from growir.families import family_of, network
from growir.growth.config import parse_run
from growir.growth.problem import Problem
from growir.growth.schedule import Train
from growir.growth.session import Session
from growir.growth.training import Keeping, train_final
from growir.network import Network

SELECTING = 1000
ARMS = ("held out", "test")
PARTS = ("selecting", "others")

Part = tuple[Any, Any]


def parts(archive: Path, seed: int) -> dict[str, Part]:
    """Images that train, that are held out, and the test images that select and the others; scaled by the first."""
    (x, y), (x_test, y_test) = depths.images(archive, "train"), depths.images(archive, "test")
    order = np.random.default_rng([seed, 7]).permutation(len(x))
    tests = np.random.default_rng([seed, 9]).permutation(len(x_test))
    train, held = order[: depths.SAMPLES], order[depths.SAMPLES : depths.SAMPLES + depths.SELECTS]
    mean, std = x[train].mean(), x[train].std()
    found = {"train": (x[train], y[train]), "held": (x[held], y[held])}
    for name, some in {"selecting": tests[:SELECTING], "others": tests[SELECTING:]}.items():
        found[name] = x_test[some], y_test[some]
    return {name: ((images - mean) / std, labels) for name, (images, labels) in found.items()}


def line(archive: Path, arm: str, seed: int) -> Line:
    """The network that one way finds, after its fit, on both parts of the test images."""
    of = parts(archive, seed)
    every = tuple(np.concatenate([of["train"][k], of["held"][k]]) for k in (0, 1))
    train, select = (of["train"], of["held"]) if arm == "held out" else (every, of["selecting"])
    given = depths.settings(depths.Arm("Basic3ResNet"))
    given["schedule"] = {**given["schedule"], "fit": False}
    start = Network.init(network("Basic3ResNet", train[0].shape[1:], 10, width=depths.WIDTH), seed)
    grown = growir.grow(start, Data.from_arrays(*train, select=select), seed=seed, threads=1, **given)
    config = parse_run({**given, "schedule": {"epochs": 1}, "seed": seed, "threads": 1}, "fit")
    session = Session(grown.network, Problem.of_data(Data.from_arrays(*every)), config.started_from(given=True))
    train_final(session, Train(fit="final", epochs=depths.FITTED), Keeping(), 1.0)
    tested = {part: Data.from_arrays(*of[part]).train for part in PARTS}
    accuracy = {part: 100 * session.measure(source).metrics["accuracy"] for part, source in tested.items()}
    return {"found": str(family_of(session.graph)), "growths": grown.summary["steps"], "accuracy": accuracy}


def table(given: Sequence[Line]) -> Iterator[str]:
    """A row for each way, and one for how much further ahead selecting on the test images is on these."""
    rows: list[list[str]] = []
    for data in dict.fromkeys(line["data"] for line in given):
        of = {(line["arm"], line["seed"]): line["accuracy"] for line in given if line["data"] == data}
        for arm in ARMS:
            told = [spread([found[part] for (name, _), found in of.items() if name == arm], 2) for part in PARTS]
            depth = [str(line["growths"]) for line in given if (line["data"], line["arm"]) == (data, arm)]
            rows.append([data, arm, ", ".join(depth), *told])
        seeds = [seed for name, seed in of if name == "test" and ("held out", seed) in of]
        ahead = {part: [of["test", s][part] - of["held out", s][part] for s in seeds] for part in PARTS}
        further = mean_of([a - b for a, b in zip(*ahead.values(), strict=True)])
        told = [found.told() if (found := mean_of(ahead[part])) else "" for part in PARTS]
        rows.append([data, "ahead", "", *told])
        rows.append([data, "further ahead on those that selected", "", further.told() if further else "", ""])
    yield from grid(("data", "selected by", "growths", "test images that selected", "others"), rows)


def main(given: Sequence[str] | None = None) -> None:
    """Run what is asked for and is not there yet, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--out", type=Path, default=Path("selecting.jsonl"))
    parser.add_argument("--seeds", default="0-4", help="the first and the last")
    parser.add_argument("--table", type=Path, help="print the table of these lines")
    options = parser.parse_args(given)
    if options.table is not None:
        print("\n".join(table(read(options.table))))
        return
    torch.set_num_threads(1)
    low, high = map(int, options.seeds.split("-"))
    done = {(each["data"], each["arm"], each["seed"]) for each in read(options.out)}
    for seed in range(low, high + 1):
        for name, archive in (("mnist", options.mnist), ("cifar", options.cifar)):
            for arm in ARMS if archive is not None else ():
                if (name, arm, seed) not in done:
                    head = {"data": name, "arm": arm, "seed": seed}
                    add(options.out, [{**head, **line(archive, arm, seed)}])
                    print(json.dumps(head), flush=True)


if __name__ == "__main__":
    main()
