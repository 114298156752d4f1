"""Networks that are grown in the middle of their training: data, model, optimizer, growth, what is measured."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

import growir
from growir.passes import Sequence, Split, Widen
from growir.rewrite import Pass

Batch = tuple[torch.Tensor, torch.Tensor]
Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Problem:
    """A network in training, and the growth that comes in the middle.

    Attributes:
        name: Of the row.
        model: Makes the model; `torch.manual_seed` was called.
        data: The batches of a seed, without end, and what is measured on the network: the smaller, the better.
        optimizer: Makes the optimizer.
        growth: The rewrite, by seed.
        before: Steps before it.
        after: Steps after it at which the network is measured.
    """

    name: str
    model: Callable[[], nn.Module]
    data: Callable[[int], Data]
    optimizer: Make
    growth: Callable[[int], Pass]
    before: int
    after: tuple[int, ...]


class Data:
    """Batches drawn by a generator of one's own, so that all variants of a run see the same ones."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(1000 + seed)

    def batch(self) -> Batch:
        raise NotImplementedError

    def loss(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(module(batch[0]), batch[1])

    def measured(self, module: nn.Module) -> float:
        raise NotImplementedError


@dataclass
class Run:
    """A training that can be split in two: each copy goes on with the same batches."""

    module: fx.GraphModule
    optimizer: torch.optim.Optimizer
    data: Data

    def train(self, steps: int) -> None:
        self.module.train()
        for _ in range(steps):
            loss = self.data.loss(self.module, self.data.batch())
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
            self.optimizer.step()

    def measured(self) -> float:
        with torch.no_grad():
            return self.data.measured(self.module.eval())

    def copied(self) -> Run:
        generator = torch.Generator()
        generator.set_state(self.data.generator.get_state())
        data = copy.copy(self.data)
        data.generator = generator
        module, optimizer = copy.deepcopy((self.module, self.optimizer))
        return Run(module, optimizer, data)


def started(problem: Problem, seed: int) -> Run:
    """The run up to the growth."""
    torch.manual_seed(seed)
    data = problem.data(seed)
    module = growir.from_torch(problem.model(), data.batch()[0]).to_torch()
    run = Run(module, problem.optimizer(module.parameters()), data)
    run.train(problem.before)
    return run


# -- data -------------------------------------------------------------------------------------------------------------


class Stream(Data):
    """A teacher of 40 hidden units, with noise; batches never repeat. Measured: the excess test error."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        g = self.generator
        self.a, self.b = torch.randn(20, 40, generator=g) / 20**0.5 * 1.5, torch.randn(40, generator=g) * 0.3
        self.c = torch.randn(40, 1, generator=g) / 40**0.5
        self.x = torch.randn(4000, 20, generator=g)
        self.y = self.teacher(self.x)

    def teacher(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = 2 * torch.tanh(x @ self.a + self.b) @ self.c
        return found

    def batch(self) -> Batch:
        x = torch.randn(64, 20, generator=self.generator)
        return x, self.teacher(x) + 0.3 * torch.randn(64, 1, generator=self.generator)

    def loss(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        return F.mse_loss(module(batch[0]), batch[1])

    def measured(self, module: nn.Module) -> float:
        return float(F.mse_loss(module(self.x), self.y))


@functools.cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The 1797 digits of scikit-learn in one fixed random order, standardised as a whole."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return torch.tensor((x[order] - x.mean()) / x.std(), dtype=torch.float32), torch.tensor(y[order])


class Digits(Data):
    """Batches from 1200 digits. Measured: the loss on those, since optimizers are compared."""

    def batch(self) -> Batch:
        x, y = digits()
        chosen = torch.randint(0, 1200, (64,), generator=self.generator)
        return x[chosen], y[chosen]

    def measured(self, module: nn.Module) -> float:
        x, y = digits()
        return float(F.cross_entropy(module(x[:1200]), y[:1200]))


class AllDigits(Digits):
    """All of the 1200 digits at every step, for optimizers that want the whole gradient."""

    def batch(self) -> Batch:
        x, y = digits()
        return x[:1200], y[:1200]


class Shifted(Data):
    """Digits at random places of noisy 12 x 12 images; measured: the test loss on other digits."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        x, y = digits()
        fixed = torch.Generator().manual_seed(99)
        self.test = self._placed(x[1200:].view(-1, 8, 8), fixed), y[1200:]

    def _placed(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        n = len(x)
        out = 0.5 * torch.randn(n, 1, 12, 12, generator=generator)
        top, left = torch.randint(0, 5, (2, n, 1, 1), generator=generator)
        rows, columns = top + torch.arange(8).view(1, 8, 1), left + torch.arange(8).view(1, 1, 8)
        out[torch.arange(n).view(n, 1, 1), 0, rows, columns] += x
        return out

    def batch(self) -> Batch:
        x, y = digits()
        chosen = torch.randint(0, 1200, (32,), generator=self.generator)
        return self._placed(x[chosen].view(-1, 8, 8), self.generator), y[chosen]

    def measured(self, module: nn.Module) -> float:
        return float(F.cross_entropy(module(self.test[0]), self.test[1]))


@functools.cache
def text() -> torch.Tensor:
    """Python's own help topics, as numbers of 64 characters (rare ones are the last)."""
    from pydoc_data.topics import topics

    whole = "".join(topics[key] for key in sorted(topics))[:300_000]
    common = sorted(sorted(set(whole)), key=lambda c: -whole.count(c))[:63]
    number = {c: k for k, c in enumerate(common)}
    return torch.tensor([number.get(c, 63) for c in whole])


class Text(Data):
    """The next character of Python's help topics; measured: the loss on the last tenth."""

    length = 32

    def batch(self) -> Batch:
        at = torch.randint(0, 270_000, (16, 1), generator=self.generator) + torch.arange(self.length + 1)
        return text()[at][:, :-1], text()[at][:, 1:]

    def loss(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        return F.cross_entropy(module(batch[0]).flatten(0, 1), batch[1].flatten())

    def measured(self, module: nn.Module) -> float:
        at = torch.arange(271_000, 299_000, 100).view(-1, 1) + torch.arange(self.length + 1)
        return float(self.loss(module, (text()[at][:, :-1], text()[at][:, 1:])))


# -- models -----------------------------------------------------------------------------------------------------------


def mlp(*sizes: int, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    layers: list[nn.Module] = []
    for k in range(len(sizes) - 1):
        layers += [*([act()] if k else []), nn.Linear(sizes[k], sizes[k + 1])]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """Two convolutions with batch norm, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class ConvNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(Residual(width), Residual(width))
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]  # torch's modules return Any


class Block(nn.Module):
    """Attention of two heads, then a feed-forward part, each behind a layer norm."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (2, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.out(y)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))  # type: ignore[no-any-return]


class Language(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(64, width), nn.Parameter(torch.randn(Text.length, width) * 0.02)
        self.blocks = nn.Sequential(Block(width, inner), Block(width, inner))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.token(x) + self.place)))  # type: ignore[no-any-return]


# -- problems ---------------------------------------------------------------------------------------------------------


def optimizer(kind: str, **options: Any) -> Make:
    return lambda parameters: getattr(torch.optim, kind)(parameters, **options)


def all_of(*nodes: str, by: int) -> Callable[[int], Pass]:
    """Widen several spaces by fresh channels."""
    return lambda seed: Sequence(passes=tuple(Widen(node=node, by=by, seed=seed) for node in nodes))


def stream(name: str, make: Make, before: int = 3000) -> Problem:
    model = functools.partial(mlp, 20, 8, 1, act=nn.Tanh)
    return Problem(f"stream, {name}", model, Stream, make, all_of("layers.0", by=8), before, (200, 2000))


def digit(name: str, make: Make, *, after: tuple[int, ...] = (100, 500)) -> Problem:
    model = functools.partial(mlp, 64, 8, 8, 10)
    return Problem(f"digits, {name}", model, Digits, make, all_of("layers.0", "layers.2", by=8), 300, after)


def whole(name: str, make: Make) -> Problem:
    model = functools.partial(mlp, 64, 4, 10)
    return Problem(f"digits, {name}", model, AllDigits, make, all_of("layers.0", by=4), 40, (20, 100))


def conv(name: str, make: Make) -> Problem:
    # One residual stream and the channels inside each block.
    growth = all_of("stem", "blocks.0.conv1", "blocks.1.conv1", by=4)
    return Problem(f"residual convnet, {name}", functools.partial(ConvNet, 4), Shifted, make, growth, 500, (100, 800))


def language(name: str, make: Make) -> Problem:
    growth = all_of("blocks.0.fc1", "blocks.1.fc1", by=32)
    return Problem(f"language, {name}", functools.partial(Language, 32, 16), Text, make, growth, 600, (100, 800))


PROBLEMS: tuple[Problem, ...] = (
    stream("AdamW", optimizer("AdamW", lr=3e-3, weight_decay=0.0)),
    stream("SGD with momentum", optimizer("SGD", lr=0.03, momentum=0.9)),
    conv("AdamW", optimizer("AdamW", lr=2e-3)),
    conv("SGD with momentum", optimizer("SGD", lr=0.05, momentum=0.9)),
    language("AdamW", optimizer("AdamW", lr=2e-3)),
    digit("Adam", optimizer("Adam", lr=3e-3), after=(100, 500, 2000)),
    digit("SGD with momentum", optimizer("SGD", lr=0.02, momentum=0.9)),
    digit("NAdam", optimizer("NAdam", lr=3e-3)),
    digit("RAdam", optimizer("RAdam", lr=1e-2)),
    digit("Adamax", optimizer("Adamax", lr=1e-2)),
    digit("RMSprop", optimizer("RMSprop", lr=3e-3)),
    digit("Adagrad", optimizer("Adagrad", lr=3e-2)),
    digit("Adadelta", optimizer("Adadelta", lr=1.0)),
    whole("Rprop", optimizer("Rprop", lr=1e-3)),
)


def split(problem: Problem, *nodes: str) -> Problem:
    """The same problem, grown by splitting every unit with the default shares, a third and two thirds."""

    def growth(seed: int) -> Pass:
        return Sequence(passes=tuple(Split(node=node, channels=tuple(range(8))) for node in nodes))

    return dataclasses.replace(problem, name=f"{problem.name}, split", growth=growth)


SPLITS: tuple[Problem, ...] = (
    split(PROBLEMS[0], "layers.0"),
    split(next(p for p in PROBLEMS if p.name == "digits, Adam"), "layers.0", "layers.2"),
)
