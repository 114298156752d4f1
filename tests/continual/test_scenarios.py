"""Samples that do not say which task they are of: one head that becomes longer, or the highest of all outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from growir.continual.baselines import Consolidated, EwcSettings
from growir.continual.learning import METHODS, ONE_HEAD, ContinualResult, first_of, learn
from growir.continual.scenarios import Shifted, SideBySide, offsets
from growir.errors import RunError
from growir.ops import Linear
from tests.continual.test_learning import X, Y, mlp, tasks

SHORT: dict[str, Any] = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01}


def ran(method: str, **more: Any) -> ContinualResult:
    return learn(mlp(8), tasks(), method=method, settings=SHORT, scenario="class", **more)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_answers_among_all_classes(method: str) -> None:
    found = ran(method)
    assert np.isnan(found.accuracy[0, 1:]).all(), "classes that are not there yet cannot be told"
    assert found.measures.forward is None
    last = list(found.networks.values())[-1]
    assert isinstance(found.networks["0, 1"].graph.nodes[-1].op, Linear)
    assert last.graph.nodes[-1].op == Linear(out_features=6 if method in ONE_HEAD else 2)


def test_the_answer_is_the_highest_of_all_outputs() -> None:
    found = ran("separate")
    with torch.no_grad():
        logits = [network.to_torch().eval()(torch.from_numpy(X[180:])) for network in found.networks.values()]
    told = torch.cat(logits, 1).argmax(1).numpy()
    for k in range(3):
        mine = (Y[180:] == 2 * k) | (Y[180:] == 2 * k + 1)
        assert found.accuracy[-1, k] == pytest.approx((told[mine] == Y[180:][mine]).mean())


def test_training_on_all_at_once_knows_all_classes_and_fine_tuning_the_last() -> None:
    joint, tuned = (ran(method) for method in ("joint", "fine_tuned"))
    assert joint.accuracy[-1].mean() > 0.6
    assert tuned.accuracy[-1, :2].max() < 0.2, "its head has learned that only the last classes come"
    assert tuned.accuracy[-1, 2] > 0.6


def test_the_one_head_keeps_its_rows_when_it_becomes_longer() -> None:
    experiences = tasks()
    first, outputs = first_of(mlp(8), experiences, 0, one_head=True)
    assert outputs == ["task_0.head"] * 3
    method = Consolidated(first, outputs, EwcSettings(**SHORT), 0)
    method.learn(0, experiences[0])
    before = method.whole.arrays["task_0.head.weight"]
    longer = method._extended(method.whole, experiences[1])
    np.testing.assert_array_equal(longer.arrays["task_0.head.weight"][:2], before)
    assert longer.arrays["task_0.head.weight"].shape == (4, 8)


@pytest.mark.parametrize("method", ["joint", "ewc", "grown"])
def test_such_a_sequence_goes_on_to_the_bit(method: str, tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    def stop(state: Any) -> None:
        if len(state.names) == 2:
            raise Stopped

    whole = ran(method, out=tmp_path / "whole")
    with pytest.raises(Stopped):
        ran(method, out=tmp_path / "cut", told=stop)
    again = ran(method, out=tmp_path / "cut", resume=True)
    np.testing.assert_array_equal(again.accuracy, whole.accuracy)
    for name, network in whole.networks.items():
        for key, array in network.arrays.items():
            np.testing.assert_array_equal(array, again.networks[name].arrays[key])
    with pytest.raises(RunError, match="has another network, tasks, method"):
        learn(mlp(8), tasks(), method=method, settings=SHORT, out=tmp_path / "cut", resume=True)


def test_targets_are_numbered_among_all_classes() -> None:
    experiences = tasks()
    assert offsets(experiences) == [0, 2, 4]
    source = Shifted(experiences[2].data.train, 4)
    (batch,) = source.batches(100, None)
    assert sorted(set(batch.target.tolist())) == [4, 5]
    assert (len(source), source.batch_count(100)) == (60, 1)
    both = SideBySide([torch.nn.Linear(8, 2), torch.nn.Linear(8, 3)])
    assert both(torch.zeros(4, 8)).shape == (4, 5)


def test_a_scenario_that_there_is_not_is_refused() -> None:
    with pytest.raises(RunError, match="there is no scenario 'domain'"):
        learn(mlp(8), tasks(), settings=SHORT, scenario="domain")  # type: ignore[arg-type]
