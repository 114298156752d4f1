"""Firefly: the law, what is predicted beside what is measured, budgets to the last unit, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import nn

import growir
from growir.cells import Template
from growir.cells import network as cells
from growir.errors import RunError
from growir.families import network
from growir.growth.budget import Budget, BudgetConfig
from growir.growth.measure.choice import Choice
from growir.growth.measure.gated import Unit
from growir.growth.measure.sites import sites
from growir.growth.policies.firefly import Firefly, FireflySettings
from growir.growth.policy import Score
from growir.passes import InsertLayer, Sequence, Split
from growir.runs.records import Growth
from growir.testing import graphs, policy_law
from tests.growth.nets import EVERY
from tests.growth.test_policies import grown, images, session_of
from tests.growth.test_policy_law import GRAPHS

FEW: dict[str, Any] = {"learn_steps": 3, "judge_batches": 1, "fresh_units": 2}
LETTER = {"groups": 2, "score": "leave_one_out", "order": "per_parameter"}
SITED = st.one_of(GRAPHS, graphs(moves=4).filter(lambda graph: bool(sites(graph).sites)))
test_width = policy_law(Firefly, settings=FEW, graphs=SITED)
test_width_to_the_letter = pytest.mark.slow(
    policy_law(Firefly, settings={**FEW, **LETTER}, graphs=SITED, max_examples=4)
)
test_both = pytest.mark.slow(policy_law(Firefly, settings={**FEW, "move": "both"}, graphs=SITED, max_examples=4))


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


def staged(**settings: Any) -> Any:
    """A run on a network of two stages with two blocks each."""
    net = network("Basic3ResNet-2-2-1", (1, 8, 8), 4, width=3)
    policy = {"name": "firefly", **FEW, **settings}
    return growir.grow(
        net, images(), policy=policy, schedule=EVERY, train={"batch_size": 16}, budget={"per_growth": {"share": 0.1}}
    )


def widths(graph: growir.Graph) -> dict[str, int]:
    return {space.name: space.width for space in growir.channel_spaces(graph)}


def test_only_named_spaces_grow() -> None:
    found = staged(sites=["stage2.*.conv1"]).network.graph
    before, after = widths(found.history.base), widths(found)
    grew = {name for name in after if after[name] > before[name]}
    assert grew
    assert grew <= {"stage2.0.conv1", "stage2.1.conv1"}


def test_members_of_a_list_grow_alike() -> None:
    found = staged(sites=["stage*.conv1"], alike=["stage1", "stage2"]).network.graph
    before, after = widths(found.history.base), widths(found)
    gains = {name: after[name] - before[name] for name in after}
    for stage in ("stage1", "stage2"):
        assert gains[f"{stage}.0.conv1"] == gains[f"{stage}.1.conv1"]
    assert sum(gains.values()) > 0
    # Two members gain by one at least, and the budget was used for more than one pair.
    assert sum(gain > 0 for gain in gains.values()) >= 2


def test_what_one_member_has_no_room_for_none_gets() -> None:
    # The reduction doubles maps' channels, so a unit of the last cell costs more than one of the first.
    plan = Template(nodes=1, operations=("sep_conv_3x3",), inner=1)
    graph = cells(plan, (1, 8, 8), 2, cells=3, width=4, stem=1, reductions=[1])
    settings = FireflySettings(sites=("normal.*.pointwise1",), alike=("normal",))
    choice = Choice(graph, among=settings.grows)
    costs = {}
    for name in ("normal.0.edge_0_2.sep_conv_3x3.pointwise1", "normal.2.edge_0_2.sep_conv_3x3.pointwise1"):
        costs[name] = choice.cost(Unit(name, "fresh", 0), Budget(BudgetConfig(), graph)).parameters
    small, large = sorted(costs.values())
    assert small < large
    for room in range(small, 3 * (small + large)):
        budget = Budget(BudgetConfig.model_validate({"per_growth": {"parameters": room}}), graph)
        scores = [Score(each, 1.0) for each in choice.candidates(budget, split=False, fresh=2)]
        found = [score.candidate.part.site for score in choice.alike_within(budget, scores, settings.place)]
        for edge in ("edge_0_2", "edge_1_2"):
            counts = [sum(site.startswith(f"normal.{k}.{edge}") for site in found) for k in (0, 2)]
            assert counts[0] == counts[1]
        assert bool(found) == (room >= small + large)


def test_a_place_is_the_name_without_the_number_of_a_member() -> None:
    settings = FireflySettings(alike=("normal", "net.layers"))
    assert settings.place("normal.3.edge_0_2.conv") == "normal.*.edge_0_2.conv"
    assert settings.place("net.layers.11") == "net.layers.*"
    assert settings.place("net.layers.1.0@2") == "net.layers.*.0@2"
    assert settings.place("abnormal.3.conv") == "abnormal.3.conv"
    assert settings.place("top.normal.3.conv") == "top.normal.*.conv"
    assert settings.place("normal.0.normal.1.conv") == "normal.*.normal.*.conv"


def test_names_that_nothing_has_are_refused() -> None:
    with pytest.raises(RunError, match=r"sites: no space that can grow is called 'stage9\*'"):
        staged(sites=["stage9*"])
    with pytest.raises(RunError, match="alike: no space that can grow stands in a member of a list 'stage9'"):
        staged(alike=["stage9"])
    with pytest.raises(RunError, match='alike is said of widths; with it, move is "width"'):
        FireflySettings(alike=("a",), move="both")
    with pytest.raises(RunError, match='what grows alike is chosen by the sum of gains; with alike, order is "gain"'):
        FireflySettings(alike=("a",), order="per_parameter")


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
