"""`growir grow` hands its arguments on; what a run does is tested with growth."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from growir.errors import RunError
from tests.cli.command import Done, growir


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every call of the run, which here fails if the target is called so."""
    found: list[dict[str, Any]] = []

    def run_command(target: str, **options: Any) -> None:
        found.append({"target": target, **options})
        if target == "bad.toml":
            raise RunError("bad.toml: [policy] has no field 'widht'")

    module = ModuleType("growir.growth.command")
    module.__dict__["run_command"] = run_command
    monkeypatch.setitem(sys.modules, "growir.growth.command", module)
    return found


def test_defaults(calls: list[dict[str, Any]]) -> None:
    assert growir("grow", "digits").code == 0
    assert calls == [{"target": "digits", "settings": [], "out": None, "resume": False, "quiet": False}]


def test_options(calls: list[dict[str, Any]]) -> None:
    growir("grow", "run.toml", "--out", "runs/a", "--resume", "--quiet")
    assert calls == [{"target": "run.toml", "settings": [], "out": Path("runs/a"), "resume": True, "quiet": True}]


def test_named_settings_are_spellings_of_set(calls: list[dict[str, Any]]) -> None:
    growir("grow", "a.npz", "--seed", 3, "--task", "regression", "--test", 0.5, "--budget", 90, "--threads", -1)
    growir("grow", "a.npz", "--set", "seed=3", "--set", "train.weight_decay=0")
    growir(
        "grow", "a.csv", "--target", "y", "--ignore", "id", "--ignore", "a,b", "--categories", "zip", "--separator", ";"
    )
    assert [call["settings"] for call in calls] == [
        [
            ("--task regression", "data.task=regression"),
            ("--test 0.5", "data.test=0.5"),
            ("--budget 90", "budget.parameters=90"),
            ("--threads -1", "threads=-1"),
            ("--seed 3", "seed=3"),
        ],
        [("--set seed=3", "seed=3"), ("--set train.weight_decay=0", "train.weight_decay=0")],
        [
            ("--target y", "data.target=y"),
            ("--separator ;", "data.separator=;"),
            ("--ignore id --ignore a,b", 'data.ignore=["id", "a,b"]'),
            ("--categories zip", 'data.categories=["zip"]'),
        ],
    ]


def test_errors(calls: list[dict[str, Any]]) -> None:
    assert growir("grow", "bad.toml") == Done(2, "", "growir: error: bad.toml: [policy] has no field 'widht'\n")
    assert growir("grow").code == 2
    assert len(calls) == 1


def test_help_fits_the_page() -> None:
    text = growir("grow", "--help").out
    assert "--set KEY=VALUE" in text
    assert max(map(len, text.splitlines())) <= 80
