"""How well gains are predicted: every candidate of whole runs, by kind of move, at full and at small amplitude.

Growth runs of the strategy "whole" on the digits, the teacher-student problem and, where `GROWIR_MNIST` names the file,
MNIST; there also one with convolutions of few growths. `GROWIR_SEEDS` (3) is the number of seeds of each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import growir
from benchmarks.growth import MNIST
from growir.runs.calibration import candidates, summaries
from growir.runs.reading import RunLog
from growir.testing.teacher import teacher_student

SEEDS = int(os.environ.get("GROWIR_SEEDS", "3"))
VECTORS: dict[str, Any] = {"policy": {"strategy": "whole"}}
MAPS: dict[str, Any] = {
    "policy": {"strategy": "whole", "kernels": [3]},
    "budget": {"parameters": 20_000, "macs": 10**6, "steps": 3},
    "train": {"epochs_between": 1, "epochs_final": 1},
}
TEACHER: dict[str, Any] = {
    "policy": {"strategy": "whole", "activation": "selu", "neurons": 10},
    "train": {"batch_size": 128, "epochs_between": 50, "epochs_final": 1},
    "budget": {"parameters": 5000, "steps": 6},
}


def problems() -> Iterator[tuple[str, Any, Mapping[str, Any], int]]:
    """Name, data, settings and seeds of each problem; data may depend on the seed."""
    yield "digits", lambda seed: "digits", VECTORS, SEEDS
    yield "teacher-student", teacher_student, TEACHER, SEEDS
    if Path(MNIST).exists():
        yield "mnist", lambda seed: str(MNIST), VECTORS | {"budget": {"parameters": 50_000}}, SEEDS
        yield "mnist, convolutions", lambda seed: str(MNIST), MAPS, 1


def calibrated(name: str, data: Any, settings: Mapping[str, Any], seeds: int) -> list[dict[str, Any]]:
    """A row for each kind of move, of all seeds together."""
    found = []
    for seed in range(seeds):
        result = growir.grow(None, data(seed), seed=seed, **settings)
        found += candidates(RunLog.of(result.events))
    return [
        {
            "what": f"{name}, {summary.move}",
            "value": summary.small.pearson,
            "unit": "Pearson, small amplitude",
            "slope": summary.small.slope,
            "candidates": summary.candidates,
            "full: Pearson": summary.full.pearson,
            "full: slope": summary.full.slope,
            "full: median ratio": summary.full.ratio,
        }
        for summary in summaries(found)
    ]


def run() -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [row for problem in problems() for row in calibrated(*problem)]
    finally:
        torch.set_num_threads(threads)
    return {"rows": rows, "torch": torch.__version__, "threads": 1}
