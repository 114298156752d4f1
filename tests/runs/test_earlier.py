"""Run directories that earlier versions wrote: they are read, shown, asked and resumed for ever.

`version1/` holds what growir wrote before events were records; the goldens beside those of `growir log` are what it
printed of them then.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import growir
from growir.growth.observer import Observer
from growir.network import Network
from growir.runs.reading import read_event, read_run
from growir.runs.records import Event, Finished, Growth, Started
from tests.cli.command import GOLDEN
from tests.cli.command import growir as command
from tests.cli.test_inspect import stripped

VERSION1 = Path(__file__).parent / "version1"
RUNS = ("amounts", "images", "stopped")
TRAIN = {"epochs_final": 3, "epochs_between": 2, "epochs_trial": 2, "batch_size": 16}


def numbers(count: int, width: int, salt: int = 0) -> NDArray[np.float32]:
    """The inputs that the runs were given: whole numbers, so that they are the same to the bit everywhere."""
    k = np.arange(count * width, dtype=np.int64)
    return ((((k * 7919 + salt) ** 2 % 1009) / 504.5) - 1).astype(np.float32).reshape(count, width)


def split(x: NDArray[np.float32], y: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {"x_train": x[:200], "y_train": y[:200], "x_test": x[200:], "y_test": y[200:]}


def table() -> dict[str, NDArray[Any]]:
    x = numbers(240, 3)
    return split(x, (x[:, 0] * x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 0.2))


def amounts() -> dict[str, NDArray[Any]]:
    x = numbers(240, 2, 3)
    return split(x, (np.abs(x[:, 0]) + x[:, 1] ** 2).astype(np.float32))


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(VERSION1 / name, tmp_path / name))

    return copy


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("view", ["", "calibration", "gaps"])
@pytest.mark.parametrize("name", RUNS)
def test_what_is_shown_is_what_was_shown(name: str, view: str, golden: Callable[[Path, str], None]) -> None:
    done = command("log", VERSION1 / name, *([f"--{view}"] if view else []))
    assert (done.code, done.err) == (0, "")
    golden(GOLDEN / "log" / f"version1_{name}{view and '_'}{view}.txt", stripped(done.out))


@pytest.mark.parametrize("name", RUNS)
def test_rewritten_a_run_says_the_same(name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(name)
    before = [command("log", folder, *flags).out for flags in ((), ("--calibration",), ("--gaps",), ("--json",))]
    events = [read_event(line) for line in lines(folder)]
    assert None not in events
    found = [event.to_json() for event in events if event is not None]
    assert all(event["record"] == (2 if event["event"] == "growth" else 1) for event in found)
    (folder / "events.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in found), encoding="utf-8")
    after = [command("log", folder, *flags).out for flags in ((), ("--calibration",), ("--gaps",), ("--json",))]
    assert after == before
    assert [read_event(line) for line in lines(folder)] == events


def test_no_key_of_a_growth_is_lost() -> None:
    for name in RUNS:
        for line in (line for line in lines(VERSION1 / name) if line["event"] == "growth"):
            growth = read_event(line)
            assert isinstance(growth, Growth)
            told = {**growth.to_json(), **growth.passes[0], **growth.notes}
            gains = ("predicted_gain", "measured_gain")
            expected = {**line, "tried": told["tried"]} | (dict.fromkeys(gains) if growth.probation else {})
            assert {key: told[key] for key in line} == expected
            for before, after in zip(line["tried"], growth.notes["tried"], strict=True):
                (step,) = after.pop("passes")
                assert {**after, **step} == before
            assert (growth.policy, growth.what) == ("dag", growth.chosen[0].name)


def test_a_finished_run_is_what_it_was(copied: Callable[[str], Path]) -> None:
    folder = copied("amounts")
    summary = json.loads((folder / "summary.json").read_text())
    settings: dict[str, Any] = {"policy": {"strategy": "restricted"}, "train": TRAIN, "budget": {"steps": 6}}
    found = growir.grow(None, amounts(), **settings, name="amounts", out=folder, resume=True)
    assert found.summary == summary
    assert isinstance(found.events[0], Started)
    assert found.events[-1] is found.finished
    assert found.network.graph.hash == summary["hash"]
    assert json.loads((folder / "summary.json").read_text()) == summary


def test_a_stopped_run_goes_on(copied: Callable[[str], Path]) -> None:
    folder = copied("stopped")
    before = [read_event(line) for line in lines(folder)][:-1]  # that it was interrupted is no longer so
    policy = {"strategy": "tournament", "branches": ["widen", "whole"]}
    budget = {"steps": 4, "parameters": 120}
    told: list[Event] = []
    found = growir.grow(
        None, table(), policy=policy, train=TRAIN, budget=budget, name="stopped", out=folder, resume=True,
        observer=Observer(event=told.append),
    )  # fmt: skip
    assert found.events[: len(before)] == before
    assert found.events[len(before) :] == told
    assert (len(before), [event.event for event in told][-3:]) == (15, ["fitted", "selected", "finished"])
    assert read_run(folder).state == "finished"
    assert isinstance(found.events[-1], Finished)
    assert Network.load(folder).graph.hash == found.summary["hash"]
    assert {line["record"] for line in lines(folder)} == {1, 2}  # what was read is written as today


def test_the_network_is_drawn_and_asked(copied: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied("amounts")
    assert command("render", folder, "-o", tmp_path / "a.svg").code == 0
    found = growir.predict(folder, amounts()["x_test"])
    summary = json.loads((folder / "summary.json").read_text())
    error = float(np.mean((np.asarray(found.predicted) - amounts()["y_test"]) ** 2))
    assert error == pytest.approx(summary["test_after_fit"]["mse"], rel=1e-4)
