"""A run of AutoGrow that is killed at random moments and goes on: is it the same network, to the bit?

    python -m experiments.autogrow.killed --mnist mnist.npz --folder killed --times 10

The same run as one arm of `depths.py`, by the command `growir grow`: once as it is, and once killed (SIGKILL) at so
many moments by chance, and resumed: each time after as long as a process takes to begin, and up to a quarter of what
the whole run took from there. `events` is how far it was each time, as lines of its log.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.autogrow import depths
from experiments.lines import Line
from growir.families import family_of
from growir.growth.config import parse_run
from growir.network import Network


def prepared(archive: Path, folder: Path, seed: int) -> Path:
    """The run file, with its data beside it."""
    (x, y), test = depths.images(archive, "train"), depths.images(archive, "test")
    order = np.random.default_rng([seed, 7]).permutation(len(x))[: depths.SAMPLES + depths.SELECTS]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "images.npz", x_train=x[order], y_train=y[order], x_test=test[0], y_test=test[1])
    arm = depths.Arm("Basic3ResNet")
    told = depths.settings(arm)
    told["policy"] = {**told["policy"], "net": arm.net, "width": depths.WIDTH}
    config = parse_run({**told, "data": {"path": "images.npz"}, "seed": seed, "threads": 1}, "killed")
    path = folder / "run.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    return path


def grown(path: Path, out: Path, seconds: float | None = None) -> bool:
    """Run it, or go on, and kill it after so many seconds; returns whether it came to its end."""
    command = [sys.executable, "-m", "growir", "grow", str(path), "--out", str(out), "--quiet"]
    if (out / "checkpoint").exists():
        command.append("--resume")
    with subprocess.Popen(command) as child:
        try:
            return child.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            child.kill()
            return False


def compared(archive: Path, folder: Path, times: int, seed: int) -> Line:
    """What came of it, both ways."""
    path, random = prepared(archive, folder, seed), np.random.default_rng([seed, 8])
    began, events = time.time(), list[int]()
    grown(path, folder / "whole")
    starts = (folder / "whole" / "run.toml").stat().st_mtime - began
    took, log = time.time() - began, folder / "killed" / "events.jsonl"
    while len(events) < times:
        if grown(path, folder / "killed", starts + float(random.uniform(0, (took - starts) / 4))):
            break
        events.append(len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0)
    grown(path, folder / "killed")
    one, two = (Network.load(folder / name / "network") for name in ("whole", "killed"))
    same = one.arrays.keys() == two.arrays.keys() and all(
        array.tobytes() == two.arrays[key].tobytes() for key, array in one.arrays.items()
    )
    found = {"found": str(family_of(one.graph)), "kills": len(events), "events": events, "seconds": round(took, 1)}
    return {**found, "same graph": one.graph.hash == two.graph.hash, "same weights": same}


def main(given: Sequence[str] | None = None) -> None:
    """Run both and say whether they are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("killed"))
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(given)
    print(json.dumps(compared(options.mnist, options.folder, options.times, options.seed)))


if __name__ == "__main__":
    main()
