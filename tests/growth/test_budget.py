"""Budgets: what fits is what the rewritten graph says, and what is narrowed is the widest that fits."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.channels import analyse
from growir.errors import PassRefused, RunError
from growir.graph import Graph, Input, Node
from growir.growth.budget import Budget, BudgetConfig, Cost, GrowthLimits
from growir.growth.config import parse_run
from growir.growth.sections import MOST
from growir.ops import Linear, Relu
from growir.passes import InsertLayer, Prune, Sequence, Widen
from growir.testing import candidates_on
from growir.verify import verify


def dense(inputs: int = 3, hidden: int = 4, outputs: int = 2) -> Graph:
    nodes = (
        Node(name="fc", op=Linear(out_features=hidden), inputs=("x",)),
        Node(name="act", op=Relu(), inputs=("fc",)),
        Node(name="out", op=Linear(out_features=outputs), inputs=("act",)),
    )
    return verify(Graph(inputs=(Input(name="x", shape=("N", inputs)),), nodes=nodes, outputs=("out",)))


# 3 -> 4 -> 2: 26 parameters, 20 multiply-accumulates. A unit more is 3 + 1 + 2 = 6 parameters and 5 of those.
NET = dense()


def limits(**fields: object) -> BudgetConfig:
    return BudgetConfig.model_validate(fields)


def test_a_cost_is_that_of_the_rewritten_graph() -> None:
    budget = Budget(limits(per_growth={"units": 10}), NET)
    assert Cost.of(NET) == Cost(26, 20, 0, 2)
    assert Cost.of(NET, units=True).units == sum(space.units for space in analyse(NET).spaces)
    assert budget.cost(Widen(node="fc", by=2)) == Cost(parameters=12, macs=10, units=2, layers=0)
    assert budget.cost(Prune(node="fc", channels=(0,))) == Cost(parameters=-6, macs=-5, units=-1, layers=0)
    layer = budget.cost(InsertLayer(after="act", layer="linear", activation="relu"))
    assert (layer.parameters, layer.macs, layer.layers) == (20, 16, 1)


def test_units_are_counted_only_where_they_are_limited() -> None:
    assert Budget(limits(), NET).cost(Widen(node="fc", by=2)).units == 0


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"parameters": 26 + 17}, 2),  # 18 for three
        ({"parameters": 26 + 18}, 3),
        ({"macs": 20 + 14}, 2),
        ({"macs": 20 + 15}, 3),
        ({"per_growth": {"parameters": 23}}, 3),
        ({"per_growth": {"parameters": 24}}, 4),
        ({"per_growth": {"macs": 9}}, 1),
        ({"per_growth": {"units": 3}}, 3),
        ({"per_growth": {"share": 0.5}}, 2),  # 13 of 26
        ({"per_growth": {"share": 0.1}}, 0),
        ({"parameters": 26 + 12, "per_growth": {"units": 5}}, 2),
        ({"parameters": 26}, 0),
        ({}, 6),
    ],
)
def test_the_widest_that_fits_is_found_and_one_more_does_not_fit(fields: dict[str, object], most: int) -> None:
    budget = Budget(limits(**fields), NET)
    found = budget.narrowed(lambda units: Widen(node="fc", by=units), 6)
    assert (found.by if isinstance(found, Widen) else 0) == most
    assert [budget.fits(Widen(node="fc", by=by)) for by in range(1, 7)] == [by <= most for by in range(1, 7)]
    assert budget.refused == (most < 6)


def test_what_is_narrowed_stays_a_multiple() -> None:
    budget = Budget(limits(per_growth={"units": 5}), NET)
    found = budget.narrowed(lambda units: Widen(node="fc", by=units), 8, multiple=2)
    assert isinstance(found, Widen)
    assert found.by == 4
    assert budget.narrowed(lambda units: Widen(node="fc", by=units), 1, multiple=2) is None


def test_layers_are_limited_by_themselves() -> None:
    layer = InsertLayer(after="act", layer="linear", activation="relu")
    assert Budget(limits(per_growth={"layers": 1}), NET).fits(layer)
    two = Budget(limits(per_growth={"layers": 1}), NET)
    assert not two.fits(Sequence(passes=(layer, layer)))
    assert two.fits(Widen(node="fc", by=6))


def test_room_says_the_least_of_what_limits() -> None:
    assert Budget(limits(), NET).room == Cost(MOST, MOST, MOST, MOST)
    room = Budget(limits(parameters=40, macs=30, per_growth={"parameters": 20, "units": 3, "share": 0.5}), NET).room
    assert room == Cost(parameters=13, macs=10, units=3, layers=MOST)
    assert Budget(limits(parameters=20), NET).room.parameters == 0


def test_what_the_graph_refuses_does_not_count_as_refused_by_the_budget() -> None:
    budget = Budget(limits(parameters=30), NET)
    assert not budget.fits(Widen(node="nowhere", by=1))
    assert not budget.refused
    with pytest.raises(PassRefused):
        budget.cost(Widen(node="nowhere", by=1))
    assert not budget.fits(Widen(node="fc", by=1_000_000))
    assert budget.refused


@given(candidates_on(Widen), st.integers(-3, 40), st.integers(-3, 40))
def test_what_fits_is_within_every_limit_to_one(drawn: tuple[Widen, Graph], more: int, units: int) -> None:
    step, graph = drawn
    costs, grown = graph.costs(), step.rewrite(graph).graph
    most = max(costs.parameters + more, 1)
    each = GrowthLimits(units=units) if units > 0 else None
    fits = Budget(BudgetConfig(parameters=most, per_growth=each), graph).fits(step)
    added = Cost.of(grown, units=True).units - Cost.of(graph, units=True).units
    assert fits == (grown.costs().parameters <= most and (units <= 0 or added <= units))


def test_a_run_file_says_it() -> None:
    config = parse_run({"budget": {"steps": 3, "per_growth": {"share": 0.3, "units": 8}}}, "test")
    assert config.budget.per_growth == GrowthLimits(share=0.3, units=8)
    assert parse_run(tomllib.loads(config.to_toml()), "again") == config


@pytest.mark.parametrize("wrong", [{"share": 0}, {"units": 0}, {"parameters": -1}, {"layers": 1.5}, {"unit": 3}])
def test_what_is_wrong_is_said(wrong: dict[str, object]) -> None:
    with pytest.raises(RunError, match=r"\[budget\]"):
        parse_run({"budget": {"per_growth": wrong}}, "test")
