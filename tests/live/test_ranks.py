"""Several ranks: refused where a wrapper may stand outside, and compared where the caller says that none does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import FileStore
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from growir import live
from growir.errors import GrowirError, ModelError
from growir.passes import Widen
from growir.testing import random_batch
from tests.live.training import module_of, one_step, snapshot
from tests.samples import mlp

STEP = Widen(node="fc1", by=2)


def on_two_ranks(work: Callable[[int], None], folder: Path) -> None:
    """Run a function in two processes of one gloo group; what either raises is raised here."""
    spawn(_rank, args=(work, str(folder / "store")), nprocs=2)  # type: ignore[no-untyped-call]  # torch's own stub


def _rank(rank: int, work: Callable[[int], None], store: str) -> None:
    torch.set_num_threads(1)
    shared = FileStore(store, 2)
    dist.init_process_group("gloo", store=shared, rank=rank, world_size=2)
    work(rank)
    # Gloo aborts a process whose peer leaves during a collective, a barrier too: wait on the store, not on the group.
    shared.set(f"done {rank}", "yes")
    shared.wait(["done 0", "done 1"])
    os._exit(0)  # at an orderly exit gloo's threads now and then abort the process


class Lit(nn.Module):
    """What Lightning wraps: a module that holds the network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = module_of(mlp())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(x)
        return found


def refused_then_grown_alike(rank: int) -> None:
    torch.manual_seed(rank)
    lit = Lit()
    optimizer = torch.optim.Adam(lit.parameters(), lr=0.01)
    batch = [x + rank for x in random_batch(mlp())]  # each rank has its own data
    wrapped: nn.Module = DistributedDataParallel(lit)
    one_step(wrapped, optimizer, batch)
    unchanged = snapshot(lit, optimizer)
    # From a callback, inside of the wrapper: with nothing said, it is refused on every rank.
    with pytest.raises(ModelError, match=r"torch\.distributed runs with 2 ranks.*on_all_ranks=True.*wrap what comes"):
        live.grow(lit.net, STEP, optimizer)
    unchanged()
    lit.net, report = live.grow(lit.net, STEP, optimizer, on_all_ranks=True)
    assert not report.notes
    wrapped = DistributedDataParallel(lit)
    for _ in range(3):
        one_step(wrapped, optimizer, batch)
    mine = torch.cat([p.detach().flatten() for p in lit.parameters()])
    both = [torch.empty_like(mine) for _ in range(2)]
    dist.all_gather(both, mine)
    assert torch.equal(*both)


def different_passes(rank: int) -> None:
    module = module_of(mlp())
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    unchanged = snapshot(module, optimizer)
    by_rank: list[tuple[Any, ...]] = [
        (STEP, Widen(node="fc1", by=3)),  # another width
        (STEP, Widen(node="fc1", by=2, seed=1)),  # other fresh numbers: the graphs are the same
    ]
    for steps in by_rank:
        with pytest.raises(ModelError, match=r"the ranks do not grow alike, and nothing was applied: rank \d has"):
            live.grow(module, steps[rank], optimizer, on_all_ranks=True)
        unchanged()
    # A pass that is refused on one rank is not awaited for ever by the other.
    match = "no node 'absent'|absent" if rank else "rank 1 failed: .*absent"
    with pytest.raises(GrowirError, match=match):
        live.grow(module, Widen(node="absent", by=2) if rank else STEP, optimizer, on_all_ranks=True)
    unchanged()


@pytest.mark.parametrize("work", [refused_then_grown_alike, different_passes], ids=lambda work: work.__name__)
def test_two_ranks(work: Callable[[int], None], tmp_path: Path) -> None:
    on_two_ranks(work, tmp_path)
