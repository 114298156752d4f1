"""A training step of a growth run on one thread and on two, by the size of network, batch and image.

More threads pay where a step is large. Where it is small they wait for each other, and for many times as long as the
step takes where other work shares the cores; `growir.growth.config.SMALL_STEP` lies between the two.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from growir.data.memory import ArraySource
from growir.data.shuffling import Shuffle
from growir.growth.config import SMALL_STEP
from growir.growth.fit import fit
from growir.growth.objective import CrossEntropy
from growir.growth.optimizing import make
from growir.growth.recipe import Recipe

REPEATS = 7
SECONDS = 0.12  # of a measurement, about
OUTPUTS = 10
MANY = 2  # threads


class Case(NamedTuple):
    """A network to train.

    Attributes:
        name: Of the row.
        batch: Samples a step.
        shape: Of one sample.
        macs: Multiply-accumulates per sample.
        module: Makes the network.
    """

    name: str
    batch: int
    shape: tuple[int, ...]
    macs: int
    module: Callable[[], nn.Module]


class Seconds(NamedTuple):
    """Of one training step."""

    wall: float
    cpu: float


def mlp(batch: int, inputs: int, parameters: int) -> Case:
    """One hidden layer that has about so many parameters."""
    width = max(1, parameters // (inputs + OUTPUTS + 1))
    return Case(
        f"MLP {inputs}-{width}-{OUTPUTS}, batch {batch}",
        batch,
        (inputs,),
        width * (inputs + OUTPUTS),
        lambda: nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, OUTPUTS)),
    )


def convnet(batch: int, side: int, width: int) -> Case:
    """Two 3x3 convolutions and a head over the mean of their maps."""
    return Case(
        f"convnet 1-{width}-{width} on {side}x{side}, batch {batch}",
        batch,
        (1, side, side),
        side * side * 9 * width * (1 + width) + width * OUTPUTS,
        lambda: nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, OUTPUTS),
        ),
    )


CASES = [
    *(mlp(batch, 20, parameters) for batch in (64, 256) for parameters in (1_000, 10_000, 100_000, 1_000_000)),
    *(mlp(batch, 784, parameters) for batch in (64, 256) for parameters in (10_000, 100_000, 1_000_000)),
    *(convnet(64, side, width) for side in (8, 28) for width in (4, 16)),
]


def timed(case: Case, threads: int, steps: int) -> Seconds:
    """So many steps by as many threads, as growth trains."""
    torch.set_num_threads(threads)
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    module = case.module()
    values = torch.randn(case.batch * steps, *case.shape, generator=draw)
    targets = torch.randint(OUTPUTS, (len(values),), generator=draw)
    optimizer = make(dict(module.named_parameters()), rate=1e-3, weight_decay=0.1)
    source, recipe = ArraySource(values, targets), Recipe(epochs=1, batch_size=case.batch)
    wall, cpu = time.perf_counter(), time.process_time()
    fit(module, CrossEntropy(), source, optimizer, recipe, shuffle=Shuffle((0,)))
    return Seconds((time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps)


def measure(case: Case, repeats: int = REPEATS, seconds: float = SECONDS) -> dict[str, Any]:
    """The row of a case: medians over pairs of measurements, which other work on the machine meets alike."""
    timed(case, MANY, 2)
    steps = max(2, min(400, round(seconds / timed(case, 1, 2).wall)))
    pairs = [(timed(case, 1, steps), timed(case, MANY, steps)) for _ in range(repeats)]
    work = case.batch * case.macs
    return {
        "what": case.name,
        "MMACs a step": work / 1e6,
        "one thread": work <= SMALL_STEP,
        "value": statistics.median(two.wall / one.wall for one, two in pairs),
        "unit": f"x the time with {MANY} threads",
        "CPU x": statistics.median(two.cpu / one.cpu for one, two in pairs),
        "1: wall ms": 1e3 * statistics.median(one.wall for one, _ in pairs),
        "1: CPU ms": 1e3 * statistics.median(one.cpu for one, _ in pairs),
        f"{MANY}: wall ms": 1e3 * statistics.median(two.wall for _, two in pairs),
        f"{MANY}: CPU ms": 1e3 * statistics.median(two.cpu for _, two in pairs),
    }


def run(repeats: int = REPEATS) -> dict[str, Any]:
    threads = torch.get_num_threads()
    try:
        rows = [measure(case, repeats) for case in sorted(CASES, key=lambda case: case.batch * case.macs)]
    finally:
        torch.set_num_threads(threads)
    return {"rows": rows, "torch": torch.__version__}
