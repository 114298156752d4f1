"""Predicted against measured: what the Gauss-Newton approximation says of every split, and what the split network does.

    python -m experiments.gauss_newton.scatter cifar10.npz --out runs/scatter

The archive holds x_train (n, 32, 32, 3) of bytes and y_train (n,). Images are taken at 16 x 16, by means. Thin
networks are trained for some epochs, a direction is learned for every channel of every layer, and each of these splits
is carried out by itself (Fig. 3 of Gauss-Newton morphisms). Directions are those that Gauss-Newton likes best, in a
ball of .1 or .5 of the weights' norm, and those of steepest descent on its sphere (Fig. 4). A line of JSON is written
for each channel, and one for each layer and for all with the correlations: on samples that directions were learned on,
and on others.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import growir
from experiments.lines import add, read
from experiments.networks import NETS, cifar
from experiments.tables import grid
from growir.data.parts import Data
from growir.data.source import Source
from growir.growth.config import parse_run
from growir.growth.measure.directions import Learned, Learning, learned
from growir.growth.measure.effects import gauss_newton
from growir.growth.measure.sites import sites
from growir.growth.measure.splits import split
from growir.growth.problem import Problem
from growir.growth.session import Session
from growir.plot import Axis, linear_axis
from growir.render.scatter import Dot, scatter

ALL = "all"
WIDTHS = {"vgg": (8, 8, 12, 12, 16, 16), "resnet": (8, 12, 16), "seresnet": (8, 12, 16), "mobilenet": (8, 12, 12, 16)}


def session_of(options: argparse.Namespace, net: str, seed: int) -> Session:
    """The network after some training, with norm statistics taken anew."""
    train = cifar(options.data, "train", 0, options.samples, 16)
    select = cifar(options.data, "train", options.samples, options.measured, 16)
    torch.manual_seed(seed)
    network = growir.from_torch(NETS[net](WIDTHS[net]), torch.zeros(2, 3, 16, 16))
    settings = {
        "policy": {"name": "gauss_newton"},
        "budget": {"parameters": 10**8},
        "seed": seed,
        "threads": 1,
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9},
    }
    problem = Problem.of_data(Data.from_arrays(*train, select=select), "cross_entropy")
    session = Session(network, problem, parse_run(settings, "scatter"))
    session.train({"epochs": options.epochs, "batch_size": 64}, seed)
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
            "spearman": round(float(np.corrcoef(ranks[0], ranks[1])[0, 1]), 4),
            "slope": round(float(np.polyfit(a, b, 1)[0]), 3),
        }
    return result


def layers(lines: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A line for each layer, and one for all of them."""
    for name in dict.fromkeys(row["site"] for row in lines):
        yield {"layer": name, **correlations([row for row in lines if row["site"] == name])}
    yield {"layer": ALL, **correlations(lines)}


HEADS = ("network", "directions", "trust", "all", "worst layer", "first order alone", "other samples", "slope")


def table(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Correlations by network, directions and trust, over all channels and in the worst layer; means over seeds."""
    found = [line for line in lines if "layer" in line]

    def rows() -> Iterator[Sequence[str]]:
        for net, steepest, trust in dict.fromkeys((line["net"], line["steepest"], line["trust"]) for line in found):
            mine = [line for line in found if (line["net"], line["steepest"], line["trust"]) == (net, steepest, trust)]
            whole = [line for line in mine if line["layer"] == ALL]
            least = min((line for line in mine if line["layer"] != ALL), key=lambda line: line["train"]["pearson"])
            cells = [_over(whole, "train"), f"{least['train']['pearson']:.3f} ({least['layer']}, seed {least['seed']})"]
            cells += [_over(whole, "first_order"), _over(whole, "other"), _over(whole, "train", "slope")]
            yield [net, "steepest descent" if steepest else "Gauss-Newton", f"{trust:g}", *cells]

    yield from grid(HEADS, rows())


def _over(lines: Sequence[dict[str, Any]], what: str, number: str = "pearson") -> str:
    each = [line[what][number] for line in lines]
    return f"{np.mean(each):.3f} ({min(each):.3f} to {max(each):.3f})"


def figure(lines: Sequence[dict[str, Any]], seed: int) -> str:
    """Measured over predicted decreases of the loss by each split of a seed, a plot for each network and trust."""
    mine = [line for line in lines if "unit" in line and line["seed"] == seed and not line["steepest"]]
    panels: list[tuple[str, Axis, list[Dot]]] = []
    for net, trust in dict.fromkeys((line["net"], line["trust"]) for line in mine):
        some = [line for line in mine if (line["net"], line["trust"]) == (net, trust)]
        dots = [
            Dot(-line["train"]["predicted"], -line["train"]["measured"], None, "other", False, _named(line))
            for line in some
        ]
        numbers = [number for dot in dots for number in (dot.predicted, dot.measured)]
        panels.append((f"{net}, trust {trust:g}", linear_axis(numbers), dots))
    return scatter("splits by Gauss-Newton: predicted and measured", panels)


def _named(line: dict[str, Any]) -> str:
    return f"{line['site']} {line['unit']}"


def main() -> None:
    """Train, learn, measure and write, unless the lines are there already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--nets", nargs="+", choices=sorted(NETS), default=["vgg", "resnet", "seresnet"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--trust", nargs="+", type=float, default=[0.1, 0.5])
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--measured", type=int, default=300)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "scatter.jsonl"
    lines = read(path)
    there = {(line["net"], line["seed"], line["trust"], line["steepest"]) for line in lines if line.get("layer") == ALL}
    for net, seed in itertools.product(options.nets, options.seeds):
        session: Session | None = None
        for trust, steepest in itertools.product(options.trust, (False, True)):
            if (net, seed, trust, steepest) in there:
                continue
            session = session or session_of(options, net, seed)
            more = measured(session, options, {"net": net, "seed": seed, "trust": trust, "steepest": steepest})
            add(path, more)
            lines += more
    (options.out / "scatter.svg").write_text(figure(lines, options.seeds[0]), encoding="utf-8")
    print(*table(lines), sep="\n")


def measured(session: Session, options: argparse.Namespace, head: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of one network with directions of one kind."""
    steepest: bool = head["steepest"]
    how = Learning(options.steps, 128, options.samples, 0.1 * head["trust"], head["trust"], sphere=steepest)
    estimate = (lambda effects, losses: effects.mean(0)) if steepest else gauss_newton
    found = learned(session, sites(session.graph).sites, how, estimate, head["seed"])
    every = list(rows(session, found, options.measured))
    return [{**head, **line} for line in (*every, *layers(every))]


if __name__ == "__main__":
    main()
