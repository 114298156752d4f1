"""Split the residual classes of a ResNet and of a squeeze-and-excite network while they train.

A residual class is every layer whose channels meet in a sum: none of them can be widened alone. Squeeze-and-excite
gates hang on the same channels. Here each class is split as a whole, three times, in the middle of training: once with
the optimizer carried along, once with a new optimizer after each growth. Run it as a script or cell by cell; it writes
grow_resnet.json and grow_resnet.svg here, and takes a minute on a CPU. `--short` only shows that it runs.
"""

# %% The task: handwritten digits, 8 x 8 pixels

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import growir
from growir import live
from growir.passes import Sequence as Passes
from growir.passes import Split

EPOCHS = 1 if "--short" in sys.argv else 6  # before, between and after growths
GROWTHS = 3
RATE = 3e-3

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
labels = torch.tensor(digits.target)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train_set, test_set = order[:1400], order[1400:]
if "--short" in sys.argv:
    train_set = train_set[:192]


# %% Two networks, written by hand in torch


class Gate(nn.Module):
    """Squeeze and excite (Hu et al. 2018): every channel times a number that all channels decide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, width // 2, 1)
        self.excite = nn.Conv2d(width // 2, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.excite(gate))


class Block(nn.Module):
    """conv - norm - relu - conv - norm, perhaps gated, plus the input."""

    def __init__(self, before: int, width: int, stride: int, gated: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.gate = Gate(width) if gated else nn.Identity()
        self.skip = nn.Conv2d(before, width, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(self.gate(y) + self.skip(x))


class ResNet(nn.Module):
    """A stem and two stages of two blocks."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(
            Block(4, 4, 1, gated), Block(4, 4, 1, gated), Block(4, 8, 2, gated), Block(8, 8, 1, gated)
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))  # type: ignore[no-any-return]


# %% A growth: half of the channels of every residual class, in one rewrite


def residual_classes(graph: growir.Graph) -> list[growir.ChannelSpace]:
    """The free spaces that several convolutions produce together."""
    spaces = [space for space in growir.channel_spaces(graph) if not space.pins]
    kernels = {node.name for node in graph.nodes if node.op.kind() == "conv2d"}
    return [space for space in spaces if len({s.parameter.rpartition(".")[0] for s in space.producers} & kernels) > 1]


def growth(graph: growir.Graph) -> Passes:
    """Split every second channel of each residual class: the function stays, and a third of each weight moves over."""
    classes = residual_classes(graph)
    return Passes(passes=tuple(Split(node=s.name, channels=tuple(range(0, s.units, 2))) for s in classes))


# %% Training, which growth does not interrupt


def run(model: nn.Module, migrate: bool) -> dict[str, Any]:
    """Train, grow, train on; the loss of every step, and what happened at each growth."""
    module = growir.from_torch(model, (images[:2],)).to_torch()
    optimizer: torch.optim.Optimizer = torch.optim.Adam(module.parameters(), RATE)
    shuffle = torch.Generator().manual_seed(0)
    losses: list[float] = []
    growths: list[dict[str, Any]] = []
    for phase in range(GROWTHS + 1):
        if phase:
            step = growth(live.network_of(module).graph)
            module, report = live.grow(module, step, optimizer if migrate else None, verify=images[test_set])
            if not migrate:
                optimizer = torch.optim.Adam(module.parameters(), RATE)
            classes = residual_classes(live.network_of(module).graph)
            growths.append(
                {
                    "step": len(losses),
                    "change of an output": report.measured,
                    "milliseconds": 1e3 * report.seconds,
                    "widths": {space.name: space.width for space in classes},
                    "parameters": sum(p.numel() for p in module.parameters()),
                }
            )
        module.train()
        for _ in range(EPOCHS):
            shuffled = train_set[torch.randperm(len(train_set), generator=shuffle)]
            for batch in shuffled.split(64):
                loss = F.cross_entropy(module(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
                optimizer.step()
                losses.append(loss.item())
    with torch.no_grad():
        found = module.eval()(images[test_set]).argmax(1)
    accuracy = (found == labels[test_set]).double().mean().item()
    return {"losses": losses, "growths": growths, "test accuracy": accuracy}


def shock(losses: Sequence[float], at: int, steps: int = 10) -> float:
    """How much higher the loss is in the steps after a growth than in those before."""
    after, before = losses[at : at + steps], losses[max(at - steps, 0) : at]
    return sum(after) / len(after) - sum(before) / len(before)


results: dict[str, dict[str, Any]] = {}
for name, gated in (("ResNet", False), ("SE-ResNet", True)):
    for migrate in (True, False):
        torch.manual_seed(0)
        key = f"{name}, {'optimizer carried along' if migrate else 'new optimizer'}"
        results[key] = run(ResNet(gated), migrate)
        growths = results[key]["growths"]
        print(f"{key}: test accuracy {results[key]['test accuracy']:.3f}")
        for event in growths:
            event["shock"] = shock(results[key]["losses"], event["step"])
            widths = ", ".join(f"{space} {width}" for space, width in event["widths"].items())
            print(
                f"  step {event['step']}: {widths}; {event['parameters']} parameters, an output changed by "
                f"{event['change of an output']:.0e}, the loss after it by {event['shock']:+.3f}"
            )
Path("grow_resnet.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


# %% The loss through three growths, drawn without a plotting library


def smoothed(losses: Sequence[float], keep: float = 0.8) -> list[float]:
    """A running mean that forgets."""
    found: list[float] = []
    for loss in losses:
        found.append(loss if not found else keep * found[-1] + (1 - keep) * loss)
    return found


def panel(name: str, top: int, width: int = 640, height: int = 200) -> list[str]:
    """One network: a curve with and one without migration, on a logarithmic scale, growths as dashed lines."""
    curves = {key: smoothed(found["losses"]) for key, found in results.items() if key.startswith(f"{name},")}
    flat = [torch.tensor(curve).log10() for curve in curves.values()]
    low, high = min(float(c.min()) for c in flat), max(float(c.max()) for c in flat)
    count = max(len(c) for c in flat)

    def x(step: float) -> float:
        return 50 + (width - 60) * step / count

    def y(value: float) -> float:
        return top + 20 + (height - 40) * (high - value) / (high - low)

    parts = [f'<text x="50" y="{top + 12}" font-weight="bold">{name}: training loss by step</text>']
    for key, color, at in zip(curves, ("#0b6e4f", "#c1440e"), (width - 340, width - 150), strict=True):
        points = " ".join(f"{x(k):.1f},{y(float(v)):.1f}" for k, v in enumerate(torch.tensor(curves[key]).log10()))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts.append(f'<text x="{at}" y="{top + 12}" fill="{color}">{key.partition(", ")[2]}</text>')
        parts += [
            f'<line x1="{x(g["step"]):.1f}" x2="{x(g["step"]):.1f}" y1="{top + 20}" y2="{top + height - 20}" '
            'stroke="#999" stroke-dasharray="3 3"/>'
            for g in results[key]["growths"]
        ]
    for value in (low, high):
        parts.append(f'<text x="44" y="{y(value) + 4:.1f}" text-anchor="end">{10**value:.2g}</text>')
    parts.append(f'<text x="{width - 10}" y="{top + height - 6}" text-anchor="end">{count} steps</text>')
    return parts


lines = ['<svg xmlns="http://www.w3.org/2000/svg" width="640" height="420" font-family="sans-serif" font-size="11">']
lines += ['<rect width="640" height="420" fill="white"/>', *panel("ResNet", 5), *panel("SE-ResNet", 215), "</svg>"]
Path("grow_resnet.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")
