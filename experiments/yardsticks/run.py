"""Growth and its yardsticks, each in a process of its own.

    python -m experiments.yardsticks.run --out yardsticks.jsonl --seeds 0-4
    python -m experiments.yardsticks.table yardsticks.jsonl

A line of JSON is written for each problem, seed and arm. What is there already is not run again, so that a run goes on
where it was stopped. Growth comes first: the others get the operations and the CPU seconds that it took. Its network
lies in a folder beside the lines. Other settings of growth are compared under another name, with yardsticks of their
own:

    ... --name late --growth '{"policy": {"significance": 0.01}, "train": {"epochs_final": 40}}'
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.lines import add, read
from experiments.yardsticks.arms import ARMS, Line, Request
from experiments.yardsticks.problems import PROBLEMS, Problem

Key = tuple[str, int, str, str]  # problem, seed, arm, and the growth that the arm is beside
GROWTH, TREES = "growth", "trees"


def main(given: Sequence[str] | None = None) -> int:
    """Run what is asked for and is not there yet; 1 if something failed."""
    parser = _parser()
    options = parser.parse_args(given)
    lines = read(options.out)
    wrong = refusal(options, lines)
    if wrong is not None:
        parser.error(wrong)
    known = {key_of(line): line for line in lines}
    failed = 0
    for name, seed, arm in _wanted(options):
        request = _request(options, known, name, seed, arm)
        if request is None:
            continue
        began = time.perf_counter()
        key = _key(options.name, name, seed, arm)
        try:
            found = run(request)
        except RuntimeError as error:
            print(f"{name}, seed {seed}, {arm}: {error}", file=sys.stderr)
            failed = 1
            continue
        head: Line = dict(zip(("problem", "seed", "arm", "of"), key, strict=True))
        if arm == GROWTH:
            head["settings"] = options.growth
        if PROBLEMS[name].needs == "mnist":
            head["mnist_samples"] = options.mnist_samples
        known[key] = {**head, **found}
        add(options.out, [known[key]])
        wall = time.perf_counter() - began
        told = f"{found['score']:.4f}, CPU {found['cpu']:.1f} s, in {wall:.1f} s"
        print(f"{name}, seed {seed}, {key[2]}: {told}", flush=True)
    return failed


def run(request: Request) -> Line:
    """One arm in a process of its own. Raises RuntimeError with what it said if it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.yardsticks.arms"],
        input=json.dumps(request._asdict()),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    found: Line = json.loads(done.stdout.splitlines()[-1])
    return found


def key_of(line: Line) -> Key:
    """What a line is of."""
    return line["problem"], line["seed"], line["arm"], line["of"]


def _key(growth: str, problem: str, seed: int, arm: str) -> Key:
    """Growth goes by its name; trees are the same beside any growth."""
    return problem, seed, growth if arm == GROWTH else arm, "" if arm == TREES else growth


def _wanted(options: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """Problems, seeds and arms in the order that they run in."""
    low, high = options.seeds
    arms = [arm for arm in ARMS if arm in options.arms]
    problems = [PROBLEMS[name] for name in options.problems if not lacks(options, PROBLEMS[name])]
    for seed in range(low, high + 1):
        for problem in problems:
            yield from ((problem.name, seed, arm) for arm in arms if arm != TREES or problem.table)


def lacks(options: argparse.Namespace, problem: Problem) -> bool:
    """Whether a problem's file is not there, of which one message says so."""
    if problem.needs is None:
        return False
    path: Path | None = getattr(options, problem.needs)
    if path is not None and path.is_file():
        return False
    found = "no file is given" if path is None else f"there is no {path}"
    print(
        f"{problem.name} is left out: {found}; give an .npz with x_train, y_train, x_test and y_test by "
        f"--{problem.needs} or GROWIR_{problem.needs.upper()}",
        file=sys.stderr,
    )
    return True


def _request(options: argparse.Namespace, known: dict[Key, Line], name: str, seed: int, arm: str) -> Request | None:
    """What is to be run; None where it is there, or cannot be for lack of growth's line, which is said."""
    if _key(options.name, name, seed, arm) in known:
        return None
    growth = None if arm in (GROWTH, TREES) else known.get(_key(options.name, name, seed, GROWTH))
    if growth is None and arm not in (GROWTH, TREES):
        print(f"{name}, seed {seed}, {arm}: {options.name} has no line yet; run it first", file=sys.stderr)
        return None
    folder = options.out.with_suffix("") / f"{options.name}, {name}, {seed}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    files = {key: None if path is None else str(path) for key, path in _files(options).items()}
    return Request(name, seed, arm, options.growth, str(folder), growth, **files, samples=options.mnist_samples)


def _files(options: argparse.Namespace) -> dict[str, Path | None]:
    return {"mnist": options.mnist, "cifar": options.cifar}


def refusal(options: argparse.Namespace, lines: Sequence[Line]) -> str | None:
    """Why a run cannot go on with the lines that there are, if it cannot."""
    if options.growth and options.name == GROWTH:
        return f"--growth: settings other than the defaults need a --name other than {GROWTH!r}"
    if options.name != GROWTH and options.name in ARMS:
        return f"--name: {options.name!r} is an arm; take another name"
    for line in lines:
        if line["arm"] == options.name and line["settings"] != options.growth:
            return (
                f"--growth: {options.out} has {options.name!r} with {json.dumps(line['settings'])}; give another --name"
            )
        if line.get("mnist_samples", options.mnist_samples) != options.mnist_samples:
            many = line["mnist_samples"] or "all"
            return f"--mnist-samples: {options.out} has lines of {many} samples; give another --out"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs") / "yardsticks.jsonl")
    parser.add_argument("--problems", nargs="*", choices=list(PROBLEMS), default=list(PROBLEMS), metavar="PROBLEM")
    parser.add_argument("--seeds", type=seed_range, default=(0, 4), help="the first and the last, as in 0-4")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS), metavar="ARM")
    parser.add_argument("--growth", type=_settings, default={}, help="sections of a run file, as JSON")
    parser.add_argument("--name", default=GROWTH, help="of growth with these settings")
    parser.add_argument("--mnist", type=Path, default=_archive("GROWIR_MNIST"))
    parser.add_argument("--cifar", type=Path, default=_archive("GROWIR_CIFAR"))
    parser.add_argument("--mnist-samples", type=int, help="training samples of MNIST; by default all")
    return parser


def _archive(variable: str) -> Path | None:
    given = os.environ.get(variable)
    return Path(given) if given else None


def seed_range(text: str) -> tuple[int, int]:
    """The first and the last seed, of "0-4" or "3"."""
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _settings(text: str) -> Any:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"an object of sections is needed, but this is {type(found).__name__}")
    return found


if __name__ == "__main__":
    sys.exit(main())
