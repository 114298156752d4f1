"""Growth of thin networks on CIFAR-10: what each policy ends at, for the same parameters, epochs and operations.

    python -m experiments.cifar.compare cifar10.npz --out compare.jsonl --net vgg --seeds 0-7
    python -m experiments.cifar.table compare.jsonl

A thin network trains for 2 epochs, grows to 1.8 times its parameters, trains for 2 more, grows by as much again, and
then ends in four ways: in as many epochs as all have (4), or in as many as make the operations of all training equal
to 8 epochs of the evenly widened network; and with a rate that falls from where it was (cosine), or that first rises
to twice as much (re-warmed). Networks from scratch, of the architectures that were found and of the even one, have the
same phases without growth. A policy is asked again and again until its growth is full, so that all are of one size.
What growing takes is told by itself: it is so many batches whatever the data, and here an epoch is only 79 of them.

The full setting is --size 32 --samples 49000 --device cuda.

A line of JSON is written for each network, seed and policy. What is there already is not run again.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import growir
from experiments.lines import add, read
from experiments.networks import NETS, Widths, cifar
from growir.data.parts import Data
from growir.data.shuffling import generator
from growir.graph import Graph
from growir.growth.budget import Budget, BudgetConfig
from growir.growth.config import parse_run
from growir.growth.policies.firefly import Firefly, FireflySettings
from growir.growth.policy import Candidate, Policy, Score
from growir.growth.problem import Problem
from growir.growth.rates import OWN
from growir.growth.registry import policy_class, settings_class
from growir.growth.session import Session
from growir.network import Network

WIDTHS = {
    "vgg": (6,) * 6,
    "resnet": (4, 6, 8),
    "seresnet": (4, 6, 8),
    "mobilenet": (8, 12, 12, 16, 16, 20),
}
FACTOR, FIRST, GROWTHS, LAST, BATCH, RATE = 1.8, 2, 2, 4, 64, 0.05
EPOCHS = FIRST * GROWTHS + LAST
ROUNDS = 40
ARMS: dict[str, dict[str, Any]] = {
    "firefly": {"name": "firefly"},
    "random among learned": {"name": "firefly"},
    "random new units": {"name": "random", "spaces": 0.5, "by": 0.1},
    "gradmax": {"name": "gradmax"},
    "gauss_newton": {"name": "gauss_newton", "prune": False, "price": 0.0, "verify": False},
    "splitting_descent": {"name": "splitting_descent"},
    "net2net": {"name": "net2net", "spaces": 1.0, "by": 0.1},
    "tiny": {"name": "tiny"},
    "pairs": {"name": "random", "spaces": 0.5, "by": 0.1, "start": "pairs"},
    "variance transfer": {"name": "random", "spaces": 0.5, "by": 0.1, "start": "variance"},
    # Five epochs of the network as it is are about what Firefly's growths take here.
    "nash": {"name": "nash", "compute": 5.0, "child_steps": 30, "fill": "budget"},
}
ARMS |= {  # layers alone
    "firefly, depth": {"name": "firefly", "move": "depth"},
    "nash, deeper": {"name": "nash", "compute": 5.0, "child_steps": 30, "fill": "none", "move": "deeper", "moves": 2},
    "net2net, deeper": {"name": "net2net", "move": "deeper", "layers": 1.0},
}
ONCE = ("nash", "nash, deeper")  # what fills a budget by itself, and trains meanwhile
SCRATCH = ("firefly", "random new units")  # whose architectures are trained from scratch, too


class ByChance(Firefly):
    """What Firefly's candidates have learned, chosen by chance."""

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """The scores in another order."""
        found = super().score(session, candidates, key)
        order = torch.randperm(len(found), generator=generator(session.seed, 90, key)).tolist()
        return [replace(score, gain=1.0 + rank) for score, rank in zip(found, order, strict=True)]


def policy_of(arm: str) -> Policy:
    """The policy of an arm."""
    settings = settings_class(ARMS[arm]).model_validate(ARMS[arm])
    if arm == "random among learned":
        assert isinstance(settings, FireflySettings)
        return ByChance(settings)
    return policy_class(settings.name)(settings)


def session_of(network: Network, data: Data, seed: int, device: str = "cpu") -> Session:
    """A session of one thread."""
    settings = {
        "policy": {"name": "firefly"},
        "budget": {"parameters": 10**8},
        "seed": seed,
        "threads": 1,
        "train": {"batch_size": BATCH, "device": device},
        "optimizer": {"name": "sgd", "learning_rate": RATE, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    }
    return Session(network, Problem.of_data(data, "cross_entropy"), parse_run(settings, "compare"))


def operations(session: Session, epochs: float) -> float:
    """Of so many epochs: two for a multiply-accumulate, and as many again for each of the two gradients."""
    return 6.0 * session.graph.costs().macs * len(session.data.train) * epochs


def grown(session: Session, arm: str, most: int, key: int) -> None:
    """Grow until nothing more fits."""
    policy = policy_of(arm)
    with session.meter.phase("growing"):
        session.recalibrate(0, key)
        for turn in range(1 if arm in ONCE else ROUNDS):
            budget = Budget(BudgetConfig(parameters=most), session.graph)
            candidates = policy.propose(session, budget)
            if not candidates:
                break
            chosen = policy.select(session, policy.score(session, candidates, 100 * key + turn), budget)
            if not chosen:
                break
            session.grow(policy.build(session, chosen))
        session.recalibrate(1, key)


def endings(session: Session, done: float, limit: float, seed: int) -> Iterator[dict[str, Any]]:
    """Train to the end in each of the four ways; `done` operations are behind, `limit` all."""
    assert session.data.test is not None
    each = operations(session, 1)
    per_epoch = math.ceil(len(session.data.train) / BATCH)
    lengths = {"epochs": LAST * per_epoch, "operations": round(per_epoch * max(limit - done, each) / each)}
    for what, steps in lengths.items():
        for rate in ("falling", "rewarmed"):
            end, began = session.fork(), time.process_time()
            warm = {"warmup": 0.25} if rate == "rewarmed" else {}
            if rate == "rewarmed":
                for group in end.optimizer.param_groups:
                    group["lr"] = 2 * RATE
                    group.pop(OWN, None)
            fitted = end.train({"steps": steps, "batch_size": BATCH, "rate": {"name": "cosine", **warm}}, seed)
            cpu = time.process_time() - began
            end.recalibrate(2)
            test = end.measure(session.data.test).metrics
            yield {
                "equal": what,
                "rate": rate,
                "epochs": steps / per_epoch,
                "teraflop": (done + each * steps / per_epoch) / 1e12,
                "accuracy": 100 * test["accuracy"],
                "test_loss": test["loss"],
                "train_loss": fitted.loss,
                "cpu": round(cpu, 2),
            }


def run(
    network: Network, data: Data, seed: int, arm: str | None, limit: float, device: str = "cpu"
) -> tuple[dict[str, Any], Graph]:
    """One line, and the graph that was found; without an arm nothing grows."""
    session = session_of(network, data, seed, device)
    first = network.graph.costs().parameters
    done, training, growing = 0.0, 0.0, 0.0
    for turn in range(GROWTHS):
        began = time.process_time()
        session.train({"epochs": FIRST, "batch_size": BATCH}, seed, turn)
        done += operations(session, FIRST)
        training += time.process_time() - began
        if arm is not None:
            began = time.process_time()
            grown(session, arm, round(first * FACTOR ** (turn + 1)), turn)
            growing += time.process_time() - began
    cost = session.graph.costs()
    line = {
        "parameters": cost.parameters,
        "macs": cost.macs,
        "cpu_training": round(training, 2),
        "cpu_growing": round(growing, 2),
        "growing_teraflop": session.meter.costs["growing"].flops / 1e12 if arm else 0.0,
        "endings": list(endings(session, done, limit, seed)),
    }
    return line, session.graph


def network_of(net: str, widths: Widths, size: int, seed: int) -> Network:
    """A network with weights as torch draws them."""
    torch.manual_seed(seed)
    return growir.from_torch(NETS[net](widths), torch.zeros(2, 3, size, size))


def even(net: str) -> Widths:
    """The widths of the largest evenly widened network that is no larger than the grown ones are."""

    def size(widths: Widths) -> int:
        return sum(parameter.numel() for parameter in NETS[net](widths).parameters())

    most = size(WIDTHS[net]) * FACTOR**GROWTHS
    best = WIDTHS[net]
    for factor in (1 + k / 50 for k in range(150)):
        widths = tuple(round(width * factor) for width in WIDTHS[net])
        if size(widths) > most:
            break
        best = widths
    return best


def main() -> None:
    """Run what is asked for and is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("compare.jsonl"))
    parser.add_argument("--net", choices=sorted(NETS), default="vgg")
    parser.add_argument("--size", type=int, choices=(16, 32), default=16)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--tested", type=int, default=10_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", default="0-7", help="the first and the last")
    parser.add_argument("--arms", nargs="*", choices=[*ARMS, "even"], default=[*ARMS, "even"])
    options = parser.parse_args()
    low, high = map(int, options.seeds.split("-"))
    done = {tuple(line[key] for key in ("net", "size", "seed", "arm")) for line in read(options.out)}
    train = cifar(options.data, "train", 0, options.samples, options.size)
    select = cifar(options.data, "train", options.samples, 600, options.size)
    test = cifar(options.data, "test", 0, options.tested, options.size)
    data = Data.from_arrays(*train, select=select, test=test)
    widths = even(options.net)
    limit = 6.0 * network_of(options.net, widths, options.size, 0).graph.costs().macs * options.samples * EPOCHS

    def tell(seed: int, arm: str, line: dict[str, Any]) -> None:
        head = {"net": options.net, "size": options.size, "seed": seed, "arm": arm}
        add(options.out, [{**head, **line}])

    for seed in range(low, high + 1):
        for arm in options.arms:
            if (options.net, options.size, seed, arm) in done:
                continue
            if arm == "even":
                start = network_of(options.net, widths, options.size, seed)
                tell(seed, arm, run(start, data, seed, None, limit, options.device)[0])
                continue
            start = network_of(options.net, WIDTHS[options.net], options.size, seed)
            line, graph = run(start, data, seed, arm, limit, options.device)
            if arm in SCRATCH:
                anew = Network.init(graph.model_copy(update={"history": None}), seed)
                tell(seed, f"{arm}, from scratch", run(anew, data, seed, None, limit, options.device)[0])
            tell(seed, arm, line)


if __name__ == "__main__":
    main()
