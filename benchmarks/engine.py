"""What a growth costs beside training: propose, score and build of 100 candidates, rewrite, lowering, state.

On ResNet-18 in training, against one step of the optimizer at batch 64. A growth is what the engine does between two
phases but measuring: the policy `random` on 100 widenings of which some grow, the budget asked of each rewritten graph,
and `Session.grow`. Growths and steps take turns, so that other work on the machine meets both alike.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch

from benchmarks.live import resnet18
from growir.data.parts import Data
from growir.growth.budget import Budget
from growir.growth.config import parse_run
from growir.growth.measure.sites import free_spaces
from growir.growth.policies.random import RandomSettings, RandomWidth
from growir.growth.policy import Candidate
from growir.growth.problem import Problem
from growir.growth.session import Session
from growir.network import Network
from growir.passes import Widen

BATCH, CANDIDATES, REPEATS = 64, 100, 5


class Many(RandomWidth):
    """The policy with as many candidates as are asked for: each space by one, two, three... of its steps."""

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        spaces = free_spaces(session.graph)
        each = -(-CANDIDATES // len(spaces))
        steps = [Widen(node=space.name, by=k * space.stride) for space in spaces for k in range(1, each + 1)]
        return [
            Candidate(f"{step.node} by {step.by}", budget.cost(step), step)
            for step in steps[:CANDIDATES]
            if budget.fits(step)
        ]


def measure(side: int, threads: int, repeats: int) -> dict[str, Any]:
    """One row: the median of growths as a part of the median of steps."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x = np.random.default_rng(0).standard_normal((BATCH + 16, 3, side, side), np.float32)
        y = np.arange(len(x)) % 10
        data = Data.from_arrays(x, y, select=16 / len(x))
        limits = {"parameters": 10**9, "per_growth": {"share": 0.5}}
        config = parse_run({"policy": "random", "budget": limits, "threads": threads}, "benchmark")
        session = Session(Network.init(resnet18(side)), Problem.of_data(data, "cross_entropy"), config)
        policy = Many(RandomSettings(spaces=0.05))
        (batch,) = list(session.data.train.batches(BATCH, None))[:1]
        growths: list[tuple[float, float]] = []
        steps: list[tuple[float, float]] = []

        def step() -> None:
            session.module.train()
            session.optimizer.zero_grad(set_to_none=True)
            loss = session.objective.total((session.module(*batch.inputs),), batch.target) / BATCH
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
            session.optimizer.step()

        def grow(key: int) -> None:
            budget = Budget(config.budget, session.graph)
            scores = policy.score(session, policy.propose(session, budget), key)
            session.grow(policy.build(session, policy.select(session, scores, budget)))

        step()
        for key in range(repeats):
            for work, found in ((lambda: grow(key), growths), (step, steps), (step, steps)):  # noqa: B023  # called at once
                wall, cpu = time.perf_counter(), time.process_time()
                work()
                found.append((time.perf_counter() - wall, time.process_time() - cpu))
    finally:
        torch.set_num_threads(before)
    (wall, cpu), (step_wall, step_cpu) = (
        [statistics.median(c) for c in zip(*t, strict=True)] for t in (growths, steps)
    )
    return {
        "what": f"ResNet-18, {side}x{side}, batch {BATCH}, {CANDIDATES} candidates, {threads} threads",
        "value": wall / step_wall,
        "unit": "training steps",
        "limit": 1.0,
        "growth ms": 1e3 * wall,
        "growth CPU ms": 1e3 * cpu,
        "step ms": 1e3 * step_wall,
        "step CPU ms": 1e3 * step_cpu,
        "repeats": repeats,
    }


def run() -> dict[str, Any]:
    rows = [measure(side, threads, REPEATS) for side in (32, 64) for threads in (1, 2)]
    rows.append(measure(224, 2, 2))
    return {"rows": rows, "torch": torch.__version__}
