"""Language models from scratch, never grown and grown, at equal compute.

    python -m experiments.language.run --out runs/language.jsonl --tune
    python -m experiments.language.run --out runs/language.jsonl --units 1 4 --seeds 0-2
    python -m experiments.language.table runs/language.jsonl

First the rate and the scale of initial weights are tuned, by a seed that no result has, for each size that never grows;
what grows takes those of the large net. A line of JSON is written for each training, and what is there is not run
again, so that a run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import torch

from experiments.language.corpus import corpus
from experiments.language.training import ARMS, NEVER, PRESETS, Request, trained
from experiments.lines import Line, add, read
from experiments.yardsticks.run import seed_range

TUNING = 100  # the seed that settings are chosen by
RATES = (4e-3, 8e-3, 1.6e-2)
SCALES = (0.32, 0.64, 1.28)


def main(given: Sequence[str] | None = None) -> int:
    """Run what is asked for and is not there yet."""
    parser = _parser()
    options = parser.parse_args(given)
    torch.set_num_threads(options.threads)
    lines = read(options.out)
    known = {key_of(line) for line in lines}
    text = corpus(packages=PRESETS[options.preset].packages)
    for request in _wanted(options, lines, parser):
        if tuple(request) in known:
            continue
        found = trained(request, text)
        add(options.out, [{**found, "threads": options.threads}])
        told = f"{request.arm}, seed {request.seed}, {request.units:g} units, rate {request.rate:g}"
        print(f"{told}: {found['loss']:.4f} nats a byte, CPU {found['cpu']:.0f} s", flush=True)
    return 0


def key_of(line: Line) -> tuple[object, ...]:
    """What a line is of."""
    return tuple(line[name] for name in Request._fields)


def tuned(lines: Sequence[Line], preset: str) -> dict[str, tuple[float, float]]:
    """The rate and the scale with the lowest loss of the tuning seed, for each arm that has been tuned."""
    found: dict[str, Line] = {}
    for line in lines:
        mine = line["preset"] == preset and line["seed"] == TUNING
        if mine and (line["arm"] not in found or line["loss"] < found[line["arm"]]["loss"]):
            found[line["arm"]] = line
    return {arm: (line["rate"], line["scale"]) for arm, line in found.items()}


def _wanted(options: argparse.Namespace, lines: Sequence[Line], parser: argparse.ArgumentParser) -> Iterator[Request]:
    if options.tune:
        for arm, rate, scale in product([arm for arm in options.arms if arm in NEVER], RATES, SCALES):
            yield Request(options.preset, arm, TUNING, options.units[0], rate, scale)
        return
    settings = tuned(lines, options.preset)
    if "scratch" not in settings:
        parser.error(f"{options.out} has no tuned rate for the large net; run with --tune first")
    low, high = options.seeds
    for seed, units, arm in product(range(low, high + 1), options.units, options.arms):
        yield Request(options.preset, arm, seed, units, *settings.get(arm, settings["scratch"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs") / "language.jsonl")
    parser.add_argument("--preset", choices=list(PRESETS), default="cpu")
    parser.add_argument("--tune", action="store_true", help="choose rate and scale, at the first of the budgets")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS), metavar="ARM")
    parser.add_argument("--units", nargs="*", type=float, default=[1.0], help="budgets")
    parser.add_argument("--seeds", type=seed_range, default=(0, 2), help="the first and the last, as in 0-2")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
