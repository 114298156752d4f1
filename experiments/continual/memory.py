"""Twenty synthetic tasks: how large each task's view is beside the master, and what the master takes on disk.

    python -m experiments.continual.memory --out runs/memory.jsonl
    python -m experiments.continual.memory --table experiments/continual/memory.jsonl

A task is to tell three clouds of points apart, whose centres it shares in part with others: of forty centres in sixteen
dimensions each task draws three. A perceptron of two layers of eight learns them by GROWN with the targets of scratch
and fine-tune runs. *Copies* is what as many networks would take that are as large as the first.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from experiments.continual.nets import mlp
from experiments.lines import Line, add, read
from experiments.tables import grid, mean_of
from growir import from_torch
from growir.continual import Experience, learn
from growir.continual.keeping import Kept
from growir.continual.master import Master
from growir.data.parts import Data

TASKS, CLOUDS, CENTRES, SIZE = 20, 3, 40, 16
SAMPLES, TESTED = 300, 300
SPREAD = 1.6  # of a cloud, where centres have 1 in each dimension
SETTINGS = {"epochs": 15, "batch_size": 32, "learning_rate": 0.005, "target": "best"}
SHOWN = (1, 2, 5, 10, 15, 20)


def experiences(seed: int) -> list[Experience]:
    """The tasks of a seed."""
    rng = np.random.default_rng([seed, 20])
    centres = rng.normal(size=(CENTRES, SIZE))
    found: list[Experience] = []
    for k in range(TASKS):
        mine = rng.permutation(CENTRES)[:CLOUDS]
        y = np.arange(SAMPLES + TESTED) % CLOUDS
        x = (centres[mine[y]] + SPREAD * rng.normal(size=(len(y), SIZE))).astype(np.float32)
        data = Data.from_arrays(x[:SAMPLES], y[:SAMPLES], test=(x[SAMPLES:], y[SAMPLES:]))
        found.append(Experience(f"task {k + 1}", data, tuple(int(c) for c in mine)))
    return found


def run(seed: int, method: str = "grown") -> Line:
    """One sequence: sizes after each task."""
    tasks = experiences(seed)
    graph = from_torch(mlp((1, 1, SIZE), CLOUDS, (8, 8)), torch.zeros(2, 1, 1, SIZE)).graph
    shaped = [_maps(each) for each in tasks]
    disk: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def told(state: Kept) -> None:
            master = folder / "out" / "state" / "method" / "master"
            disk.append(sum(each.stat().st_size for each in master.iterdir() if each.suffix == ".safetensors"))

        found = learn(graph, shaped, method=method, settings=SETTINGS, seed=seed, out=folder / "out", told=told)
        assert found.master is not None
        again = Master.load(folder / "out" / "state" / "method" / "master")
    assert not again.tasks_apart(found.master)
    whole = sum(array.size for array in found.master.arrays.values())
    return {
        "seed": seed,
        "accuracy": [float(x) for x in np.diag(found.accuracy)],
        "forgetting": found.measures.forgetting,
        "parameters": list(found.parameters),
        "bytes": list(found.sizes),
        "disk": disk,
        "views": [sum(array.size for array in network.arrays.values()) for network in found.networks.values()],
        "master": whole,
        "channels": [sum(each.values()) for each in found.channels],
    }


def _maps(task: Experience) -> Experience:
    """The same with samples as images of one row, as the networks of `nets` read them."""
    parts = []
    for part in (task.data.train, task.data.test):
        assert part is not None, "it was made with both"
        batch = next(iter(part.batches(10_000, None)))
        assert isinstance(batch.inputs, tuple), "they are arrays"
        parts.append((batch.inputs[0].numpy().reshape(-1, 1, 1, SIZE), batch.target.numpy()))
    return Experience(task.name, Data.from_arrays(*parts[0], test=parts[1]), task.classes)


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Means over seeds, after so many tasks."""
    heads = ["tasks", "numbers kept", "bytes kept", "files", "copies, bytes", "channels added", "accuracy, %"]

    def mean(values: Sequence[float], digits: int = 0) -> str:
        found = mean_of(values)
        return "" if found is None else f"{found.mean:,.{digits}f}"

    rows: list[list[object]] = []
    for t in SHOWN:
        rows.append(
            [
                t,
                mean([line["parameters"][t - 1] for line in lines]),
                mean([line["bytes"][t - 1] for line in lines]),
                mean([line["disk"][t - 1] for line in lines]),
                mean([t * 4 * line["parameters"][0] for line in lines]),
                mean([sum(line["channels"][:t]) for line in lines], 1),
                mean([100 * float(np.mean(line["accuracy"][:t])) for line in lines], 1),
            ]
        )
    yield from grid(heads, rows)
    shares = [view / line["master"] for line in lines for view in line["views"]]
    yield ""
    yield (
        f"A view has {100 * min(shares):.0f} to {100 * max(shares):.0f} % of the master's numbers at the end, with all "
        f"heads; forgetting is {max(line['forgetting'] for line in lines):g} with every seed."
    )


def main(given: Sequence[str] | None = None) -> None:
    """Run what is not there yet, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/memory.jsonl"))
    parser.add_argument("--table", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    options = parser.parse_args(given)
    if options.table is not None:
        print("\n".join(table(read(options.table))))
        return
    torch.set_num_threads(1)
    known = {line["seed"] for line in read(options.out)}
    for seed in options.seeds:
        if seed not in known:
            add(options.out, [run(seed)])
            print(f"seed {seed}", flush=True)


if __name__ == "__main__":
    main()
