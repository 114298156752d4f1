"""Growth that cannot be: what the network lacks, budgets that are too small, numbers that are not finite."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import growir
from growir.data.parts import Data
from growir.errors import PassRefused, RunError
from growir.growth.budget import Budget, BudgetConfig
from growir.growth.config import parse_run
from growir.growth.grower import Grower
from growir.growth.measure.choice import NOWHERE, Choice
from growir.growth.measure.learning import training_batches
from growir.growth.measure.outgoing import strengthened
from growir.growth.measure.sites import free_spaces
from growir.growth.observer import Observer
from growir.growth.policy import Candidate, PolicySettings, Score
from growir.growth.problem import Problem
from growir.growth.running import start_run
from growir.growth.session import Session
from growir.network import Network
from growir.passes import Widen
from growir.rewrite import Pass
from growir.runs.reading import read_run
from growir.runs.records import Ended, Event, Growth, Skipped
from growir.runs.report import run_page
from growir.runs.telling import Teller
from tests.growth.test_policies import images, net

FEW = {"epochs_between": 1, "epochs_final": 1, "batch_size": 16}
FIREFLY = {"name": "firefly", "learn_steps": 2, "judge_batches": 1, "fresh_units": 2}
GAUSS_NEWTON = {"name": "gauss_newton", "learn_steps": 2, "learn_batch": 16}
SPLITTING = {"name": "splitting_descent", "learn_steps": 2, "learn_batch": 16}
GRADMAX = {"name": "gradmax", "learn_steps": 1, "judge_batches": 1, "fresh_units": 2}
LEARNABLE = {"name": "learnable", "learn_steps": 2, "judge_batches": 1}
SITED = pytest.mark.parametrize(
    "policy", [FIREFLY, GAUSS_NEWTON, SPLITTING, GRADMAX, LEARNABLE], ids=lambda found: found["name"]
)


PINNED = "layers.1 (its width 4 is pinned by layers.1 (graph output))"


def linear() -> Network:
    torch.manual_seed(0)
    return growir.from_torch(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), torch.zeros(2, 1, 8, 8))


def of(events: Sequence[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


# -- what a network has not -------------------------------------------------------------------------------------------


@SITED
def test_a_network_without_a_kind_says_why(policy: Mapping[str, Any], tmp_path: Path) -> None:
    found = growir.grow(linear(), images(), policy=policy, train=FEW, out=tmp_path / "run")
    (ended,) = of(found.events, Ended)
    assert (ended.reason, ended.why) == ("no move", PINNED)
    page = "\n".join(part for part in run_page(read_run(tmp_path / "run")) if isinstance(part, str))
    assert f"growth ended: there is nothing that could grow: {PINNED}" in flat(page)
    assert f"{policy['name']} chooses nothing in {PINNED}" in flat(page)
    told = [line for event in found.events for line in Teller().lines(event)]
    assert max(len(line) for text in told for line in text.splitlines()) <= 80


def test_where_no_layer_may_come_in_it_is_said() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.table(x)
            return found

    start = growir.from_torch(Words(), torch.zeros(2, dtype=torch.int64))
    assert Choice(start.graph, width=False, depth=True).skipped == {"new layers": NOWHERE}
    data = Data.from_arrays(np.arange(40) % 5, np.arange(40) % 4)
    found = growir.grow(start, data, policy={**FIREFLY, "move": "depth"}, train=FEW)
    (ended,) = of(found.events, Ended)
    assert (ended.reason, ended.why) == ("no move", f"new layers ({NOWHERE})")


def test_spaces_that_are_skipped_are_told_once() -> None:
    found = growir.grow(net("residual"), images(), policy=FIREFLY, train=FEW, budget={"steps": 2})
    growths: list[Growth] = of(found.events, Growth)
    assert len(growths) == 2
    for growth in growths:  # what was predicted stands beside what was measured
        assert growth.predicted_gain == pytest.approx(sum(each.gain or 0.0 for each in growth.chosen))
        before, after = (part["selection"]["loss"] or 0.0 for part in (growth.before, growth.after))
        assert growth.measured_gain == pytest.approx(before - after, abs=1e-6)
        assert growth.measured_gain
    (skipped,) = of(found.events, Skipped)
    assert (skipped.step, skipped.policy) == (1, "firefly")
    assert all("pinned" in why for why in skipped.spaces.values())
    assert found.events.index(skipped) < found.events.index(of(found.events, Growth)[0])


def test_frozen_uniform_and_tied_spaces_have_their_reasons() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n, self.b, self.c = nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4), nn.Linear(4, 3)
            self.c.weight.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.c(self.b(self.n(self.a(x))))
            return found

    start = growir.from_torch(Mixed(), torch.zeros(2, 6))
    data = Data.from_arrays(np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32), np.arange(40) % 3)
    events = growir.grow(start, data, policy=FIREFLY, train=FEW).events
    (skipped,) = of(events, Skipped)
    assert "normalised as a whole" in skipped.spaces["a"]
    assert skipped.spaces["b"] == "c.weight is frozen, so new units of it would never learn"
    assert "pinned" in skipped.spaces["c"]


def test_a_run_that_goes_on_tells_nothing_twice(tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"policy": FIREFLY, "train": FEW, "budget": {"steps": 2}}
    whole = growir.grow(net("residual"), images(), **wanted)

    def stop(event: Event) -> None:
        if isinstance(event, Growth) and event.step == 2:
            raise KeyboardInterrupt

    config = parse_run({**wanted, "threads": 1}, "test")
    problem = Problem.of_data(images())
    with pytest.raises(KeyboardInterrupt):
        start_run(config, problem, net("residual"), out=tmp_path / "run", observer=Observer(event=stop))
    found = start_run(config, problem, net("residual"), out=tmp_path / "run", resume=True)
    assert [event.event for event in found.events] == [event.event for event in whole.events]
    assert len(of(found.events, Skipped)) == 1


# -- budgets ----------------------------------------------------------------------------------------------------------


@SITED
def test_a_budget_below_the_cheapest_candidate_says_what_it_costs(policy: Mapping[str, Any]) -> None:
    policy = {**policy, **({"prune": False} if policy["name"] == "gauss_newton" else {})}
    limit = {"parameters": net("dense").graph.costs().parameters + 3}
    found = growir.grow(net("dense"), images(), policy=policy, train=FEW, budget=limit)
    (ended,) = of(found.events, Ended)
    assert ended.reason == "parameters"
    assert re.fullmatch(r"the cheapest candidate adds \d+ parameters where 3 are left", str(ended.why))


def test_what_lacks_is_the_nearest_to_the_budget_in_every_limit_that_it_breaks() -> None:
    graph = net("dense").graph
    wide = [Widen(node=space.name, by=by) for space in free_spaces(graph) for by in (3, 2)]
    costs = graph.costs()
    for each in ({"units": 1}, {"macs": 2}, {"parameters": 2, "macs": 2}):
        budget = Budget(BudgetConfig.model_validate({"per_growth": each}), graph)
        assert budget.lacking is None
        refused = [budget.cost(step) for step in wide if not budget.fits(step)]
        assert refused
        said = str(budget.lacking)
        for name in each:
            least = min(getattr(cost, name) for cost in refused)
            left = f"{each[name]} {'is' if each[name] == 1 else 'are'} left"
            assert f"{least:,} {name} where {left}" in said
    budget = Budget(BudgetConfig(parameters=costs.parameters - 5), graph)
    assert not budget.fits(wide[0])
    assert "where 0 are left" in str(budget.lacking)


# -- numbers that are not finite --------------------------------------------------------------------------------------


class Spoils:
    """Brings a unit whose numbers make outputs overflow."""

    name: ClassVar[str] = "spoils"
    Settings: ClassVar[type[PolicySettings]] = PolicySettings

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        step = Choice(session.graph).sites[0]
        return [Candidate(step.name, budget.cost(Widen(node=step.name, by=step.space.stride)), step)]

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        return [Score(each, 1.0) for each in candidates]

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        return list(scores)

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        site = chosen[0].candidate.part
        gated = Choice(session.graph).gated(session.module, [site], split=False, fresh=1, key=(0,))
        for direction in gated.directions.values():
            direction.fill_(3e38)
        return gated.chosen([0], gated.gates(1.0))


SPOILS: Any = Spoils


def test_a_growth_that_overflows_is_refused_and_changes_nothing() -> None:
    config = parse_run({"policy": "random", "threads": 1}, "test")
    session = Session(net("dense"), Problem.of_data(images()), config)
    policy = Spoils(PolicySettings())
    budget = Budget(session.config.budget, session.graph)
    step = policy.build(session, policy.score(session, policy.propose(session, budget), 1))
    before, module, state = session.network(), session.module, session.optimizer.state_dict()
    with pytest.raises(PassRefused, match="an output becomes NaN or infinite on the given batch; nothing was applied"):
        session.grow(step)
    assert session.module is module
    assert session.optimizer.state_dict() == state
    assert session.graph.hash == before.graph.hash
    assert all(np.array_equal(array, before.arrays[key]) for key, array in session.network().arrays.items())
    words = "policy spoils: sequence, which it built, cannot be applied: an output becomes NaN .*stays as it was"
    with pytest.raises(RunError, match=words):
        growir.grow(net("dense"), images(), policy=SPOILS, train=FEW)


def test_a_loop_goes_on_after_a_growth_that_overflows() -> None:
    module = net("dense").to_torch()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    grower = Grower(module, optimizer, "cross_entropy", images(), SPOILS, {"name": "every", "epochs": 1, "growths": 1})
    with pytest.raises(RunError, match="the network stays as it was"):
        grower.step()
    assert grower.module is module
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == set(map(id, module.parameters()))


@SITED
@pytest.mark.parametrize("name", ["dense", "residual"])
def test_huge_numbers_are_refused_before_anything_changes(policy: Mapping[str, Any], name: str) -> None:
    x = np.random.default_rng(0).normal(size=(64, 1, 8, 8)).astype(np.float32)
    huge = Data.from_arrays(x * np.float32(5e37), np.arange(64) % 4)
    module = net(name).to_torch()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1e6)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    words = "growing: .* (is|are) (nan|inf|NaN or infinite) .*the network stays as it was"
    section = {"name": "every", "epochs": 1, "growths": 1}
    grower = Grower(module, optimizer, "cross_entropy", huge, policy, section)
    with pytest.raises(RunError, match=words):
        grower.step()
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())


# -- second derivatives -----------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """One head, by an operator that torch differentiates once."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.q, self.k, self.v, self.o = (nn.Linear(a, b) for a, b in ((6, 4), (6, 4), (6, 4), (4, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = (layer(self.first(x)).unsqueeze(1) for layer in (self.q, self.k, self.v))
        found: torch.Tensor = self.o(F.scaled_dot_product_attention(*heads).squeeze(1)).mean(1)
        return found


def attention() -> Session:
    torch.manual_seed(0)
    start = growir.from_torch(Attention(), torch.zeros(2, 5, 6))
    x = np.random.default_rng(0).normal(size=(40, 5, 6)).astype(np.float32)
    config = parse_run({"policy": "random", "threads": 1, "train": {"batch_size": 16}}, "test")
    return Session(start, Problem.of_data(Data.from_arrays(x, np.arange(40) % 3), "cross_entropy"), config)


def strengthen(session: Session) -> None:
    choice = Choice(session.graph)
    gated = choice.gated(session.module, choice.sites, split=False, fresh=1, key=(0,))
    strengthened(session, gated, [next(training_batches(session, 0))], rate=0.1)


def test_an_operator_without_a_second_derivative_is_named() -> None:
    with pytest.raises(RunError, match=r"by second derivatives, which torch lacks here \(.*\); .* learn_steps = 0"):
        strengthen(attention())


def test_other_errors_of_torch_keep_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    session = Session(net("dense"), Problem.of_data(images()), parse_run({"policy": "random", "threads": 1}, "test"))
    monkeypatch.setattr(torch.Tensor, "backward", fails)
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        strengthen(session)
