"""The live line: what it says, that it fits, and that it changes nothing."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from growir.growth.observer import Observer
from growir.runs import display as module
from growir.runs.display import Display
from growir.runs.liveline import LiveLine
from growir.runs.records import Ended, Fitted, Growth, Trained
from tests.growth.problems import curve, small_config, spirals
from tests.growth.test_run import assert_same_run, run

Epoch = tuple[str, int, int, float]


def test_what_is_said() -> None:
    line = LiveLine()
    assert line.said("scoring", 0, 4, 100.0) == ""
    assert line.said("scoring", 1, 4, 102.0) == "0:06 left"
    line.event(Growth(after={"train": {}, "selection": {"loss": 0.5, "accuracy": 0.75}}))
    assert line.said("training", 0, 100, 103.0) == "selection 75.0%"
    line.epoch("training", 1, 10, 0.123456)
    assert line.said("training", 10, 100, 113.0) == "epoch 2 of 10  loss 0.123  selection 75.0%  1:30 left"
    line.epoch("training", 10, 10, 1.5e-5)
    assert line.said("training", 100, 100, 203.0) == "epoch 10 of 10  loss 1.5e-05  selection 75.0%  0:00 left"
    line.event(Trained(selection={"loss": 0.25, "mse": 3.0}))
    assert line.said("training", 0, 100, 300.0) == "selection 0.25"  # the next training is timed anew
    assert line.said("training", 1, 100, 400.0) == "selection 0.25  2:45:00 left"
    line.epoch("training", 1, 2, 0.5)
    assert line.said("final fit", 0, 5, 500.0) == ""  # of the fit nothing is known yet, and the score no longer holds
    line.event(Trained(selection={"loss": None}))
    assert line.said("scoring", 0, 5, 500.0) == "selection beyond float32"
    line.event(Fitted(selection={"loss": 1.0}))
    line.event(Ended())
    assert line.said("scoring", 1, 5, 500.0) == "0:00 left"


def test_epochs_are_told_with_the_loss_of_each() -> None:
    told: list[Epoch] = []
    config = small_config(policy={"strategy": "tournament"}, train={"epochs_between": 2, "epochs_trial": 3})
    done = run(None, config, spirals(), observer=Observer(epoch=lambda *args: told.append(args)))
    trained = [event.train_loss for event in done.events if isinstance(event, Trained)]
    assert [loss for phase, k, of, loss in told if phase == "training" and k == of == 2] == trained
    assert [k for phase, k, _, _ in told if phase == "training"] == [1, 2] * len(trained)
    assert [(k, of) for phase, k, of, _ in told if phase == "trial fit"] == [(1, 3), (2, 3), (3, 3)] * 2
    assert told[-1][0] == "final fit"
    assert told[-1][3] == done.summary["train_loss_final"]


def hears(display: Display) -> Observer:
    return Observer(event=display.event, tick=display.tick, epoch=display.epoch)


def watched(path: Path, data: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a run shows on a terminal of 80 columns, every tick drawn."""
    out = io.StringIO()
    monkeypatch.setattr(module, "REFRESH", 0.0)
    monkeypatch.setattr(module, "_Console", partial(module._Console, file=out, force_terminal=True, width=80))
    config = small_config()
    with Display(path, config.name, quiet=False) as display:
        display.finished(run(path, config, data, observer=hears(display)).finished)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["classes", "amounts"])
def test_on_a_terminal(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.text import Text

    data = spirals(120) if kind == "classes" else curve(120)
    shown = watched(tmp_path / "shown", data, monkeypatch)
    lines = Text.from_ansi(shown.replace("\r", "\n")).plain.splitlines()
    live = [line for line in lines if line.startswith(("training", "final fit", "scoring"))]
    assert any("training" in line and "epoch " in line and "loss " in line and " left" in line for line in live)
    assert any("selection " in line for line in live)
    assert max(map(len, lines)) <= 80 + len(str(tmp_path))  # the commands at the end hold a path
    assert max(map(len, live)) <= 80
    # Whoever looks on changes nothing.
    run(tmp_path / "alone", small_config(), data)
    assert_same_run(tmp_path / "shown", tmp_path / "alone")


def test_piped_it_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config()
    with Display(tmp_path / "run", config.name, quiet=False) as display:
        display.finished(run(tmp_path / "run", config, spirals(), observer=hears(display)).finished)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\r" not in out
    assert not any(line.startswith(("training", "scoring", "final fit")) for line in out.splitlines())
