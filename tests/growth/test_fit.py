"""A phase of training: the bits of before, going on anywhere, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from growir.growth.fit import fit
from growir.growth.loss import Loss
from growir.growth.objective import as_objective
from growir.growth.optimizing import make
from growir.growth.phase import Fitted, Hooks
from growir.growth.recipe import Recipe
from growir.growth.session import generator
from growir.growth.train import make_optimizer, train


class Batch(NamedTuple):
    inputs: tuple[torch.Tensor, ...]
    target: torch.Tensor


SAMPLES, SIZE = 50, 12
X = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(0))
CLASSES = (X[:, 0] * X[:, 1] > 0).long() + (X[:, 2] > 0).long()
NUMBERS = torch.stack([X[:, 0] * X[:, 1], X[:, 3]], dim=1)


def net(*, dropout: float = 0.0, norm: bool = False, outputs: int = 3, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    layers: list[nn.Module] = [nn.Linear(6, 16), *([nn.BatchNorm1d(16)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(16, outputs)).to(dtype)


class Data:
    """Batches as they were drawn before: one generator through all epochs, the last single sample joins."""

    def __init__(self, target: torch.Tensor, seed: int = 3, size: int = SIZE, x: torch.Tensor = X) -> None:
        self.x, self.target, self.seed, self.size = x, target, seed, size
        self.bounds = [*range(0, len(x), size), len(x)]
        if len(self.bounds) > 2 and self.bounds[-1] - self.bounds[-2] == 1:
            del self.bounds[-2]

    @property
    def count(self) -> int:
        return len(self.bounds) - 1

    def __call__(self, epoch: int, start: int) -> Iterator[Batch]:
        drawing = generator(self.seed)
        for _ in range(epoch + 1):
            order = torch.randperm(len(self.x), generator=drawing)
        for low, high in list(zip(self.bounds, self.bounds[1:], strict=False))[start:]:
            rows = order[low:high]
            yield Batch((self.x[rows],), self.target[rows])


def bits(module: nn.Module) -> list[bytes]:
    return [tensor.detach().numpy().tobytes() for tensor in module.state_dict().values()]


# -- the bits of before ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("size", [12, 7, 64])
@pytest.mark.parametrize("anneals", [False, True])
def test_by_default_it_does_what_train_did(task: Any, dropout: float, size: int, anneals: bool) -> None:
    target = CLASSES if task == "classification" else NUMBERS
    scale = torch.tensor([2.0, 0.5]) if task == "regression" else torch.ones(1)
    before = net(dropout=dropout, norm=True, outputs=3 if task == "classification" else 2)
    now = copy.deepcopy(before)
    epochs, data, told = 3, Data(target, size=size), ([], [])  # type: ignore[var-annotated]

    def scheduler(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler | None:
        steps = epochs * data.count
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps + 1) if anneals else None

    optimizer = make_optimizer(dict(before.named_parameters()), 3e-3, 0.1)
    loss = train(
        before,
        Loss(task, scale),
        [X],
        target,
        torch.arange(SAMPLES),
        optimizer,
        epochs=epochs,
        batch_size=size,
        generator=generator(3),
        scheduler=scheduler(optimizer),
        tick=lambda *said: told[0].append(said),
        epoch=lambda *said: told[0].append(said),
    )
    optimizer_now = make(dict(now.named_parameters()), rate=3e-3, weight_decay=0.1)
    found = fit(
        now,
        as_objective({"classification": "cross_entropy", "regression": "mse"}[task], scale),
        data,
        optimizer_now,
        Recipe(epochs=epochs, batch_size=size),
        seed=generator(3).initial_seed(),
        scheduler=scheduler(optimizer_now),
        per_epoch=data.count,
        draws=True,
        hooks=Hooks(tick=lambda *said: told[1].append(said), epoch=lambda *said: told[1].append(said)),
    )
    assert found == Fitted(loss, epochs, epochs * data.count, stopped=False)
    assert bits(now) == bits(before)
    assert told[0] == told[1]
    for one, other in zip(before.parameters(), now.parameters(), strict=True):
        states = optimizer.state[one], optimizer_now.state[other]
        assert all(np.array_equal(states[0][entry], states[1][entry]) for entry in states[0] | states[1])
    names = ["lr", "weight_decay", "betas", "fused"]
    groups = [[[g[name] for name in names] for g in o.param_groups] for o in (optimizer, optimizer_now)]
    assert groups[0] == groups[1]
