"""What Firefly's choice is worth: the set that it chooses beside random ones among the same learned candidates.

    python -m experiments.firefly.choice cifar10.npz --out runs/choice.jsonl

A thin network is trained for two epochs of 5000 images from CIFAR-10 at 16 x 16. All candidates learn together, once;
then the best are chosen for 1.8 times the parameters, and ten random sets of the same budget. Each set is applied to a
copy of the network, statistics of norms are taken anew, and the loss is measured on images that nothing has seen.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments.cifar.compare import BATCH, FACTOR, WIDTHS, network_of, policy_of, session_of
from experiments.lines import add
from experiments.networks import NETS, cifar
from experiments.tables import grid, spread
from growir.data.parts import Data
from growir.data.shuffling import generator
from growir.growth.budget import Budget, BudgetConfig
from growir.growth.policy import Score
from growir.growth.session import Session

SETS = 10


def gained(session: Session, scores: Sequence[Score], build: Any) -> float:
    """By how much the loss on other images is lower with some candidates in place."""
    assert session.data.select is not None
    before = session.measure(session.data.select).metrics["loss"]
    grown = session.fork()
    grown.grow(build(grown, scores))
    grown.recalibrate(0)
    return before - grown.measure(session.data.select).metrics["loss"]


def run(net: str, seed: int, data: Data) -> dict[str, Any]:
    """One line."""
    session = session_of(network_of(net, WIDTHS[net], 16, seed), data, seed)
    session.train({"epochs": 2, "batch_size": BATCH}, seed)
    session.recalibrate(0)
    most = round(session.graph.costs().parameters * FACTOR)
    budget, policy = Budget(BudgetConfig(parameters=most), session.graph), policy_of("firefly")
    scores = policy.score(session, policy.propose(session, budget), seed)
    chosen = policy.select(session, scores, budget)
    found: list[float] = []
    for turn in range(SETS):
        order = torch.randperm(len(scores), generator=generator(seed, 91, turn)).tolist()
        # As good as they are by chance, so that `select` fills the budget with any of them.
        drawn = [replace(score, gain=1.0 + rank) for score, rank in zip(scores, order, strict=True)]
        found.append(gained(session, policy.select(session, drawn, budget), policy.build))
    return {
        "net": net,
        "seed": seed,
        "candidates": len(scores),
        "chosen": len(chosen),
        "splits": sum(" split " in score.candidate.name for score in chosen),
        "predicted": sum(score.gain for score in chosen),
        "measured": gained(session, chosen, policy.build),
        "random": found,
    }


HEADS = ("network", "seed", "chosen", "of them splits", "predicted", "measured", "random sets", "measured / random")


def table(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A row for each network and seed."""

    def rows() -> Iterator[Sequence[object]]:
        for line in lines:
            cells = [line["net"], line["seed"], f"{line['chosen']} of {line['candidates']}", line["splits"]]
            cells += [f"{line['predicted']:.4f}", f"{line['measured']:.4f}", spread(line["random"], 4)]
            yield [*cells, f"{line['measured'] / statistics.fmean(line['random']):.1f}"]

    yield from grid(HEADS, rows())


def main() -> None:
    """Run, write lines and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nets", nargs="+", choices=sorted(NETS), default=["vgg", "resnet"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11, 12])
    options = parser.parse_args()
    train = cifar(options.data, "train", 0, 5000, 16)
    data = Data.from_arrays(*train, select=cifar(options.data, "train", 5000, 2000, 16))
    lines: list[dict[str, Any]] = []
    for net in options.nets:
        for seed in options.seeds:
            lines.append(run(net, seed, data))
            add(options.out, lines[-1:])
    print(*table(lines), sep="\n")


if __name__ == "__main__":
    main()
