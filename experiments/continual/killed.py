"""A sequence of tasks that is killed at random moments and goes on: is it the same master, to the bit?

    python -m experiments.continual.killed --folder killed --times 10

`growir continual` learns five tasks of the bundled digits by GROWN, with targets from other runs: once as it is, and
once killed (SIGKILL) at so many moments by chance, and resumed: each time after as long as a process takes to begin,
and up to a quarter of what the whole run took from there. `done` is how many tasks were done each time. What is locked
is compared by the digests that the master holds of each task's tensors, as it loads.
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

from experiments.lines import Line
from growir.continual import Master

RUN = """
name = "killed"
threads = 1
seed = {seed}

[data]
path = "digits"

[tasks]
each = 2

[method]
name = "{method}"
target = "best"
epochs = {epochs}
"""


def learned(path: Path, out: Path, seconds: float | None = None) -> bool:
    """Run it, or go on, and kill it after so many seconds; returns whether it came to its end."""
    command = [sys.executable, "-m", "growir", "continual", str(path), "--out", str(out), "--quiet"]
    if (out / "run.toml").exists():
        command.append("--resume")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        try:
            return child.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            child.kill()
            return False


def tasks_done(out: Path) -> int:
    """How many tasks are done in a folder."""
    state = out / "state" / "state.json"
    return len(json.loads(state.read_text(encoding="utf-8"))["names"]) if state.exists() else 0


def compared(folder: Path, times: int, seed: int, method: str, epochs: int) -> Line:
    """What came of it, both ways."""
    folder.mkdir(parents=True, exist_ok=True)
    path, random = folder / "run.toml", np.random.default_rng([seed, 9])
    path.write_text(RUN.format(seed=seed, method=method, epochs=epochs), encoding="utf-8")
    began, done = time.time(), list[int]()
    learned(path, folder / "whole")
    starts = (folder / "whole" / "run.toml").stat().st_mtime - began
    took = time.time() - began
    while len(done) < times:
        if learned(path, folder / "killed", starts + float(random.uniform(0, (took - starts) / 4))):
            break
        done.append(tasks_done(folder / "killed"))
    learned(path, folder / "killed")
    one, two = (Master.load(folder / name / "master") for name in ("whole", "killed"))
    same = one.arrays.keys() == two.arrays.keys() and all(
        array.tobytes() == two.arrays[key].tobytes() for key, array in one.arrays.items()
    )
    return {
        "method": method,
        "kills": len(done),
        "done": done,
        "seconds": round(took, 1),
        "same document, masks and digests": one.to_data() == two.to_data() and not one.tasks_apart(two),
        "same weights": same,
    }


def main(given: Sequence[str] | None = None) -> None:
    """Run both and say whether they are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("killed"))
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="grown")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args(given)
    print(json.dumps(compared(options.folder, options.times, options.seed, options.method, options.epochs)))


if __name__ == "__main__":
    main()
