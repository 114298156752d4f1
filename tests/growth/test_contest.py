"""A contest of any policies: each from the same start, the best goes on, and it goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import growir
from growir.growth.config import parse_run
from growir.growth.given import given_policy
from growir.growth.observer import Observer
from growir.growth.policies.random import RandomSettings, RandomWidth
from growir.runs.records import Ended, Fitted, Growth, Selected
from tests.growth.test_policies import images, net
from tests.growth.test_policy_law import Remembering, Wide
from tests.sampling import thinned

FEW: dict[str, Any] = {"epochs_between": 1, "epochs_final": 1, "epochs_trial": 1, "batch_size": 16}
ONCE = {"name": "alternating", "trials": 0}  # each branch is fitted once
LISTS: dict[str, tuple[list[Any], list[str]]] = {
    "names": (["random", "net2net"], ["random", "net2net"]),
    "twice one": ([{"name": "random", "by": 0.1}, {"name": "random", "by": 1.0}], ["random", "random_1"]),
    "classes and objects": (
        [Wide, RandomWidth(RandomSettings(spaces=0.2)), Remembering],
        ["Wide", "random", "Remembering"],
    ),
}


class Stop:
    """Stops a run at one of its checkpoints."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self, session: object, progress: object) -> None:
        self.seen += 1
        if self.seen == self.at:
            raise KeyboardInterrupt


def grown(policy: Any, **others: Any) -> growir.GrowthResult:
    return growir.grow(net("residual"), images(), policy=policy, budget={"steps": 2}, train=FEW, **others)


def text(result: growir.GrowthResult) -> list[dict[str, Any]]:
    clocks = ("seconds", "seconds_growing", "phases")
    return [{k: v for k, v in event.to_json().items() if k not in clocks} for event in result.events]


@pytest.mark.parametrize("case", LISTS)
def test_each_grows_from_the_same_start_and_the_best_goes_on(case: str) -> None:
    policies, names = LISTS[case]
    result = grown(policies)
    assert [event.branch for event in result.events if isinstance(event, Fitted)] == names
    for name in names:
        growths = [event for event in result.events if isinstance(event, Growth) and event.branch == name]
        assert [event.step for event in growths] == [1, 2]
        assert growths[0].parameters_before == net("residual").graph.costs().parameters
    (selected,) = [event for event in result.events if isinstance(event, Selected)]
    assert selected.branch in names
    assert len(selected.compared) == len(names) - 1
    assert result.summary["branch"] == selected.branch


def test_the_first_wins_unless_a_later_one_is_better_by_more_than_chance() -> None:
    result = grown(["random", "random", "random"])
    (selected,) = [event for event in result.events if isinstance(event, Selected)]
    assert selected.branch == "random"
    assert [compared.better for compared in selected.compared] == [False, False]


def test_a_list_of_one_is_no_contest() -> None:
    result = grown(["random"])
    assert not [event for event in result.events if isinstance(event, Selected | Fitted)]
    assert text(result) == text(grown("random"))


def test_dag_and_another_compete_from_nothing_and_from_a_network() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    data = {"x_train": x, "y_train": (x[:, 0] * x[:, 1] > 0).astype(int)}
    from_nothing = growir.grow(
        None,
        data,
        policy=["random", {"name": "dag", "strategy": "whole", "neurons": 2}],
        budget={"steps": 2},
        train=FEW,
        schedule=ONCE,
    )
    assert {event.branch for event in from_nothing.events if isinstance(event, Ended)} == {"random", "dag"}
    tournament = growir.grow(None, data, policy=["random", "dag"], budget={"steps": 1}, train=FEW, schedule=ONCE)
    names = [str(event.branch) for event in tournament.events if isinstance(event, Fitted)]
    assert names[0] == "random"
    assert all(name.startswith("dag-") for name in names[1:])


@pytest.mark.parametrize("at", thinned([1, 2, 3, 4, 5, 6, 7, 8], 3, 2))
def test_it_goes_on_to_the_same_end_from_every_checkpoint(at: int, tmp_path: Path) -> None:
    policies = ["random", Remembering]
    whole = grown(policies)
    with pytest.raises(KeyboardInterrupt):
        grown(policies, out=tmp_path / "run", observer=Observer(checkpoint=Stop(at)))
    again = grown(policies, out=tmp_path / "run", resume=True)
    assert text(again) == text(whole)
    assert all(np.array_equal(array, again.network.arrays[key]) for key, array in whole.network.arrays.items())


def test_the_part_that_selects_is_the_largest_that_any_of_them_wants() -> None:
    shares = [given_policy(policy)[0] for policy in ("random", "dag", ["random", "dag"])]
    found = [parse_run({"policy": section}, "test").policy.select_share for section in shares]
    assert found == [0.1, 1 / 3, 1 / 3]
