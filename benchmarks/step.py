"""One growth step, with every move: beside an epoch of plain SGD, and by the number of states.

**Beside an epoch.** An MLP 784-h-h-10 on 10 000 samples, MNIST's first ones where `GROWIR_MNIST` names an .npz with
Keras's keys, else random. A step is propose, score, select and apply, of ten neurons, strategy "whole"; the second one
is what counts, as caches that outlive a growth are then warm, and the first stands beside it. The epoch is written by
hand in torch, plain SGD in batches of 64 over the same samples. GroMo's step (`benchmarks/_gromo.py`) starts from the
same layers, and so does, in `gromo, layers`, the growth of its plain MLP, which has no moves but two widenings and
solves them in closed form. `GROWIR_PEER=0` leaves out both.

**By states.** The first step on m hidden states of ten neurons, each put at random between two values of the graph, on
the data of the teacher-student problem. A move joins a value to a state, by an edge or by a new state, and a pair of
hidden states is joined one way, or either way where neither depends on the other: up to m (m - 1) pairs, and 2 m with
the inputs and the output. Most pairs make two moves, and there are m widenings: about m^2 moves in all. What one costs
grows with what must run again behind it, at most m states, and with what its graph takes to rewrite, so that a step
costs between m^2 and m^3.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import _gromo
from benchmarks._fitting import between
from benchmarks.growth import Clock
from benchmarks.startup import Seconds
from growir.data.dataset import Dataset
from growir.graph import Graph, Input, Node
from growir.growth.budget import Budget
from growir.growth.config import DataConfig, RunConfig, parse_run
from growir.growth.data import check_data, split_parts
from growir.growth.policies.dag.empty import empty_network
from growir.growth.policies.dag.policy import Dag
from growir.growth.policies.dag.settings import DagConfig
from growir.growth.problem import Problem
from growir.growth.session import Session
from growir.network import Network
from growir.ops import Linear, Relu, Selu
from growir.passes import AddNode
from growir.testing.teacher import teacher_student

MNIST = Path(os.environ.get("GROWIR_MNIST", "mnist.npz"))
PEER = os.environ.get("GROWIR_PEER", "1") != "0"
SAMPLES, BATCH, REPEATS = 10_000, 64, 3
WIDTHS = (16, 64, 256)
STATES = (5, 10, 20, 40)
POWERS = {"s": "value", "moves": "moves"}


def seconds(work: Callable[[], object]) -> Seconds:
    clock = Clock()
    work()
    return clock.lap()


def median(found: Sequence[Seconds]) -> Seconds:
    return Seconds(*map(statistics.median, zip(*found, strict=True)))


def configuration(seed: int, activation: str) -> RunConfig:
    """Growth that no budget limits."""
    given: dict[str, Any] = {
        "name": "step",
        "seed": seed,
        "policy": {"name": "dag", "strategy": "whole", "neurons": 10, "activation": activation},
        "train": {"batch_size": BATCH, "epochs_between": 1},
        "budget": {"parameters": 10**8},
    }
    return parse_run(given, "benchmarks.step")


class Step:
    """Growth steps of one session, and what each cost."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.dag = Dag(cast("DagConfig", session.config.policy))
        self.done = 0
        self.candidates = 0

    def grow(self) -> Seconds:
        """The seconds of a growth step; the training after it is not part of them."""
        taken = seconds(self._grow)
        between(self.session, self.done)
        return taken

    def _grow(self) -> None:
        self.done += 1
        budget = Budget(self.session.config.budget, self.session.graph)
        moves = self.dag.propose(self.session, budget)
        self.candidates = len(moves)
        chosen = self.dag.select(self.session, self.dag.score(self.session, moves, self.done), budget)
        if chosen:
            self.session.grow(self.dag.build(self.session, chosen))


# -- beside an epoch --------------------------------------------------------------------------------------------------


def digits(samples: int, features: int) -> tuple[str, Dataset]:
    """MNIST's first samples, or random ones that only layers can tell apart."""
    if MNIST.exists() and features == 784:
        with np.load(MNIST) as file:
            x = file["x_train"][:samples].reshape(-1, features).astype(np.float32) / 255
            y = file["y_train"][:samples].astype(np.int64)
        name = "MNIST"
    else:
        draws = np.random.default_rng(0)
        # Like images: far fewer directions than inputs.
        factors = draws.standard_normal((samples, 30), dtype=np.float32)
        x = factors @ draws.standard_normal((30, features), dtype=np.float32)
        y = np.maximum(factors[:, :10], factors[:, 10:20]).argmax(axis=1)
        name = "random"
    arrays = {"x_train": x, "y_train": y, "x_test": x[:100], "y_test": y[:100]}
    return name, check_data(arrays, DataConfig(task="classification"), name)


def mlp(features: int, width: int) -> Graph:
    nodes = (
        Node(name="fc1", op=Linear(out_features=width), inputs=("x",)),
        Node(name="act1", op=Relu(), inputs=("fc1",)),
        Node(name="fc2", op=Linear(out_features=width), inputs=("act1",)),
        Node(name="act2", op=Relu(), inputs=("fc2",)),
        Node(name="fc3", op=Linear(out_features=10), inputs=("act2",)),
    )
    return Graph(name="mlp", inputs=(Input(name="x", shape=("N", features)),), nodes=nodes, outputs=("fc3",))


def epoch(data: Dataset, width: int, repeats: int) -> Seconds:
    """The median seconds of an epoch of SGD, by hand."""
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    torch.manual_seed(0)
    layers = [nn.Linear(x.shape[1], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)]
    module = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

    def once() -> None:
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH):
            batch = order[start : start + BATCH]
            loss = F.cross_entropy(module(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
            optimizer.step()

    once()  # warm
    return median([seconds(once) for _ in range(repeats)])


def peer_step(data: Dataset, width: int) -> tuple[float, int]:
    """Seconds and moves of a step of GroMo's."""
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    parts = split_parts(len(x), 0)
    given = [(x[part], y[part]) for part in (parts.opt, parts.ls, parts.gr)]
    torch.manual_seed(0)
    peer = _gromo.Peer(given, nn.CrossEntropyLoss(), 10, 10, hidden=(width, width), activation="relu")
    grown = peer.grow("whole")
    return grown.seconds.wall, grown.candidates


def beside_an_epoch(
    width: int, samples: int = SAMPLES, features: int = 784, repeats: int = REPEATS, peer: bool = False
) -> dict[str, Any]:
    """The row of one width."""
    name, data = digits(samples, features)
    firsts: list[Seconds] = []
    seconds_: list[Seconds] = []
    epochs: list[Seconds] = []
    for seed in range(repeats):  # in turn, so that what else the machine does falls on both
        network = Network.init(mlp(features, width), seed)
        step = Step(Session(network, Problem.of_dataset(data), configuration(seed, "relu")))
        between(step.session, 0)
        firsts.append(step.grow())
        seconds_.append(step.grow())
        epochs.append(epoch(data, width, repeats))
    first, second, sgd = median(firsts), median(seconds_), median(epochs)
    found: dict[str, Any] = {
        "what": f"{features}-{width}-{width}-10, {name}: step / epoch",
        "value": second.wall / sgd.wall,
        "limit": 3.0,
        "cpu": second.cpu / sgd.cpu,
        "first": first.wall / sgd.wall,
        "step s": second.wall,
        "epoch s": sgd.wall,
        "moves": step.candidates,
    }
    if peer:
        taken, moves = peer_step(data, width)
        found |= {"gromo": taken / sgd.wall, "gromo s": taken, "gromo moves": moves}
        x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
        found["gromo, layers"] = statistics.median(_gromo.layer_step(x, y, width, 10) for _ in range(3)) / sgd.wall
    return found


# -- by states --------------------------------------------------------------------------------------------------------


def many_states(data: Dataset, states: int, seed: int = 0) -> Graph:
    """A graph of so many hidden states, each put between two values at random."""
    draws = np.random.default_rng(seed)
    network = empty_network(data, DataConfig(), "states")
    for _ in range(states):
        graph = network.graph
        values = ["standard", *(node.name for node in graph.nodes if isinstance(node.op, Selu))]
        moves = [move for move in AddNode.candidates(graph) if move.source in values]
        move = moves[int(draws.integers(len(moves)))]
        network = network.apply(move.model_copy(update={"width": 10, "activation": "selu"}))
    return network.graph.model_copy(update={"history": None})


def by_states(states: int, samples: int = 1000) -> dict[str, Any]:
    """The row of one number of states."""
    raw = teacher_student(0, samples, test=10)
    arrays = {key: (a - a.mean(axis=0)) / a.std(axis=0) for key, a in raw.items()}
    data = check_data(arrays, DataConfig(), "states")
    # New weights, as those of AddNode's second edges are zero; standardised data needs no other statistics than theirs.
    network = Network.init(many_states(data, states), 0)
    step = Step(Session(network, Problem.of_dataset(data), configuration(0, "selu")))
    between(step.session, 0)
    taken = step.grow()
    return {
        "what": f"{states} states: seconds of a step",
        "value": taken.wall,
        "cpu s": taken.cpu,
        "moves": step.candidates,
        "ms a move": 1e3 * taken.wall / step.candidates,
    }


def run() -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        by_states(2, 50)  # what a process does once
        rows = [beside_an_epoch(width, peer=PEER and _gromo.installed()) for width in WIDTHS]
        rows += power([by_states(states) for states in STATES])
    finally:
        torch.set_num_threads(threads)
    return {"rows": rows, "torch": torch.__version__, "threads": 1}


def power(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with the power of m by which its seconds and moves grew from the row before."""
    found = [dict(rows[0])]
    for (few, before), (many, after) in pairwise(zip(STATES, rows, strict=False)):
        growth = math.log(many / few)
        powers = {f"m^, {name}": math.log(after[key] / before[key]) / growth for name, key in POWERS.items()}
        found.append({**after, **powers})
    return found
