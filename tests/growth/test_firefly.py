"""Firefly: the law, what is predicted beside what is measured, budgets to the last unit, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import nn

import growir
from growir.errors import RunError
from growir.growth.budget import Budget
from growir.growth.measure.sites import sites
from growir.growth.policies.firefly import Firefly, FireflySettings
from growir.growth.policy import Score
from growir.passes import InsertLayer, Sequence, Split
from growir.runs.records import Growth
from growir.testing import graphs, policy_law
from tests.growth.test_policies import grown, images, session_of
from tests.growth.test_policy_law import GRAPHS

FEW: dict[str, Any] = {"learn_steps": 3, "judge_batches": 1, "fresh_units": 2}
LETTER = {"groups": 2, "score": "leave_one_out", "order": "per_parameter"}
SITED = st.one_of(GRAPHS, graphs(moves=4).filter(lambda graph: bool(sites(graph).sites)))
test_width = policy_law(Firefly, settings=FEW, graphs=SITED)
test_width_to_the_letter = policy_law(Firefly, settings={**FEW, **LETTER}, graphs=SITED, max_examples=4)
test_both = policy_law(Firefly, settings={**FEW, "move": "both"}, graphs=SITED, max_examples=4)


def decided(name: str, **settings: Any) -> tuple[Firefly, list[Score], list[Score], Any]:
    """A policy, its scores, those it selects and the pass, on a net that is not trained."""
    budget = settings.pop("budget", {})
    session = session_of(name, "random", **budget)
    policy = Firefly(FireflySettings(**{**FEW, **settings}))
    room = Budget(session.config.budget, session.graph)
    scores = policy.score(session, policy.propose(session, room), 1)
    chosen = policy.select(session, scores, room)
    return policy, scores, chosen, policy.build(session, chosen)


@pytest.mark.parametrize(
    ("name", "move"),
    [
        *((name, "width") for name in ("dense", "residual", "depthwise", "attention")),
        ("dense", "depth"),
        ("residual", "depth"),
        ("residual", "both"),
    ],
)
def test_every_net_grows_within_its_budgets(name: str, move: str) -> None:
    policy = {"name": "firefly", **FEW, "move": move}
    result = grown(name, policy, per_growth={"units": 3, "layers": 2})
    growths = [event for event in result.events if isinstance(event, Growth)]
    assert len(growths) == 2
    for event in growths:
        inserted = [each for each in event.passes if each["pass"] == "insert_layer"]
        assert len(inserted) <= 1
        assert 1 <= len(event.chosen) <= 3
        if move == "depth":
            assert [each["width"] for each in inserted] == [len(event.chosen)]
    assert all(event.predicted_gain is not None and event.predicted_gain > 0 for event in growths)


@pytest.mark.parametrize("settings", [{}, {"move": "both"}, {"groups": 2}, {"splits": False}])
def test_small_gates_change_the_loss_by_what_is_predicted(settings: dict[str, Any]) -> None:
    _, _, chosen, step = decided("dense", **settings, gate=1e-3, learn_rate=0.2, learn_steps=8, judge_batches=2)
    session = session_of("dense", "random")
    before = float(session.measure(session.data.train).losses.mean())
    session.grow(step)
    after = float(session.measure(session.data.train).losses.mean())
    predicted = sum(score.gain for score in chosen)
    assert predicted > 1e-5
    assert before - after == pytest.approx(predicted, rel=0.05)


def test_no_unit_that_is_left_out_would_still_fit() -> None:
    policy, scores, chosen, step = decided("residual", splits=False, budget={"per_growth": {"parameters": 90}})
    session = session_of("residual", "random", per_growth={"parameters": 90})
    room = Budget(session.config.budget, session.graph)
    assert room.fits(step)
    assert chosen
    assert all(score.gain > 0 for score in chosen)
    left = [score for score in scores if score.gain > 0 and score not in chosen]
    assert left
    for score in left:
        assert not room.fits(policy.build(session, [*chosen, score]))


def test_a_cheap_unit_goes_first_where_gain_counts_by_the_parameter() -> None:
    _, scores, chosen, _ = decided("dense", order="per_parameter", budget={"per_growth": {"units": 3}})
    prices = {id(score): score.gain / score.candidate.cost.parameters for score in scores}
    assert sorted(map(id, chosen), key=lambda each: -prices[each]) == list(map(id, chosen))
    assert min(prices[id(score)] for score in chosen) == sorted(prices.values())[-3]


def test_splits_alone_are_splits() -> None:
    _, scores, _, step = decided("dense", fresh_units=0)
    assert {score.candidate.part.kind for score in scores} == {"split"}
    assert isinstance(step, Sequence)
    assert all(isinstance(each, Split) for each in step.passes)


def test_a_chosen_block_is_a_residual_of_the_activation_that_was_asked_for() -> None:
    _, _, _, step = decided("residual", move="depth", layer_activation="tanh", budget={"per_growth": {"layers": 4}})
    assert isinstance(step, Sequence)
    inserted = [each for each in step.passes if isinstance(each, InsertLayer)]
    assert inserted
    assert all(each.residual and each.activation == "tanh" for each in inserted)


def test_a_network_without_sites_ends_growth() -> None:
    start = growir.from_torch(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), torch.zeros(2, 1, 8, 8))
    result = growir.grow(start, images(), policy={"name": "firefly", **FEW}, train={"epochs_final": 1})
    assert result.summary["ended"] == "no move"
    deeper = {"name": "firefly", **FEW, "move": "depth"}
    result = growir.grow(start, images(), policy=deeper, train={"epochs_final": 1}, budget={"steps": 1})
    assert result.summary["ended"] == "steps"


def test_a_budget_below_the_cheapest_unit_ends_growth() -> None:
    found = grown("dense", {"name": "firefly", **FEW}, per_growth={"parameters": 3})
    assert found.summary["ended"] == "parameters"


def test_nothing_to_choose_is_refused() -> None:
    with pytest.raises(RunError, match="nothing could be chosen: let fresh_units be 1 or more"):
        FireflySettings(fresh_units=0, splits=False)
    with pytest.raises(RunError, match="nothing could be chosen: let fresh_units be 1 or more"):
        FireflySettings(fresh_units=0, move="depth")
    with pytest.raises(RunError, match=r"'tahn' is no activation; there are: relu, .* Did you mean 'tanh'"):
        FireflySettings(layer_activation="tahn")


def test_nothing_has_changed_where_growing_finds_no_finite_loss() -> None:
    session = session_of("residual", "random")
    policy = Firefly(FireflySettings(**FEW))
    candidates = policy.propose(session, Budget(session.config.budget, session.graph))
    key = next(key for key, tensor in session.tensors.items() if tensor.ndim == 4)
    session.tensors[key].data[0] = torch.nan
    before = {key: tensor.clone() for key, tensor in session.tensors.items()}
    modes = [part.training for part in session.module.modules()]
    with pytest.raises(RunError, match="growing: the loss is nan where candidates are measured"):
        policy.score(session, candidates, 1)
    assert all(torch.equal(tensor.nan_to_num(), before[key].nan_to_num()) for key, tensor in session.tensors.items())
    assert [part.training for part in session.module.modules()] == modes
