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
    assert calls == [{"target": "digits", "out": None, "seed": None, "resume": False, "quiet": False}]


def test_options(calls: list[dict[str, Any]]) -> None:
    growir("grow", "run.toml", "--out", "runs/a", "--seed", 3, "--resume", "--quiet")
    assert calls == [{"target": "run.toml", "out": Path("runs/a"), "seed": 3, "resume": True, "quiet": True}]


def test_errors(calls: list[dict[str, Any]]) -> None:
    assert growir("grow", "bad.toml") == Done(2, "", "growir: error: bad.toml: [policy] has no field 'widht'\n")
    assert growir("grow", "digits", "--seed", "x").code == 2
    assert growir("grow").code == 2
    assert len(calls) == 1
