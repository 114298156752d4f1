"""Networks of every kind learn one task after the other: LeNet, VGG16 with norms, ResNet-18, a small transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import growir
from growir.continual import by_classes, learn
from growir.families import network
from growir.graph import Graph

RNG = np.random.default_rng(2)
Y = np.arange(24) % 4
SHAPE = (1, 16, 16)


class Attends(nn.Module):
    """A block of a transformer: attention with projections of its own, and two layers behind."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        parts = (each(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        x = x + self.out(y)
        found: torch.Tensor = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return found


class Vit(nn.Module):
    """A transformer of patches of four by four pixels."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.place = nn.Parameter(torch.zeros(1, 16, width))
        self.block, self.norm, self.head = Attends(width, 2), nn.LayerNorm(width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2) + self.place
        found: torch.Tensor = self.head(self.norm(self.block(y)).mean(1))
        return found


def imported(module: nn.Module) -> Graph:
    return growir.from_torch(module, torch.zeros(2, *SHAPE)).graph


def lenet() -> Graph:
    return imported(
        nn.Sequential(
            *(nn.Conv2d(1, 3, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 2)),
        )
    )


def vgg16() -> Graph:
    layers: list[nn.Module] = []
    before = 1
    for k, width in enumerate((2, 2, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4)):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if k in (1, 3, 6) else []
        before = width
    return imported(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 2)))


GRAPHS: dict[str, Callable[[], Graph]] = {
    "lenet": lenet,
    "vgg16": vgg16,
    "resnet18": lambda: network("Basic4ResNet-2-2-2-2", SHAPE, 2, width=2),
    "vit": lambda: imported(Vit()),
}


@pytest.mark.parametrize("method", ["grown", "firefly"])
@pytest.mark.parametrize("name", list(GRAPHS))
def test_two_tasks_are_learned_and_the_first_keeps_its_bits(
    name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (RNG.normal(size=(24, *SHAPE)) + Y[:, None, None, None]).astype(np.float32)
    pairs = by_classes(x, Y, [[0, 1], [2, 3]], test=(x, Y))
    better = iter([0.5, 0.6] * 2)  # so that what was grown stays
    monkeypatch.setattr(f"growir.continual.{method}.accuracy_of", lambda *rest: next(better))
    logits: list[torch.Tensor] = []
    more: dict[str, Any] = {"penalty": 0.0} if method == "grown" else {"learn_steps": 2, "judge_batches": 1}

    def first(found: growir.Network) -> torch.Tensor:
        with torch.no_grad():
            given: torch.Tensor = found.to_torch().eval()(torch.from_numpy(x))
        return given

    from growir.continual import growing

    real = growing.Growing.learn

    def told(self: growing.Growing, task: int, experience: Any) -> None:
        real(self, task, experience)
        logits.append(first(self.network(0)))

    monkeypatch.setattr(growing.Growing, "learn", told)
    found = learn(GRAPHS[name](), pairs, method=method, settings={"epochs": 1, "batch_size": 8, **more})
    assert torch.equal(logits[0], logits[1])
    assert any(found.channels), "it has grown"
    assert found.measures.forgetting == 0
