"""Training from a source over a loader beside the bare loop on the same loader: a small residual convnet, batch 64.

An epoch is trained by either in turn, in an order drawn anew for each pair, so that other work on the machine meets
both alike. The source's epoch has all that a run's has: random numbers kept apart, and each batch checked and fed. What
is judged are CPU seconds of this process, since wall seconds beside other work say more of that; the workers' own work
is the same in both, as both walk one loader. A data set's source, which seeds each sample, stands beside it.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.live import resnet18
from growir.data.feeding import Feed, InputSpec
from growir.data.loaders import loader_source
from growir.data.mapstyle import DatasetSource
from growir.data.shuffling import Shuffle
from growir.data.source import Source
from growir.network import Network

BATCH, SIDE, BATCHES, REPEATS = 64, 32, 8, 41
WIDTHS = (16, 16, 32, 32)
LIMIT = 1.03


class Flipped(Dataset[Any]):
    """Random images in memory, each flipped or not."""

    def __init__(self, count: int, side: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.x = torch.randn(count, 3, side, side, generator=draw)
        self.y = torch.randint(10, (count,), generator=draw)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.x[index]
        return x.flip(-1) if torch.rand(()) < 0.5 else x, self.y[index]


class Seconds(NamedTuple):
    """Of an epoch, wall and CPU; those of worker processes are not among the latter."""

    wall: float
    cpu: float


def seconds(work: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def sources(loader: DataLoader[Any]) -> dict[str, Source]:
    """The kinds of source that give what a loader gives."""
    dataset = DatasetSource(loader.dataset, workers=loader.num_workers)
    return {"a loader": loader_source(loader), "a data set": dataset}


def measure(
    kind: str,
    workers: int,
    threads: int,
    *,
    batch: int = BATCH,
    side: int = SIDE,
    batches: int = BATCHES,
    repeats: int = REPEATS,
    widths: tuple[int, ...] = WIDTHS,
) -> dict[str, Any]:
    graph = resnet18(side, widths)
    torch.manual_seed(0)
    module: nn.Module = Network.init(graph).to_torch().train()
    optimizer = torch.optim.SGD(module.parameters(), 1e-3, momentum=0.9)
    loader = DataLoader(Flipped(batch * batches, side), batch_size=batch, shuffle=True, num_workers=workers)
    source = sources(loader)[kind]
    feed = Feed([InputSpec(entry.name, entry.shape, entry.dtype) for entry in graph.inputs])
    shuffle = Shuffle((0,))

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]  # torch's own stub
        optimizer.step()

    def bare() -> None:
        for x, y in loader:
            step(x, y)

    def fed(epoch: int) -> None:
        for fed_batch in feed.epoch(source, batch, shuffle, epoch):
            assert isinstance(fed_batch.inputs, tuple)
            step(fed_batch.inputs[0], fed_batch.target)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    order = random.Random(0)
    found: dict[str, list[Seconds]] = {"bare": [], "source": []}
    try:
        bare()
        fed(0)
        for epoch in range(1, repeats + 1):
            for name in order.sample(["bare", "source"], 2):
                found[name].append(seconds(bare if name == "bare" else lambda: fed(epoch)))  # noqa: B023  # called at once
    finally:
        torch.set_num_threads(before)
    wall = {name: statistics.median(s.wall for s in each) for name, each in found.items()}
    cpu = {name: statistics.median(s.cpu for s in each) for name, each in found.items()}
    return {
        "what": f"source over {kind}, ResNet-18 of widths {'-'.join(map(str, widths))}, {side}x{side}, batch {batch}, "
        f"{workers} workers, {threads} thread{'s' if threads > 1 else ''}",
        "value": cpu["source"] / cpu["bare"],
        "unit": "x the CPU seconds of the bare loop",
        **({"limit": LIMIT} if kind == "a loader" else {}),
        "wall x": wall["source"] / wall["bare"],
        "bare: ms a batch": 1e3 * wall["bare"] / batches,
        "source: ms a batch": 1e3 * wall["source"] / batches,
        "bare: CPU ms": 1e3 * cpu["bare"] / batches,
        "source: CPU ms": 1e3 * cpu["source"] / batches,
        "batches": batches,
        "repeats": repeats,
    }


def run() -> dict[str, Any]:
    rows = [measure(kind, workers, 1) for kind in ("a loader", "a data set") for workers in (0, 2)]
    return {"rows": rows, "torch": torch.__version__}
