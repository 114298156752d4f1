"""Five tasks of two classes each, one after the other: what each method can do at the end, and how large it is.

    python -m experiments.continual.run --mnist mnist.npz --cifar cifar10.npz --out runs/continual.jsonl
    python -m experiments.continual.table runs/continual.jsonl

A line of JSON for each network, method and order; what is there is not run again. The seed is the order's number.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.continual.nets import NETS, graph_of
from experiments.lines import Line, add, read
from growir.continual import Experience, FitSettings, by_classes, learn
from growir.continual.learning import METHODS, first_of
from growir.continual.targets import Targets

TRAIN, TEST = 250, 200  # samples of each class, others with each order
EPOCHS: Mapping[str, int] = {"mlp": 10, "lenet": 10, "vgg16": 6}
TRAINING: Mapping[str, Any] = {"batch_size": 64, "learning_rate": 0.002}
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
Arm = tuple[str, Mapping[str, Any]]  # a method, and settings of its own
ARMS: Mapping[str, Arm] = {
    "grown": ("grown", {}),
    "firefly": ("firefly", {}),
    "grow only": ("grow_only", {}),
    "+ select": ("grow_only", {"select": True}),
    "+ sparse": ("grow_only", {"select": True, "sparse": True}),
    "columns": ("columns", {}),
    "cpg": ("cpg", {"releases": 2}),
    "separate": ("separate", {}),
    "fine-tuned": ("fine_tuned", {}),
    "ewc": ("ewc", {}),
    "joint": ("joint", {}),
}


def images(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Images and labels of an archive, with channels in front, of mean 0 and variance 1 over the training part."""
    with np.load(path) as archive:
        x, y, x_test, y_test = (archive[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    flat = [np.squeeze(np.asarray(each, np.float32)) for each in (x, x_test)]
    mean, std = float(flat[0].mean()), float(flat[0].std())
    maps = [(each - mean) / std for each in flat]
    maps = [np.moveaxis(each, -1, 1) if each.ndim == 4 else each[:, None] for each in maps]
    return maps[0], y.ravel().astype(np.int64), maps[1], y_test.ravel().astype(np.int64)


def some(y: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """So many samples of each class, by chance."""
    return np.concatenate([rng.permutation(np.flatnonzero(y == label))[:count] for label in np.unique(y)])


def tasks(path: Path, order: int) -> list[Experience]:
    """The tasks of one order, which draws the samples too."""
    rng = np.random.default_rng(order)
    x, y, x_test, y_test = images(path)
    train, test = some(y, TRAIN, rng), some(y_test, TEST, rng)
    pairs = [PAIRS[k] for k in rng.permutation(len(PAIRS))]
    return by_classes(x[train], y[train], pairs, test=(x_test[test], y_test[test]))


def run(path: Path, net: str, arm: str, order: int, more: Mapping[str, Any] | None = None) -> Line:
    """One sequence."""
    method, settings = ARMS[arm]
    experiences = tasks(path, order)
    inputs = next(iter(experiences[0].data.train.batches(2, None))).inputs
    assert isinstance(inputs, tuple), "they are arrays"
    shape = inputs[0].shape[1:]
    began, cpu = time.perf_counter(), time.process_time()
    graph = graph_of(net, (shape[0], shape[1], shape[2]))
    given = {**TRAINING, "epochs": EPOCHS[net], **settings, **(more or {})}
    if "target" in METHODS[method][1].model_fields:
        given = {"target": targets(str(path), net, order), **given}
    found = learn(graph, experiences, method=method, settings=given, seed=order)
    return {
        "accuracy": [[None if np.isnan(x) else float(x) for x in row] for row in found.accuracy],
        "untrained": [float(x) for x in found.untrained],
        "parameters": list(found.parameters),
        "bytes": list(found.sizes),
        "views": [sum(a.size for a in network.arrays.values()) for network in found.networks.values()],
        "channels": [sum(each.values()) for each in found.channels],
        "stages": [len(each) for each in found.selected],
        "cpu": round(time.process_time() - cpu, 2),
        "seconds": round(time.perf_counter() - began, 2),
    }


@functools.cache
def targets(path: str, net: str, order: int) -> tuple[float, ...]:
    """What each task is to reach, by GROWN's rule: the better of a network of its own and one that is fine-tuned."""
    experiences = tasks(Path(path), order)
    inputs = next(iter(experiences[0].data.train.batches(2, None))).inputs
    assert isinstance(inputs, tuple), "they are arrays"
    shape = inputs[0].shape[1:]
    graph = graph_of(net, (shape[0], shape[1], shape[2]))
    first, outputs = first_of(graph, experiences, order)
    found = Targets("best", first, outputs, FitSettings(**{**TRAINING, "epochs": EPOCHS[net]}), order)
    return tuple(max(found.of(k, each), 1e-6) for k, each in enumerate(experiences))


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, Path, str, str, int]]:
    """What is asked for, in order."""
    paths = {"mnist": options.mnist, "cifar": options.cifar}
    for order in options.orders:
        for data, path in paths.items():
            for net in options.nets if path else ():
                for arm in options.arms:
                    yield data, path, net, arm, order


def main(given: Sequence[str] | None = None) -> int:
    """Run what is asked for and is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/continual.jsonl"))
    parser.add_argument("--mnist", type=Path, default=os.environ.get("GROWIR_MNIST"))
    parser.add_argument("--cifar", type=Path, default=os.environ.get("GROWIR_CIFAR"))
    parser.add_argument("--nets", nargs="*", choices=list(NETS), default=list(NETS))
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--orders", nargs="*", type=int, default=[5, 6, 7])
    options = parser.parse_args(given)
    if not (options.mnist or options.cifar):
        parser.error("name an archive of images: --mnist or --cifar")
    torch.set_num_threads(1)
    known = {(line["data"], line["net"], line["arm"], line["order"]) for line in read(options.out)}
    for data, path, net, arm, order in wanted(options):
        if (data, net, arm, order) not in known:
            line = {"data": data, "net": net, "arm": arm, "order": order, **run(Path(path), net, arm, order)}
            add(options.out, [line])
            end = line["accuracy"][-1]
            print(f"{data} {net} {arm}, order {order}: {sum(end) / len(end):.3f}, {line['parameters'][-1]} parameters")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
