"""When to grow, how much at once, and with which rate to go on: a thin VGG on CIFAR-10, for equal operations.

    python -m experiments.timing.when cifar10.npz --out when.jsonl --seeds 0-4
    python -m experiments.timing.table when.jsonl

A network trains at a constant rate, grows by random new units to 3.24 times its parameters, at once or in equal
factors, and ends in three ways. All arms take the operations of eight epochs of the evenly widened network, so that
whoever is small for longer sees more epochs. When a growth happens is said as a share of these operations. The ends are

    falling     a cosine from the rate as it is to 0
    rewarmed    a cosine from twice that rate, which a quarter of the rest leads up to
    stable      the rate as it is, and a straight line to 0 in the last fifth of all operations (Hu et al. 2024)

A line of JSON is written for each seed and arm. What is there already is not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cifar.compare import BATCH, EPOCHS, FACTOR, GROWTHS, RATE, WIDTHS, even, grown, network_of, session_of
from experiments.lines import add, read
from experiments.networks import cifar
from growir.data.parts import Data
from growir.growth.rates import OWN
from growir.growth.session import Session

NET, SIZE = "vgg", 16
WHOLE = FACTOR**GROWTHS  # by how much all grow in the end
DECAY = 0.2  # of all operations
ARMS: Mapping[str, tuple[float, ...]] = {
    "once at .1": (0.1,),
    "once at .3": (0.3,),
    "once at .5": (0.5,),
    "once at .8": (0.8,),
    "2 up to .5": (0.25, 0.5),
    "4 up to .5": (0.125, 0.25, 0.375, 0.5),
    "8 up to .5": tuple(k / 16 for k in range(1, 9)),
}
EVEN = "even"
ENDINGS = ("falling", "rewarmed", "stable")


def steps_for(session: Session, operations: float) -> int:
    """Steps of the optimizer that take so many operations, at least one."""
    return max(1, round(operations / (6.0 * session.graph.costs().macs * BATCH)))


def ended(session: Session, left: float, whole: float, how: str, seed: int) -> dict[str, Any]:
    """A fork that is trained to the end in one of the ways.

    Args:
        session: As it is after its last growth.
        left: Operations that are left.
        whole: All operations.
        how: Which way.
        seed: Of the draws.
    """
    end, steps = session.fork(), steps_for(session, left)
    rate: dict[str, object] = {"name": "cosine"}
    if how == "rewarmed":
        rate["warmup"] = 0.25
        for group in end.optimizer.param_groups:
            group["lr"] = 2 * RATE
            group.pop(OWN, None)
    elif how == "stable":
        rate = {"name": "wsd", "decay": min(steps, steps_for(session, DECAY * whole))}
    began = time.process_time()
    fitted = end.train({"steps": steps, "batch_size": BATCH, "rate": rate}, seed)
    cpu = time.process_time() - began
    end.recalibrate(2)
    assert session.data.test is not None, "the data has a test part"
    test = end.measure(session.data.test).metrics
    found = {"accuracy": 100 * test["accuracy"], "test_loss": test["loss"], "train_loss": fitted.loss}
    return {"rate": how, "steps": steps, **found, "cpu": round(cpu, 2)}


def run(data: Data, seed: int, arm: str, whole: float) -> dict[str, Any]:
    """One line.

    Args:
        data: The parts.
        seed: Of the network and of all draws.
        arm: When it grows, by its name.
        whole: All operations of training.
    """
    shares = ARMS.get(arm, ())
    network = network_of(NET, WIDTHS[NET] if shares else even(NET), SIZE, seed)
    session, first = session_of(network, data, seed), network.graph.costs().parameters
    done, began, growing = 0.0, time.process_time(), 0.0
    for turn, share in enumerate(shares):
        steps = steps_for(session, (share - done) * whole)
        session.train({"steps": steps, "batch_size": BATCH}, seed, turn)
        done = share
        since = time.process_time()
        most = first * WHOLE ** ((turn + 1) / len(shares))
        grown(session, "random new units", round(most), turn)
        growing += time.process_time() - since
    cpu, cost = time.process_time() - began, session.graph.costs()
    return {
        "seed": seed,
        "arm": arm,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "cpu_before": round(cpu, 2),
        "cpu_growing": round(growing, 2),
        "endings": [ended(session, (1 - done) * whole, whole, how, seed) for how in ENDINGS],
    }


def main(given: Sequence[str] | None = None) -> None:
    """Run what is asked for and is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("when.jsonl"))
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--tested", type=int, default=10_000)
    parser.add_argument("--seeds", default="0-4", help="the first and the last")
    parser.add_argument("--arms", nargs="*", choices=[*ARMS, EVEN], default=[*ARMS, EVEN])
    options = parser.parse_args(given)
    low, high = map(int, options.seeds.split("-"))
    done = {(line["seed"], line["arm"]) for line in read(options.out)}
    train = cifar(options.data, "train", 0, options.samples, SIZE)
    select = cifar(options.data, "train", options.samples, 600, SIZE)
    test = cifar(options.data, "test", 0, options.tested, SIZE)
    data = Data.from_arrays(*train, select=select, test=test)
    whole = 6.0 * network_of(NET, even(NET), SIZE, 0).graph.costs().macs * options.samples * EPOCHS
    for seed in range(low, high + 1):
        for arm in options.arms:
            if (seed, arm) in done:
                continue
            add(options.out, [run(data, seed, arm, whole)])


if __name__ == "__main__":
    main()
