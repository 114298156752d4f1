"""Commands that are given a master, or one of its tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from growir.cli import masters
from growir.cli.app import app
from growir.continual import master as document
from growir.continual.learning import learn
from tests.continual.test_learning import mlp, tasks


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two masters, of two tasks and of three."""
    folder = tmp_path_factory.mktemp("masters")
    for count in (2, 3):
        found = learn(mlp(), tasks(count), settings={"epochs": 1, "target": 0.01}, seed=0)
        assert found.master is not None
        found.master.save(folder / str(count))
    return folder


def ran(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_task_is_inspected_validated_drawn_and_exported(place: Path, tmp_path: Path) -> None:
    whole, one = (json.loads(ran("inspect", path, "--json").output) for path in (place / "3", f"{place}/3@2, 3"))
    assert [len(found["outputs"]) for found in (whole, one)] == [3, 1]
    assert "a valid network" in ran("validate", f"{place}/3@2, 3").output
    for name in ("one.svg", "one.onnx"):
        command = ("render", f"{place}/3@2, 3", "-o") if name == "one.svg" else ("export", f"{place}/3@2, 3", "-o")
        told = ran(*command, tmp_path / name)
        assert told.exit_code == 0, told.output
        assert (tmp_path / name).exists()


def test_masters_are_compared_by_graph_and_tasks(place: Path, tmp_path: Path) -> None:
    assert ran("diff", place / "3", place / "3").exit_code == 0
    told = ran("diff", place / "2", place / "3")
    assert told.exit_code == 1
    assert "task '4, 5' is in the second alone" in told.output
    assert json.loads(ran("diff", place / "2", place / "3", "--json").output)["tasks"] == [
        "task '4, 5' is in the second alone"
    ]
    other = learn(mlp(), tasks(2), settings={"epochs": 2, "target": 0.01}, seed=0).master
    assert other is not None
    other.save(tmp_path / "other")
    told = ran("diff", place / "2", tmp_path / "other")
    assert "task '0, 1' has other numbers in fc0.weight" in told.output
    assert ran("diff", f"{place}/3@0, 1", f"{place}/3@2, 3").exit_code == 1


def test_masters_that_learned_in_another_order_differ() -> None:
    one, two = tasks(2)
    found = [learn(mlp(), each, settings={"epochs": 1, "target": 0.01}).master for each in ([one, two], [two, one])]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].tasks_apart(found[0]) == []
    assert found[0].tasks_apart(found[1]), "weights or order"


def test_a_master_as_a_whole_is_not_exported(place: Path, tmp_path: Path) -> None:
    told = ran("export", place / "3", "-o", tmp_path / "whole.onnx")
    assert told.exit_code == 2
    assert 'give one of them, "' in told.output
    assert not (tmp_path / "whole.onnx").exists()


def test_what_is_not_there_is_said(place: Path) -> None:
    told = ran("inspect", f"{place}/3@2,3")
    assert told.exit_code == 2
    assert "there is no task '2,3'. Did you mean '2, 3'?" in told.output
    told = ran("inspect", place / "nothing@1")
    assert told.exit_code == 2
    assert "nothing@1" in told.output
    (place / "3/masks.safetensors").rename(place / "masks")
    told = ran("inspect", place / "3")
    (place / "masks").rename(place / "3/masks.safetensors")
    assert told.exit_code == 2
    assert "masks.safetensors: there is no such file" in told.output


def test_the_document_has_the_name_that_commands_look_for() -> None:
    assert masters.DOCUMENT == document.DOCUMENT
