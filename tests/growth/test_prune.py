"""Pruning by importance: what goes first, how small it becomes, and that a run that goes on ends alike."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

import growir
from growir.channels import analyse
from growir.data import Data
from growir.errors import RunError
from growir.growth.config import parse_run
from growir.growth.measure.importance import Importance, importances
from growir.growth.policies.prune import Goal, PruneSettings, Pruning
from growir.growth.problem import Problem
from growir.growth.session import Session
from growir.network import Network
from growir.params import with_frozen
from growir.passes import Prune
from growir.runs import records
from growir.testing import policy_law
from tests.growth.nets import maps
from tests.growth.test_gated import residual
from tests.growth.test_recalibrating import net

test_pruning = policy_law(Pruning, settings={"to": {"parameters": "70%"}, "rounds": 2}, max_examples=4)
test_pruning_by_layer = policy_law(
    Pruning, settings={"scope": "layer", "importance": "taylor", "to": {"macs": "50%"}}, max_examples=3
)


def session_of(network: Network) -> Session:
    size = [each for each in network.graph.inputs[0].shape if isinstance(each, int)]
    x = torch.randn(64, *size, generator=torch.Generator().manual_seed(0))
    data = Data.from_arrays(x.numpy(), torch.arange(64).numpy() % 2, select=0.25)
    return Session(network, Problem.of_data(data, "cross_entropy"), parse_run({"policy": "prune"}, "test"))


def grown(start: Network, **settings: Any) -> growir.growth.GrowthResult:
    x, y = maps(64)
    return growir.grow(
        start,
        Data.from_arrays(x.numpy(), y.numpy(), select=0.25),
        policy={"name": "prune", **settings},
        objective="cross_entropy",
        train={"epochs_between": 1, "epochs_final": 1, "batch_size": 16, "recalibrate": 2},
    )


@pytest.mark.parametrize(
    ("to", "what", "most"), [({"parameters": "60%"}, "parameters", 0.6), ({"macs": "50%"}, "macs", 0.5)]
)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_network_becomes_as_small_as_it_is_to_be_and_no_smaller(
    to: dict[str, str], what: str, most: float, scope: Literal["global", "layer"]
) -> None:
    start = Network.init(residual(), seed=0)
    session = session_of(start)
    policy = Pruning(PruneSettings(to=Goal(**to), scope=scope))
    from growir.growth.budget import Budget

    budget = Budget(session.config.budget, session.graph)
    scores = policy.score(session, policy.propose(session, budget), 0)
    chosen = policy.select(session, scores, budget)
    before, limit = getattr(start.graph.costs(), what), most * getattr(start.graph.costs(), what)
    after = before + getattr(budget.cost(policy.build(session, chosen)), what)
    one_less = before + getattr(budget.cost(policy.build(session, chosen[:-1])), what) if chosen[1:] else before
    assert after <= limit < one_less
    assert policy.propose(session, budget) == []  # one round, and it is over


def test_rounds_lead_to_the_goal_by_equal_factors() -> None:
    start = net(width=16)
    result = grown(start, to={"parameters": "25%"}, rounds=2)
    sizes = [event.parameters for event in result.events if isinstance(event, records.Growth)]
    whole = start.graph.costs().parameters
    assert len(sizes) == 2
    assert sizes[0] is not None
    assert sizes[1] is not None
    assert 0.25 * whole < sizes[0] <= 0.5 * whole
    assert sizes[1] <= 0.25 * whole
    assert all(
        event.predicted_gain is None for event in result.events if isinstance(event, records.Growth)
    )  # a magnitude promises nothing


@pytest.mark.parametrize("frozen", [(), ("c2.weight",)])
def test_the_taylor_measure_is_the_slope_of_what_reads_a_unit(frozen: tuple[str, ...]) -> None:
    """A unit that nothing reads is gone: the slope of the loss by a factor on its outgoing weights, frozen or not."""
    session = session_of(Network.init(with_frozen(residual(), frozen), seed=3))
    (space,) = [s for s in analyse(session.graph).spaces if s.name == "c1"]
    found = importances(session, [space], "taylor", 0)["c1"]
    step = 1e-3

    def loss(unit: int, factor: float) -> float:
        weight = session.tensors["c2.weight"]
        kept = weight.detach().clone()
        with torch.no_grad():
            weight[:, unit] *= factor
        value = float(session.measure(session.data.train).metrics["loss"])
        with torch.no_grad():
            weight.copy_(kept)
        return value

    for unit in range(space.units):
        slope = (loss(unit, 1 + step) - loss(unit, 1 - step)) / (2 * step)
        assert float(found[unit]) == pytest.approx(abs(slope), rel=0.05, abs=2e-4)
    assert float(found.max()) > 1e-3
    assert {key for key, tensor in session.tensors.items() if not tensor.requires_grad} >= {*frozen}


@pytest.mark.parametrize("measure", ["magnitude", "scale"])
def test_the_smallest_goes_first(measure: Importance) -> None:
    session = session_of(Network.init(residual(), seed=0))
    spaces = [s for s in analyse(session.graph).spaces if s.name == "c1"]
    with torch.no_grad():
        session.tensors["c1.weight" if measure == "magnitude" else "b1.weight"][2] *= 0.01
    found = importances(session, spaces, measure, 0)["c1"]
    assert int(found.argmin()) == 2
    assert float(found.mean()) == pytest.approx(1.0)


def test_chance_is_a_function_of_the_key() -> None:
    session = session_of(Network.init(residual(), seed=0))
    spaces = [s for s in analyse(session.graph).spaces if not s.pins]
    one, same, other = (importances(session, spaces, "random", key) for key in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_left_computes_what_the_whole_does_without_what_went() -> None:
    start = net()
    result = grown(start, to={"parameters": "60%"})
    history = result.grown.graph.history
    assert history is not None
    assert [each["pass"] for each in history.steps[0].fields["passes"]] == [Prune.name]


def test_no_goal_and_an_unknown_scope_are_refused() -> None:
    with pytest.raises(RunError, match="parameters or macs is needed"):
        parse_run({"policy": {"name": "prune", "to": {}}}, "test")
    with pytest.raises(RunError, match="'global' or 'layer'"):
        parse_run({"policy": {"name": "prune", "scope": "world"}}, "test")


@pytest.mark.parametrize("to", ["60", "0%", "101%", "60 percent", 0, -3, 1.5, None])
def test_a_goal_that_is_none_is_refused(to: Any) -> None:
    if to is None:
        with pytest.raises(RunError, match="to"):
            parse_run({"policy": {"name": "prune", "to": {"parts": "60%"}}}, "test")
        return
    with pytest.raises(RunError, match="to is"):
        parse_run({"policy": {"name": "prune", "to": {"parameters": to}}}, "test")
