"""How long a user waits for `growir --help` and `growir inspect`, and how loading grows with the document."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

REPEATS = 9
SMALL, LARGE = 1_000, 10_000


class Seconds(NamedTuple):
    wall: float
    cpu: float


def document(size: int) -> str:
    """Residual blocks of four nodes in stages, `size` nodes in all."""
    nodes: list[dict[str, Any]] = [{"name": "stem", "op": "linear", "inputs": ["x"], "out_features": 16}]
    last = "stem"
    for k in range((size - 2) // 4):
        block = f"stage{k // 500}.block{k}"
        nodes += [
            {"name": f"{block}.fc1", "op": "linear", "inputs": [last], "out_features": 16},
            {"name": f"{block}.act", "op": "relu", "inputs": [f"{block}.fc1"]},
            {"name": f"{block}.fc2", "op": "linear", "inputs": [f"{block}.act"], "out_features": 16},
            {"name": f"{block}.sum", "op": "add", "inputs": [last, f"{block}.fc2"]},
        ]
        last = f"{block}.sum"
    while len(nodes) < size:
        nodes.append({"name": f"head{len(nodes)}", "op": "linear", "inputs": [last], "out_features": 10})
    whole = {"schema": "growir/1", "inputs": [{"name": "x", "shape": ["N", 16]}], "nodes": nodes}
    return json.dumps({**whole, "outputs": [nodes[-1]["name"]]})


def process(*args: str) -> Seconds:
    """Time a Python process; CPU seconds are its own and its children's."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # One thread: numpy's would otherwise spin up and be counted.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *args], stdout=subprocess.DEVNULL, check=True, env=environment)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def load(text: str) -> Seconds:
    """Time loading in this process, imports done."""
    from growir.verify import load

    start, cpu = time.perf_counter(), time.process_time()
    load(text)
    return Seconds(time.perf_counter() - start, time.process_time() - cpu)


def interleaved(jobs: Mapping[str, Callable[[], Seconds]]) -> dict[str, Seconds]:
    """Medians of repeats in turn: what else the machine does then falls on all alike. The first round warms up."""
    found: dict[str, list[Seconds]] = {name: [] for name in jobs}
    for turn in range(REPEATS + 1):
        for name, job in jobs.items():
            seconds = job()
            if turn:
                found[name].append(seconds)
    return {n: Seconds(*(statistics.median(column) for column in zip(*runs))) for n, runs in found.items()}


def run() -> dict[str, Any]:
    small, large = document(SMALL), document(LARGE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.json"
        path.write_text(large, encoding="utf-8")
        command = ("-m", "growir")
        found = interleaved(
            {
                "python -c pass": lambda: process("-c", "pass"),
                "python -c 'import numpy'": lambda: process("-c", "import numpy"),
                "growir --help": lambda: process(*command, "--help"),
                "growir inspect, 10 000 nodes": lambda: process(*command, "inspect", str(path)),
                "growir inspect --json, 10 000 nodes": lambda: process(*command, "inspect", "--json", str(path)),
                "growir inspect --all, 10 000 nodes": lambda: process(*command, "inspect", "--all", str(path)),
                "growir diff, 10 000 nodes": lambda: process(*command, "diff", str(path), str(path)),
            }
        )
    loads = interleaved({"load, 1 000 nodes": lambda: load(small), "load, 10 000 nodes": lambda: load(large)})
    limits = {
        "growir --help": 0.35,
        "growir inspect, 10 000 nodes": 1.0,
        "growir inspect --json, 10 000 nodes": 1.0,
    }
    rows: list[dict[str, Any]] = []
    for name, seconds in {**found, **loads}.items():
        row: dict[str, Any] = {"what": name, "value": seconds.wall, "unit": "s", "cpu seconds": seconds.cpu}
        rows.append({**row, **({"limit": limits[name]} if name in limits else {})})
    one, ten = loads.values()
    # Of CPU seconds: a ratio of two short waits says more about the machine's other work.
    rows.append({"what": "load, 10 000 over 1 000 nodes", "value": ten.cpu / one.cpu, "unit": "x", "limit": 12.0})
    return {"rows": rows}
