"""NASH: the law, children that fill the budget, compute that is told and kept, and a growth that is the best child."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from growir.errors import RunError
from growir.growth.budget import Budget, BudgetConfig
from growir.growth.config import parse_run
from growir.growth.measure.moves import Move, drawn_moves
from growir.growth.measure.sites import free_spaces
from growir.growth.policies.nash import Nash, NashSettings
from growir.growth.policy import Score
from growir.growth.problem import Problem
from growir.growth.recipe import Recipe
from growir.growth.session import Session
from growir.passes import Sequence, Update, Widen
from growir.rewrite import Pass, Preserves
from growir.testing import assert_preserves, graphs, policy_law
from tests.growth.test_policies import images, net, session_of

MOVES: tuple[Move, ...] = ("wider", "deeper", "both")
FEW: dict[str, Any] = {"children": 2, "child_steps": 2, "moves": 2}
test_obeys = policy_law(Nash, settings=FEW)
test_obeys_without_training = pytest.mark.slow(
    policy_law(Nash, settings={**FEW, "keep_training": False, "move": "deeper"})
)


def decided(
    name: str, budget: dict[str, Any] | None = None, optimizer: dict[str, Any] | None = None, **more: Any
) -> tuple[Session, list[Score], Pass | None]:
    """A session, its scores, and the growth, of a net that is not trained."""
    train = {"batch_size": 16, "recalibrate": 2}
    given = {"policy": "nash", "budget": {"parameters": 10**6, **(budget or {})}, "train": train, "threads": 1}
    given |= {"optimizer": optimizer} if optimizer else {}
    session = Session(net(name), Problem.of_data(images(), "cross_entropy"), parse_run(given, "test"))
    policy = Nash(NashSettings(**{**FEW, **more}))
    room = Budget(session.config.budget, session.graph)
    with session.meter.phase("growing"):
        scores = policy.score(session, policy.propose(session, room), 1)
        chosen = policy.select(session, scores, room)
        return session, scores, policy.build(session, chosen) if chosen else None


def loss(session: Session) -> float:
    assert session.data.select is not None
    return session.measure(session.data.select).metrics["loss"]


@pytest.mark.parametrize("name", ["dense", "residual", "attention"])
def test_the_growth_brings_what_the_best_child_has_learned(name: str) -> None:
    session, scores, step = decided(name, children=3, child_steps=6)
    assert isinstance(step, Sequence)
    assert isinstance(step.passes[-1], Update)
    best = max(scores, key=lambda score: score.gain)
    assert step.passes[:-1] == best.candidate.part.passes
    assert len({score.gain for score in scores}) == 3
    before = loss(session)
    session.grow(step)
    assert before - loss(session) == pytest.approx(best.gain, abs=1e-4)


def test_without_its_training_a_child_keeps_the_function() -> None:
    session, scores, step = decided("residual", keep_training=False)
    assert step is not None
    assert step.preserves(session.graph) in (Preserves.EXACT, Preserves.EVAL)
    assert_preserves(step, session.graph)
    assert all(score.ordinal for score in scores)


@settings(max_examples=max(10, settings().max_examples // 4), deadline=None)
@given(st.data())
def test_drawn_moves_fill_the_budget_and_keep_it(data: st.DataObject) -> None:
    graph = data.draw(graphs(moves=3))
    limits = BudgetConfig.model_validate({"per_growth": {"parameters": data.draw(st.integers(1, 60))}})
    budget = Budget(limits, graph)
    move = data.draw(st.sampled_from(MOVES))
    key = data.draw(st.integers(0, 10**6))
    step = drawn_moves(budget, 0, key, count=2, move=move, by=0.25, fill=True)
    assert step == drawn_moves(Budget(limits, graph), 0, key, count=2, move=move, by=0.25, fill=True)
    left = budget
    if step is not None:
        assert budget.fits(step)
        assert_preserves(step, graph)
        left = budget.after(step)
        assert left.room.parameters == budget.room.parameters - budget.cost(step).parameters
    for space in free_spaces(left.graph):
        assert not left.fits(Widen(node=space.name, by=space.stride))


@pytest.mark.parametrize("length", [{"child_epochs": 1, "child_steps": None}, {"child_steps": 5}])
def test_compute_is_kept_and_told(length: dict[str, Any]) -> None:
    limits = {"per_growth": {"share": 0.3}}
    session, scores, _ = decided("residual", children=None, compute=6.0, budget=limits, **length)
    epoch = 6.0 * session.graph.costs().macs * len(session.data.train)
    assert session.data.select is not None
    of_it_as_it_is = 2.0 * session.graph.costs().macs * len(session.data.select)
    spent = session.meter.costs["growing"].flops - of_it_as_it_is
    assert len(scores) > 2
    assert 6.0 * epoch * (1 - 1.5 / len(scores)) < spent <= 6.0 * epoch


def test_a_budget_is_filled_at_once_where_that_is_asked() -> None:
    session, _, step = decided("residual", budget={"parameters": 400}, fill="budget")
    assert step is not None
    session.grow(step)
    left = Budget(session.config.budget, session.graph)
    assert not any(left.fits(Widen(node=space.name, by=space.stride)) for space in free_spaces(session.graph))


def test_a_budget_without_an_end_cannot_be_filled() -> None:
    free = session_of("dense", "nash").config.budget.model_copy(update={"parameters": None})
    session = session_of("dense", "nash")
    session.config = session.config.model_copy(update={"budget": free})
    with pytest.raises(RunError, match=r'fill is "budget", but nothing limits the network'):
        Nash(NashSettings(fill="budget")).check(session)


def test_one_child_is_tried_whatever_it_costs() -> None:
    _, scores, step = decided("dense", children=None, compute=1e-6)
    assert len(scores) == 1
    assert step is not None


def test_children_that_diverge_are_none() -> None:
    _, scores, step = decided("attention", child_steps=20, optimizer={"name": "SGD", "learning_rate": 1e30})
    assert step is None
    assert all(score.notes == {"diverged": True} and not score.ordinal for score in scores)


def test_what_a_fork_computes_counts_here() -> None:
    session = session_of("dense", "random")
    with session.meter.phase("growing"):
        session.fork().train(Recipe(epochs=2, batch_size=8), 0)
    assert session.meter.costs["growing"].flops == 12.0 * session.graph.costs().macs * len(session.data.train)
