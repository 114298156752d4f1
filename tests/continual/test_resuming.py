"""A sequence that was stopped goes on, and ends with the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F

from growir import store
from growir.continual.keeping import Kept
from growir.continual.learning import METHODS, ContinualResult, learn
from growir.errors import ExportError, RunError
from tests.continual.test_learning import mlp, tasks

SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01}


class Stopped(BaseException):
    """As a kill: nothing catches it."""


def ran(folder: Path, method: str = "grown", **more: Any) -> ContinualResult:
    settings = {**SHORT, **({"target": "best"} if method == "grown" else {})}
    return learn(mlp(), tasks(), method=method, settings=settings, out=folder, **more)


def same(one: ContinualResult, two: ContinualResult) -> None:
    np.testing.assert_array_equal(one.accuracy, two.accuracy)
    np.testing.assert_array_equal(one.untrained, two.untrained)
    assert (one.parameters, one.sizes) == (two.parameters, two.sizes)
    assert [list(each) for each in one.selected] == [list(each) for each in two.selected]
    assert list(one.channels) == list(two.channels)
    for name, network in one.networks.items():
        assert network.graph.hash == two.networks[name].graph.hash
        for key, array in network.arrays.items():
            np.testing.assert_array_equal(array, two.networks[name].arrays[key])
    if one.master is not None:
        assert two.master is not None
        assert one.master.to_data() == two.master.to_data()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ContinualResult:
    """A sequence that nothing stopped."""
    return ran(tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("method", list(METHODS))
def test_stopped_between_two_tasks(method: str, tmp_path: Path) -> None:
    whole = ran(tmp_path / "whole", method)

    def stop(state: Kept) -> None:
        if len(state.names) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        ran(tmp_path / "cut", method, told=stop)
    told: list[int] = []
    same(ran(tmp_path / "cut", method, resume=True, told=lambda state: told.append(len(state.names))), whole)
    assert told == [2, 3], "what was there is not learned again"


@pytest.mark.parametrize("step", [0, 5, 11, 17, 23, 31, 38, 46, 55, 63])
def test_stopped_in_the_middle_of_a_training(
    step: int, whole: ContinualResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, real = [step], F.cross_entropy

    def failing(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Stopped
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(F, "cross_entropy", failing)
        with pytest.raises(Stopped):
            ran(tmp_path / "cut")
    same(ran(tmp_path / "cut", resume=True), whole)


def test_what_cannot_be_written_leaves_the_task_before(
    whole: ContinualResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.write_tensors

    def full(path: Path, *rest: Any) -> None:
        if len(json.loads((tmp_path / "cut/state/state.json").read_text())["names"]) == 1:
            raise OSError(28, "No space left on device")
        real(path, *rest)

    def after_the_first(state: Kept) -> None:
        if len(state.names) == 1:
            monkeypatch.setattr(store, "write_tensors", full)

    with pytest.raises(ExportError, match="cannot be written: No space left"):
        ran(tmp_path / "cut", told=after_the_first)
    monkeypatch.setattr(store, "write_tensors", real)
    assert [each.name for each in (tmp_path / "cut").iterdir()] == ["state"]
    same(ran(tmp_path / "cut", resume=True), whole)


def test_a_finished_sequence_is_read(whole: ContinualResult, tmp_path: Path) -> None:
    ran(tmp_path)
    same(ran(tmp_path, resume=True), whole)


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    ran(tmp_path / "a")
    with pytest.raises(RunError, match="there is a sequence in this folder"):
        ran(tmp_path / "a")
    with pytest.raises(RunError, match="has another network, tasks, method, settings or seed"):
        ran(tmp_path / "a", resume=True, seed=1)
    with pytest.raises(RunError, match="has another network, tasks"):
        learn(mlp(5), tasks(), settings={**SHORT, "target": "best"}, out=tmp_path / "a", resume=True)
    with pytest.raises(RunError, match="give it as out"):
        learn(mlp(), tasks(), settings=SHORT, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be used"):
        ran(tmp_path / "file")
    state = tmp_path / "a/state/state.json"
    text = state.read_text()
    for wrong, message in ((text[:50], "is damaged"), (text.replace("sequence/1", "sequence/9"), "is no growir-seq")):
        state.write_text(wrong)
        with pytest.raises(RunError, match=message):
            ran(tmp_path / "a", resume=True)
