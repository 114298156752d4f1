"""A run that is stopped anywhere goes on to the bits of one that was not, whatever it trains on and with."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import growir
from growir.data import Data
from growir.errors import RunError
from growir.growth import GrowthResult
from growir.growth.observer import Observer
from tests.growth.nets import EVERY, SGD, Dropped, Residual, Shifted, imported
from tests.sampling import thinned

ALTERNATING = {"name": "alternating", "growths": 2}
FITS = {"epochs_final": 2, "epochs_between": 1}
CASES: dict[str, dict[str, Any]] = {
    "after each phase": {"start": Residual, "policy": "random", "train": {"rate": "cosine"}},
    "after each epoch": {"start": Residual, "policy": "net2net", "train": {"checkpoint": "epoch", "clip": 1.0}},
    "after two steps, with dropout": {"start": Dropped, "policy": "random", "train": {"checkpoint": 2}},
    "with a final fit": {"start": Dropped, "schedule": ALTERNATING, "train": {"checkpoint": 2, **FITS}},
    "of several policies": {
        "start": Dropped,
        "policy": ["random", "net2net"],
        "schedule": ALTERNATING,
        "train": {"checkpoint": "epoch", **FITS},
    },
    "with rates that rise anew": {
        "start": Residual,
        "train": {"checkpoint": 3, "rate": {"name": "cosine", "rewarm": "new", "rewarm_steps": 4}},
    },
    "in bfloat16": {"start": Residual, "amp": "bfloat16", "train": {"checkpoint": 3}},
}


def grown(name: str, out: Path, *, resume: bool = False, stop: int | None = None, **more: Any) -> GrowthResult:
    case = {"policy": "random", "schedule": EVERY, "train": {}, **CASES[name], **more}
    ticks = 0

    def tick(phase: str, done: int, total: int) -> None:
        nonlocal ticks
        ticks += 1
        if stop is not None and ticks > stop:
            raise KeyboardInterrupt

    data = Data.from_dataset(Shifted(), select=Shifted(40, 2, augment=False), test=Shifted(30, 1, augment=False))
    start = imported(case.pop("start")())
    case["train"] = {"batch_size": 32, **case["train"]}
    settings: dict[str, Any] = {"optimizer": SGD, "seed": 3, "threads": 1}
    observer = Observer(tick=tick)
    found = growir.grow(start, data, out=out, resume=resume, observer=observer, **{**settings, **case})
    grown.ticks = ticks  # type: ignore[attr-defined]
    return found


def bits(result: GrowthResult) -> tuple[str, list[bytes], list[bytes]]:
    return (
        result.network.graph.hash,
        [array.tobytes() for array in result.network.arrays.values()],
        [array.tobytes() for array in result.grown.arrays.values()],
    )


@pytest.mark.parametrize("name", thinned(CASES, 2, 1))
def test_it_ends_at_the_same_bits(name: str, tmp_path: Path) -> None:
    whole = grown(name, tmp_path / "whole")
    ticks: int = grown.ticks  # type: ignore[attr-defined]
    draws = random.Random(name)
    for k in range(2):
        out = tmp_path / f"stopped{k}"
        with pytest.raises(KeyboardInterrupt):
            grown(name, out, stop=draws.randrange(1, ticks))
        found = grown(name, out, resume=True)
        assert bits(found) == bits(whole)
        assert found.summary["test_after_fit"] == whole.summary["test_after_fit"]
        assert found.summary["test_before_fit"] == whole.summary["test_before_fit"]
        kinds = [event.event for event in found.events if event.event != "interrupted"]
        assert kinds == [event.event for event in whole.events]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"policy": "net2net"}, "[policy] name: random, now net2net"),
        ({"optimizer": "adam"}, "[optimizer] name: sgd, now adam"),
        ({"optimizer": lambda p: torch.optim.SGD(p, lr=0.1)}, "[optimizer] name: sgd, now tests.growth.test_going_on:"),
        ({"schedule": {"name": "every", "epochs": 2, "growths": 2}}, "[schedule] epochs: 1, now 2"),
        ({"start": Dropped}, "the network it started from, is not what it was"),
    ],
)
def test_another_policy_optimizer_or_network_is_refused(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        grown("after each phase", tmp_path / "run", stop=6)
    with pytest.raises(RunError) as caught:
        grown("after each phase", tmp_path / "run", resume=True, **more)
    assert said in str(caught.value)
    assert bits(grown("after each phase", tmp_path / "run", resume=True)) == bits(
        grown("after each phase", tmp_path / "again")
    )
