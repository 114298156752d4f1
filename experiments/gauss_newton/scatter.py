"""Predicted against measured: what the Gauss-Newton approximation says of every split, and what the split network does.

    python experiments/gauss_newton/scatter.py cifar10.npz --net vgg --out scatter.jsonl

The archive holds x_train (n, 32, 32, 3) of bytes and y_train (n,). Images are taken at 16 x 16, by means. A thin
network is trained for some epochs, a direction is learned for every channel of every layer, and each of these splits is
carried out by itself (Fig. 3 of Gauss-Newton morphisms). A line of JSON is written for each channel, and one for each
layer and for all with the correlations: on samples that directions were learned on, and on others.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import growir
from growir.data.parts import Data
from growir.data.source import Source
from growir.growth.config import parse_run
from growir.growth.measure.directions import Learned, Learning, learned
from growir.growth.measure.effects import gauss_newton
from growir.growth.measure.sites import sites
from growir.growth.measure.splits import split
from growir.growth.problem import Problem
from growir.growth.session import Session


class Block(nn.Module):
    """A residual block, with squeeze and excitation perhaps, and a shortcut where shapes change."""

    def __init__(self, before: int, width: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.c2, self.b2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.squeeze = squeeze
        if squeeze:
            self.s1, self.s2 = nn.Conv2d(width, max(width // 4, 2), 1), nn.Conv2d(max(width // 4, 2), width, 1)
        same = stride == 1 and before == width
        self.short = nn.Identity() if same else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.b2(self.c2(torch.relu(self.b1(self.c1(x)))))
        if self.squeeze:
            out = out * torch.sigmoid(self.s2(torch.relu(self.s1(out.mean((2, 3), keepdim=True)))))
        return torch.relu(out + self.short(x))


def vgg(widths: Sequence[Sequence[int]] = ((8, 8), (12, 12), (16, 16))) -> nn.Module:
    """Stages of convolutions with norms, each behind a pool."""
    layers: list[nn.Module] = []
    before = 3
    for stage in widths:
        for width in stage:
            layers += [nn.Conv2d(before, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * 4, 10))


def resnet(widths: Sequence[int] = (8, 12, 16), *, squeeze: bool = False) -> nn.Module:
    """A stem and a residual block for each width."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    before = widths[0]
    for k, width in enumerate(widths):
        layers.append(Block(before, width, 1 if k == 0 else 2, squeeze))
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


NETS = {"vgg": vgg, "resnet": resnet, "seresnet": lambda: resnet(squeeze=True)}


def session_of(options: argparse.Namespace) -> Session:
    """The network after some training, with norm statistics taken anew."""
    with np.load(options.data) as archive:
        images, labels = archive["x_train"][: options.samples], archive["y_train"][: options.samples]
    x = images.reshape(len(images), 16, 2, 16, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2) / 255
    x = ((x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)).astype(np.float32)
    torch.manual_seed(options.seed)
    network = growir.from_torch(NETS[options.net](), torch.zeros(2, 3, 16, 16))
    settings = {
        "policy": {"name": "gauss_newton"},
        "budget": {"parameters": 10**8},
        "seed": options.seed,
        "threads": 1,
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9},
    }
    problem = Problem.of_data(Data.from_arrays(x, labels.astype(np.int64)), "cross_entropy")
    session = Session(network, problem, parse_run(settings, "scatter"))
    session.train({"epochs": options.epochs, "batch_size": 64}, options.seed)
    session.recalibrate(0)
    return session


def predictions(session: Session, found: Learned, source: Source, count: int) -> dict[str, tuple[Any, Any]]:
    """By site what is predicted of each split on some samples, and what of it is of first order."""
    values, target = session.reading.gathered(source, [entry.name for entry in session.graph.inputs], count)
    at = found.effects.at(list(values.values()), lambda outputs: session.objective.each(outputs, target))
    effects = {site.name: at.split(site, found.theta[site.name]) for site in found.effects.sites}
    return {name: (gauss_newton(each, at.losses).tolist(), each.mean(0).tolist()) for name, each in effects.items()}


def rows(session: Session, found: Learned, count: int) -> Iterator[dict[str, Any]]:
    """One for each channel: predicted and measured changes of the mean loss, of training samples and of others."""
    network, parts = session.network(), {"train": session.data.train, "other": session.data.select}
    said = {part: predictions(session, found, source, count) for part, source in parts.items() if source is not None}
    before = {p: session.measure(s, count).losses.double().mean() for p, s in parts.items() if s is not None}
    for site in found.effects.sites:
        for k in range(site.count):
            step = split(site, found.effects.blocks[site.name], found.theta[site.name], [k])
            grown = network.apply(step)
            row: dict[str, Any] = {"site": site.name, "unit": k, "running": float(found.splits[site.name][k])}
            for part, source in parts.items():
                if source is not None:
                    after = session.measure(source, count, grown).losses.double().mean()
                    row[part] = {
                        "predicted": said[part][site.name][0][k],
                        "first_order": said[part][site.name][1][k],
                        "measured": float(after - before[part]),
                    }
            yield row


def correlations(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pearson, Spearman and slope of predicted against measured."""
    kinds = {"train": ("train", "predicted", "train"), "first_order": ("train", "first_order", "train")}
    kinds |= {"other": ("other", "predicted", "other"), "train_to_other": ("train", "predicted", "other")}
    result: dict[str, Any] = {}
    for name, (part, key, truth) in kinds.items():
        a = np.array([row[part][key] for row in found])
        b = np.array([row[truth]["measured"] for row in found])
        ranks = [np.argsort(np.argsort(each)) for each in (a, b)]
        result[name] = {
            "pearson": round(float(np.corrcoef(a, b)[0, 1]), 4),
            "spearman": round(float(np.corrcoef(*ranks)[0, 1]), 4),
            "slope": round(float(np.polyfit(a, b, 1)[0]), 3),
        }
    return result


def main() -> None:
    """Train, learn, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("scatter.jsonl"))
    parser.add_argument("--net", choices=sorted(NETS), default="vgg")
    parser.add_argument("--samples", type=int, default=3300)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--trust", type=float, default=0.1)
    parser.add_argument("--measured", type=int, default=300)
    parser.add_argument("--steepest", action="store_true", help="first order alone, on the sphere")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    session = session_of(options)
    how = Learning(options.steps, 128, options.samples, 0.1 * options.trust, options.trust, sphere=options.steepest)
    began = time.process_time()
    estimate = (lambda effects, losses: effects.mean(0)) if options.steepest else gauss_newton
    found = learned(session, sites(session.graph).sites, how, estimate, options.seed)
    head = {"net": options.net, "seed": options.seed, "trust": options.trust, "steepest": options.steepest}
    with options.out.open("a", encoding="utf-8") as file:

        def tell(line: dict[str, Any]) -> None:
            file.write(json.dumps({**head, **line}) + "\n")

        tell({"learned_in": round(time.process_time() - began, 1), "skipped": dict(found.effects.skipped)})
        every = list(rows(session, found, options.measured))
        for row in every:
            tell(row)
        for name in dict.fromkeys(row["site"] for row in every):
            tell({"layer": name, **correlations([row for row in every if row["site"] == name])})
        total = {"layer": "all", **correlations(every)}
        tell(total)
        print(json.dumps({**head, **total}))


if __name__ == "__main__":
    main()
