"""Small networks and data for runs of any policy: residual with batch norm, several inputs, tokens, dense targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

import growir
from growir.network import Network

SGD = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
EVERY = {"name": "every", "epochs": 1, "growths": 2}


class Block(nn.Module):
    """A residual block of two convolutions with batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.b1 = nn.BatchNorm2d(channels)
        self.c2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.b2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.b2(self.c2(torch.relu(self.b1(self.c1(x))))))


class Residual(nn.Module):
    """Two stages of a block each, for maps (n, 1, 8, 8) and four classes."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.one = Block(channels)
        self.down = nn.Conv2d(channels, 2 * channels, 3, 2, 1)
        self.two = Block(2 * channels)
        self.head = nn.Linear(2 * channels, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(torch.relu(self.stem(x)))
        found: torch.Tensor = self.head(self.two(torch.relu(self.down(x))).mean((2, 3)))
        return found


class Dropped(nn.Module):
    """A layer with dropout, for maps (n, 1, 8, 8) and four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o, self.d = nn.Linear(64, 6), nn.Linear(6, 4), nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.o(self.d(torch.relu(self.a(x.flatten(1)))))
        return found


class TwoInputs(nn.Module):
    """A map and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Linear(64, 6), nn.Linear(8, 6), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.o(torch.cat([torch.relu(self.a(x.flatten(1))), torch.relu(self.b(rows))], 1))
        return found


class Tokens(nn.Module):
    """A language model of one layer that looks at each token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.a, self.o = nn.Embedding(5, 6), nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.o(torch.relu(self.a(self.e(tokens))))
        return found


class Dense(nn.Module):
    """Maps to maps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.b(torch.relu(self.a(x)))
        return found


class TwoOutputs(nn.Module):
    """A class and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o, self.p = nn.Linear(64, 6), nn.Linear(6, 4), nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.a(x.flatten(1)))
        return self.o(hidden), self.p(hidden)


def maps(samples: int = 120, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy maps (n, 1, 8, 8) with a bright quarter, which is the class."""
    draws = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 4, (samples,), generator=draws)
    found = 0.5 * torch.randn(samples, 1, 8, 8, generator=draws)
    for k, quarter in enumerate(target.tolist()):
        high, wide = 4 * (quarter // 2), 4 * (quarter % 2)
        found[k, 0, high : high + 4, wide : wide + 4] += 1.0
    return found, target


class Shifted(Dataset[Any]):
    """Maps that are shifted by chance each time they are read."""

    def __init__(self, samples: int = 120, seed: int = 0, *, augment: bool = True) -> None:
        self.x, self.y = maps(samples, seed)
        self.augment = augment

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.x[index]
        if self.augment:
            x = torch.roll(x, int(torch.randint(-1, 2, ())), 2) + 0.1 * torch.randn(x.shape)
        return x, self.y[index]


def imported(model: nn.Module, *inputs: torch.Tensor) -> Network:
    """The network of a model with weights of a seed."""
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=draws) / parameter[0].numel() ** 0.5)
            elif not parameter.eq(1).all():
                parameter.zero_()
    given = inputs or (torch.zeros(2, 1, 8, 8),)
    return growir.from_torch(model, given if len(given) > 1 else given[0])
