"""Search for cells on little data, and train what was found beside random cells and a published one, all from scratch.

    GROWIR_CIFAR=cifar10.npz python -m experiments.cells.run --out runs/cells.jsonl
    python -m experiments.cells.table experiments/cells/small.jsonl

A line of JSON for each seed and cell; what is there is not run again. Every network has as many parameters as the found
one, as near as whole widths come, and the same training.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.cells.data import small
from experiments.lines import Line, add, read
from growir.cells import Genotype, genotype
from growir.cells.network import network
from growir.cells.plan import INPUTS, Kind, Plan
from growir.cells.reading import cells_of
from growir.cellsearch.config import CellSearchConfig, EvaluationConfig, parse_search
from growir.cellsearch.evaluating import train
from growir.cellsearch.problem import Images
from growir.cellsearch.report import search_cost
from growir.cellsearch.searching import search
from growir.growth.config import DataConfig
from growir.growth.data import check_data
from growir.growth.problem import Problem

RUN_FILE = Path(__file__).with_name("small.toml")
TRAIN, TEST = 2000, 5000  # images
RANDOM = 5  # random cells for each seed
PUBLISHED = "DARTS_V2"
FOUND = "found"


def configuration(seed: int) -> CellSearchConfig:
    """The small run file with a seed."""
    config = parse_search(tomllib.loads(RUN_FILE.read_text()), str(RUN_FILE))
    return config.model_copy(update={"seed": seed})


def images(seed: int) -> Images:
    """The data of a seed."""
    data = check_data(small(seed, TRAIN, TEST), DataConfig(), "CIFAR-10", seed)
    return Images(Problem.of_dataset(data), tuple(data.x_train.shape[1:]), data.outputs)


def by_chance(config: CellSearchConfig, *key: int) -> Genotype:
    """A genotype of as many nodes and the same operations: two inputs and two operations of each node by chance."""
    rng = np.random.default_rng(key)
    nodes, operations = config.cells.nodes, config.cells.operations
    pairs: dict[Kind, tuple[tuple[str, int], ...]] = {}
    for kind in ("normal", "reduce"):
        drawn: list[tuple[str, int]] = []
        for node in range(INPUTS, INPUTS + nodes):
            sources = sorted(int(k) for k in rng.permutation(node)[:2])
            drawn += [(operations[int(rng.integers(len(operations)))], source) for source in sources]
        pairs[kind] = tuple(drawn)
    states = tuple(range(INPUTS, INPUTS + nodes))
    return Genotype(pairs["normal"], states, pairs["reduce"], states)


def as_large(plan: Plan, size: EvaluationConfig, data: Images, parameters: int) -> EvaluationConfig:
    """The width at which a network of these cells has about so many parameters."""

    def count(width: int) -> int:
        graph = network(plan, data.shape, data.classes, cells=size.cells, width=width, reductions=size.reductions)
        return graph.costs().parameters

    width = min(range(1, 4 * size.width), key=lambda each: abs(count(each) - parameters))
    return size.model_copy(update={"width": width})


def searched(seed: int) -> Line:
    """A search, and what it took."""
    config = configuration(seed)
    found = search(config, images(seed))
    wide = {
        at.module: {f"{each.edge}": each.inner for each in at.operations if each.inner is not None}
        for at in cells_of(found.grown)
    }
    return {
        "genotype": str(found.genotype),
        **search_cost(found.summary),
        "growths": found.summary["steps"],
        "parameters": found.grown.costs().parameters,
        "inner": wide,
    }


def trained(seed: int, cell: Genotype, parameters: int | None) -> Line:
    """A network of cells from scratch; as large as the found one if that is said."""
    config, data = configuration(seed), images(seed)
    size = config.evaluation if parameters is None else as_large(cell, config.evaluation, data, parameters)
    found = train(data.network(cell, size, "cells", seed), data, size, seed)
    costs = found.network.graph.costs()
    return {
        "genotype": str(cell),
        "width": size.width,
        "parameters": costs.parameters,
        "macs": costs.macs,
        "accuracy": found.metrics["accuracy"],
        "loss": found.loss,
        "cpu": round(found.cpu, 2),
    }


def main(given: Sequence[str] | None = None) -> int:
    """Run what is asked for and is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/cells.jsonl"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    for seed in options.seeds:
        known: dict[str, Any] = {line["cell"]: line for line in read(options.out) if line["seed"] == seed}

        def tell(cell: str, line: Line, seed: int = seed, known: dict[str, Any] = known) -> None:
            known[cell] = {"seed": seed, "cell": cell, **line}
            add(options.out, [known[cell]])
            told = f", accuracy {line['accuracy']:.4f}" if "accuracy" in line else ""
            print(f"seed {seed}, {cell}: {line['parameters']} parameters{told}", flush=True)

        if "search" not in known:
            tell("search", searched(seed))
        if FOUND not in known:
            tell(FOUND, trained(seed, genotype(known["search"]["genotype"]), None))
        cells = {f"random {k}": by_chance(configuration(seed), seed, k) for k in range(RANDOM)}
        for name, cell in {PUBLISHED: genotype(PUBLISHED), **cells}.items():
            if name not in known:
                tell(name, trained(seed, cell, known[FOUND]["parameters"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
