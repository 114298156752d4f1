"""The DAG policy: what it proposes, and that what it measures is what is applied."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import pytest
import torch

from growir.growth.measure.section import run_section
from growir.growth.policies.dag.downstream import Downstream, Search
from growir.growth.policies.dag.neurons import activation_of
from growir.growth.policies.dag.policy import Dag
from growir.growth.policies.dag.scored import Scored
from growir.growth.policies.dag.scoring import Scoring
from growir.growth.policies.dag.settings import DagConfig
from growir.growth.policies.dag.states import states_of
from growir.growth.session import Session
from growir.ops import ACTIVATIONS, Prelu
from growir.passes import AddEdge, AddNode, Widen
from growir.rewrite import Pass
from tests.growth.problems import (
    Arrays,
    apply,
    budget_of,
    curve,
    loss_on,
    policy_of,
    proposed,
    scored,
    select_of,
    selected,
    small_config,
    small_session,
    spirals,
    trained,
    values_of,
)
from tests.sampling import thinned


def grown_session(arrays: Arrays, **policy: object) -> Session:
    """A session after an edge, a state, and a state behind it, with a little training."""
    session = small_session(arrays, small_config(policy={"neurons": 4, **policy}, budget={"parameters": 400}))
    for k, step in enumerate(
        [
            AddEdge(source="standard", target="out"),
            AddNode(source="standard", target="out", width=3),
            AddNode(source="node_1.act", target="out", width=3, activation="tanh"),
        ]
    ):
        session.grow(step)
        trained(session, k)
    return session


def test_the_empty_graph_can_only_be_fed_from_the_data() -> None:
    session = small_session(spirals())
    found = proposed(session)
    assert found == [
        AddEdge(source="standard", target="out"),
        AddNode(source="standard", target="out", width=4, activation="relu"),
    ]


def test_moves_cover_edges_states_and_widenings_without_cycles_or_twins() -> None:
    session = grown_session(spirals())
    moves = proposed(session)
    assert len(set(moves)) == len(moves)
    assert {type(move) for move in moves} == {AddEdge, AddNode, Widen}
    for move in moves:
        assert move.rewrite(session.graph).graph.costs().parameters <= 400


def test_a_twin_of_a_state_is_proposed_as_its_widening() -> None:
    session = small_session(spirals())
    session.grow(AddNode(source="standard", target="out", width=3))
    moves = proposed(session)
    assert not any(isinstance(m, AddNode) and (m.source, m.target) == ("standard", "sum_1") for m in moves)
    assert Widen(node="node_1.act", by=4) in moves


def test_a_move_is_narrowed_to_the_budget() -> None:
    config = small_config(policy={"neurons": 40}, budget={"parameters": 60})
    session = small_session(spirals(), config)
    node = next(m for m in proposed(session) if isinstance(m, AddNode))
    wider = node.model_copy(update={"width": node.width + 1})
    assert node.rewrite(session.graph).graph.costs().parameters <= 60
    assert wider.rewrite(session.graph).graph.costs().parameters > 60


def improving(session: Session, step: int = 4) -> list[Scored]:
    return [s for s in scored(session, key=step) if s.improves]


def applied_losses(session: Session, choice: Scored) -> tuple[float, float]:
    before = loss_on(session, select_of(session))
    apply(session, choice)
    return before, loss_on(session, select_of(session))


@pytest.mark.parametrize("make", [spirals, curve], ids=["classes", "regression"])
@pytest.mark.parametrize("directions", thinned(["random", "fitted"], 2, 1))
def test_the_preview_of_every_candidate_equals_what_is_applied(make: object, directions: str) -> None:
    assert callable(make)
    kinds: set[type[Pass]] = set()
    count = len(improving(grown_session(make(), directions=directions)))
    assert count > 3
    for k in range(count):
        session = grown_session(make(), directions=directions)
        choice = improving(session)[k]
        before, after = applied_losses(session, choice)
        assert before - after == pytest.approx(choice.gain, abs=1e-5 + 1e-3 * choice.gain)
        assert after == pytest.approx(choice.loss, abs=1e-5)
        kinds.add(type(choice.step))
    assert kinds >= {AddEdge, AddNode}


def test_the_predicted_gain_is_the_first_order_one() -> None:
    session = grown_session(curve())
    small = min(improving(session), key=lambda s: abs(s.gain))
    # At a hundredth of the amplitude the loss on the line search part falls at the predicted rate.
    step = small.step.model_copy(update={"values": _scaled_outgoing(small, 0.01)})
    updates = {key: 0.01 * value for key, value in small.updates.items()}
    _, searched = session.reading.halves
    before = loss_on(session, searched)
    apply(session, dataclasses.replace(small, step=step, updates=updates))
    fallen = before - loss_on(session, searched)
    assert small.predicted is not None
    assert fallen == pytest.approx(0.01 * small.predicted, rel=0.1)


def _scaled_outgoing(choice: Scored, factor: float) -> dict[str, object]:
    """The values with only the weights behind the new neurons scaled."""
    values = dict(choice.step.values)
    if isinstance(choice.step, Widen):
        outgoing = [key for key in values if key not in choice.updates and not key.startswith(choice.step.node[:6])]
    else:
        outgoing = [key for key in values if key.startswith("edge_")]
    return {key: array * np.float32(factor) if key in outgoing else array for key, array in values.items()}


def test_states_are_seen_with_edges_bias_and_activation() -> None:
    session = grown_session(spirals())
    session.grow(AddEdge(source="standard", target="node_2.act"))
    states = {state.node: state for state in states_of(session.graph)}
    output = states["sum_1"]
    assert (output.post, output.bias, output.width) == (None, "out.bias", 2)
    assert [edge.source for edge in output.edges] == ["standard", "node_1.act", "node_2.act"]
    fed = states["sum_2"]
    assert (fed.post, fed.bias, fed.width) == ("node_2.act", "node_2.linear.bias", 3)
    assert [edge.source for edge in fed.edges] == ["node_1.act", "standard"]


def test_the_restricted_strategy_stays_with_the_largest_bottleneck() -> None:
    whole = grown_session(spirals())
    restricted = grown_session(spirals(), strategy="restricted")
    everything, some = proposed(whole), proposed(restricted)
    assert 0 < len(some) < len(everything)
    assert set(some) <= set(everything)
    policy = policy_of(restricted)
    found = policy._measure(restricted)
    worst = max((found.bottleneck(state) for state in found.states), key=lambda b: b.psi).state
    for move in some:
        assert worst.node == getattr(move, "target", None) or isinstance(move, Widen)
    found_scores = scored(restricted, policy=policy)
    assert {s.step.model_copy(update={"values": {}}) for s in found_scores} <= set(some)


def test_the_widening_strategy_makes_one_hidden_state() -> None:
    session = small_session(spirals(), small_config(policy={"strategy": "widen"}))
    state = AddNode(source="standard", target="out", width=4, activation="relu")
    assert proposed(session) == [state]
    session.grow(state)
    assert proposed(session) == [Widen(node="node_1.act", by=4)]


def test_a_perfect_network_grows_nothing() -> None:
    arrays = curve()
    arrays["y_train"] = arrays["x_train"][:, :2] @ np.array([[1.0, 2.0], [0.5, -1.0]])
    arrays["y_test"] = arrays["x_test"][:, :2] @ np.array([[1.0, 2.0], [0.5, -1.0]])
    session = small_session(arrays, small_config(policy={"ridge": 1e-9}))
    policy = policy_of(session)
    (edge,) = scored(session, [AddEdge(source="standard", target="out")], 1, policy)
    apply(session, edge)
    assert loss_on(session, select_of(session)) < 1e-6
    assert all(choice.gain < 1e-6 for choice in scored(session, key=2, policy=policy))


@pytest.mark.parametrize("kind", sorted(ACTIVATIONS))
def test_every_activation_can_be_measured(kind: str) -> None:
    values = torch.linspace(-3, 3, 12).reshape(4, 3)
    assert activation_of(ACTIVATIONS[kind]())(values).shape == (4, 3)


def test_a_learned_slope_is_measured_as_it_is() -> None:
    values = torch.tensor([[-2.0, 3.0]])
    assert activation_of(Prelu(), {"weight": torch.tensor([0.5])})(values).tolist() == [[-1.0, 3.0]]


def test_growth_does_not_end_by_one_bad_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Scoring._draft

    def useless(self: Scoring, *args: Any) -> Any:
        draft = real(self, *args)
        nothing = 0 * draft.weight  # activations that never vary
        return dataclasses.replace(draft, weight=nothing, spare=lambda: (nothing, draft.bias))

    session = small_session(spirals())
    monkeypatch.setattr(Scoring, "_draft", useless)
    policy = policy_of(session)
    found = scored(session, [AddNode(source="standard", target="out", width=4)], 1, policy)
    choice = selected(session, found, policy)
    assert choice.outcome == "on probation"
    before, standing = loss_on(session, select_of(session)), session.standing()
    session.grow(policy.build(session, [choice]))
    assert loss_on(session, select_of(session)) == pytest.approx(before, abs=1e-6)  # idle
    assert policy.refuses(session, standing, standing) == "no gain"
    better = dataclasses.replace(standing, losses=standing.losses - 1.0)
    assert policy.refuses(session, standing, better) is None


def test_a_move_without_amplitude_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    session = grown_session(spirals())
    moves = proposed(session)
    assert selected(session, scored(session, moves)).improves
    monkeypatch.setattr(Downstream, "search", lambda self, shifts, limit: Search(0.0, 0.01, 0.0))
    found = scored(session, moves)
    assert {choice.outcome for choice in found} == {"no amplitude"}
    assert selected(session, found).outcome == "on probation"


@pytest.mark.parametrize(("make", "limit"), [(spirals, 1.0), (curve, 2.0)], ids=["classes", "regression"])
def test_the_amplitude_at_an_output_is_at_most_a_least_squares_step(make: Any, limit: float) -> None:
    session = grown_session(make())
    for choice in improving(session):
        if getattr(choice.step, "target", None) == "sum_1":
            assert 0 < choice.amplitude <= limit


def test_an_inner_state_moves_by_at_most_its_own_size() -> None:
    session = grown_session(spirals())
    _, searched = session.reading.halves
    values = values_of(session, searched)
    (before,) = run_section(session.graph, session.tensors, ["standard"], ["node_1.linear"])(*values)
    move = next(m for m in proposed(session) if getattr(m, "target", None) == "node_1.linear")
    (choice,) = scored(session, [move])
    state = apply(session, choice)[-1]
    (after,) = run_section(session.graph, session.tensors, ["standard"], [state])(*values)
    assert (after - before).square().mean() <= before.square().mean() * 1.001


def test_fitted_directions_see_more_than_random_ones() -> None:
    gains = {}
    for directions in ("random", "fitted"):
        session = grown_session(curve(), directions=directions)
        nodes = [s for s in improving(session) if isinstance(s.step, AddNode)]
        gains[directions] = np.mean([(s.predicted or 0.0) / s.amplitude for s in nodes])
    assert gains["fitted"] > gains["random"]


@pytest.mark.parametrize(("left", "offered"), [(7, False), (8, True), (63, True), (64, True)])
def test_what_is_left_of_the_budget_is_spent_unless_it_is_crumbs(left: int, offered: bool) -> None:
    """A widening by 64 neurons is narrowed to what the budget pays for, down to an eighth of it."""
    session = small_session(spirals(), small_config(policy={"neurons": 4}, budget={"parameters": 10_000}))
    session.grow(AddNode(source="standard", target="out", width=4))
    each = 3 + 1 + 2  # a neuron reads three inputs, has a bias and feeds two classes
    parameters = session.graph.costs().parameters + left * each
    config = small_config(policy={"neurons": 64}, budget={"parameters": parameters})
    policy = Dag(cast("DagConfig", config.policy))
    found = [candidate.part for candidate in policy.propose(session, budget_of(session, config))]
    widths = [step.by for step in found if isinstance(step, Widen)]
    assert widths == ([left] if offered else [])
