"""Train until nothing is gained, deepen once, train again: is that behind the deep network from scratch?

    python -m experiments.autogrow.deepen --mnist mnist.npz --cifar cifar10.npz --out deepen.jsonl --seeds 0-4
    python -m experiments.autogrow.deepen --table deepen.jsonl

Table 2 of the paper, on the images of `depths.py`. A residual network of 1-1-1 or 2-2-2 blocks is fitted for EPOCHS on
a one-cycle schedule, then each stage gets as many blocks as it has, and the deep network has a fit as long. The last
norms of the new blocks start as a network morphism (zero, adam) or by chance (gaussian, default). From scratch, with
the same fit: for as many epochs as one of the fits, as in the paper; and for as many operations as all of the way took.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from experiments.autogrow.depths import WIDTH, Arm, from_scratch, parts, settings
from experiments.lines import Line, add, read
from experiments.tables import grid, mean_of, spread
from growir.data.parts import Data
from growir.families import network
from growir.growth.budget import Budget
from growir.growth.config import parse_run
from growir.growth.measure.stacking import next_block
from growir.growth.policies.autogrow import AutoGrow, AutoGrowSettings, Initialiser
from growir.growth.policy import Candidate, Score
from growir.growth.problem import Problem, first_shape
from growir.growth.schedule import Train
from growir.growth.session import Session
from growir.growth.training import Keeping, train_final
from growir.network import Network
from growir.stages import stages_of

EPOCHS = 30
DEPTHS = (1, 2)
INITIALISERS: tuple[Initialiser, ...] = ("zero", "adam", "gaussian", "default")


def fitted(session: Session, epochs: int) -> float:
    """Fit what is there on a one-cycle schedule; returns the operations."""
    train_final(session, Train(fit="final", epochs=epochs), Keeping(), 1.0)
    return 6.0 * session.graph.costs().macs * len(session.data.everything()) * epochs


def deepen(session: Session, initialiser: Initialiser) -> None:
    """Give each stage as many blocks more as it has, at its end."""
    policy = AutoGrow(AutoGrowSettings(initialiser=initialiser))
    for name, depth in [(stage.name, stage.depth) for stage in stages_of(session.graph)]:
        for _ in range(depth):
            stage = next(each for each in stages_of(session.graph) if each.name == name)
            step = next_block(session.graph, stage, session.seed)
            cost = Budget(session.config.budget, session.graph).cost(step)
            session.grow(policy.build(session, [Score(Candidate(name, cost, step), 0.0, ordinal=True)]))


def tested(session: Session) -> float:
    """The accuracy on the test images, in per cent."""
    assert session.data.test is not None, "there are test images"
    return 100 * session.measure(session.data.test).metrics["accuracy"]


def session_of(data: Data, name: str, arm: Arm, seed: int) -> Session:
    """A session that holds a new network."""
    shape = first_shape(next(iter(data.train.batches(1, None))))
    config = parse_run({**settings(arm), "seed": seed, "threads": 1}, "deepen")
    start = Network.init(network(name, shape, 10, width=WIDTH), seed)
    return Session(start, Problem.of_data(data), config.started_from(given=True))


def lines(archive: Path, depth: int, seed: int) -> Iterator[Line]:
    """The shallow network, each way to the deep one, and the deep one from scratch."""
    data = parts(archive, seed, 1.0)
    arm = Arm("Basic3ResNet")
    shallow, deep = (f"Basic3ResNet-{'-'.join([str(k)] * 3)}" for k in (depth, 2 * depth))
    session = session_of(data, shallow, arm, seed)
    first = fitted(session, EPOCHS)
    yield {"net": shallow, "arm": "shallow", "accuracy": tested(session), "flops": first}
    found, flops = session.network(), 0.0
    for initialiser in INITIALISERS:
        began = time.process_time()
        session.begin(found)
        deepen(session, initialiser)
        flops = first + fitted(session, EPOCHS)
        seconds = round(time.process_time() - began, 2)
        yield {"net": deep, "arm": initialiser, "accuracy": tested(session), "flops": flops, "cpu": seconds}
    macs = session.graph.costs().macs
    longer = max(1, round(flops / (6.0 * macs * len(session.data.everything()))))
    for name, epochs in (("scratch", EPOCHS), ("scratch, equal FLOPs", longer)):
        yield {"net": deep, "arm": name, **from_scratch(data, arm, deep, epochs, seed)}


def table(given: Sequence[Line]) -> Iterator[str]:
    """A row for each way to the deep network, and how far it is ahead of it from scratch, seed by seed."""
    rows: list[list[str]] = []
    groups: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    for line in given:
        of = groups.setdefault((line["data"], line["depth"]), {})
        of.setdefault(line["arm"], {})[line["seed"]] = line["accuracy"]
    for (data, depth), arms in groups.items():
        rows.append([data, f"{depth} in each", "shallow", spread(list(arms["shallow"].values()), 2), "", ""])
        for name in (*INITIALISERS, "scratch", "scratch, equal FLOPs"):
            less = [_less(arms, name, other) for other in ("scratch", "scratch, equal FLOPs")]
            rows.append([data, f"{2 * depth} in each", name, spread(list(arms[name].values()), 2), *less])
    yield from grid(("data", "blocks", "start", "accuracy", "less scratch", "less scratch, equal FLOPs"), rows)


def _less(arms: dict[str, dict[int, float]], name: str, other: str) -> str:
    if name.startswith("scratch"):
        return ""
    found = mean_of([value - arms[other][seed] for seed, value in arms[name].items()])
    return "" if found is None else found.told()


def main(given: Sequence[str] | None = None) -> None:
    """Run what is asked for and is not there yet, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--out", type=Path, default=Path("deepen.jsonl"))
    parser.add_argument("--seeds", default="0-4", help="the first and the last")
    parser.add_argument("--table", type=Path, help="print the table of these lines")
    options = parser.parse_args(given)
    if options.table is not None:
        print("\n".join(table(read(options.table))))
        return
    torch.set_num_threads(1)
    low, high = map(int, options.seeds.split("-"))
    done = {(each["data"], each["depth"], each["seed"]) for each in read(options.out)}
    for seed in range(low, high + 1):
        for name, archive in (("mnist", options.mnist), ("cifar", options.cifar)):
            for depth in DEPTHS if archive is not None else ():
                head = {"data": name, "depth": depth, "seed": seed}
                if (name, depth, seed) not in done:
                    add(options.out, [{**head, **line} for line in lines(archive, depth, seed)])
                    print(json.dumps(head), flush=True)


if __name__ == "__main__":
    main()
