"""Growth in a training loop of one's own does what a run does, and goes on where it was."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from growir.data import Data
from growir.errors import ModelError, RunError
from growir.families import family_of, network
from growir.growth.grower import Grower
from growir.live import network_of
from growir.network import Network
from growir.runs import records
from tests.growth.nets import Residual, imported, maps

X, Y = maps()
EVERY = {"name": "every", "epochs": 2, "growths": 2}


def grower(**more: Any) -> tuple[Grower, torch.optim.Optimizer]:
    module = imported(Residual()).to_torch()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    settings: dict[str, Any] = {"policy": "random", "schedule": EVERY, **more}
    return Grower(module, optimizer, "cross_entropy", Data.from_arrays(X, Y), **settings), optimizer


def epoch(found: Grower, optimizer: torch.optim.Optimizer) -> None:
    found.module.train()
    for k in range(0, len(X), 32):
        optimizer.zero_grad()
        F.cross_entropy(found.module(X[k : k + 32]), Y[k : k + 32]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def test_it_grows_when_the_schedule_says_and_the_optimizer_follows() -> None:
    found, optimizer = grower()
    grown: list[bool] = []
    for _ in range(8):
        epoch(found, optimizer)
        grown.append(found.step())
    assert grown == [False, True, False, True, False, False, False, False]
    assert found.ended == "growths"
    growth = ["recalibrated", "growth", "recalibrated"]
    events = [event.event for event in found.events if event.event != "skipped"]
    assert events == ["trained", *growth, "trained", *growth, "trained", "ended"]
    assert [event.event for event in found.events].count("skipped") == 1  # the width of the head
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in found.module.parameters()}
    growths = [event for event in found.events if isinstance(event, records.Growth)]
    assert growths[-1].parameters == network_of(found.module).graph.costs().parameters


def test_the_budget_holds() -> None:
    limit = imported(Residual()).graph.costs().parameters
    found, optimizer = grower(budget={"parameters": limit})
    for _ in range(2):
        epoch(found, optimizer)
        assert not found.step()
    assert found.ended == "parameters"


def test_going_on_grows_alike() -> None:
    whole, optimizer = grower()
    for _ in range(3):
        epoch(whole, optimizer)
        whole.step()
    state = json.loads(json.dumps(whole.state_dict()))
    module, other = copy.deepcopy((whole.module, optimizer))
    again = Grower(module, other, "cross_entropy", Data.from_arrays(X, Y), policy="random", schedule=EVERY)
    again.load_state_dict(state)
    for _ in range(3):
        epoch(whole, optimizer)
        epoch(again, other)
        assert whole.step() == again.step()
    assert network_of(whole.module).graph.hash == network_of(again.module).graph.hash
    for one, two in zip(whole.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(one, two)


def test_going_on_knows_what_grew() -> None:
    """Whose turn it is follows from what grew before."""
    x, y = torch.randn(60, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    start = Network.init(network("Basic3ResNet", (1, 6, 6), 3, width=2), 0).to_torch()
    optimizer = torch.optim.SGD(start.parameters(), lr=0.05)
    settings: dict[str, Any] = {"policy": "autogrow", "schedule": {"name": "periodic", "epochs": 1, "window": 0}}

    def made(module: torch.fx.GraphModule, optimizer: torch.optim.Optimizer) -> Grower:
        return Grower(module, optimizer, "cross_entropy", Data.from_arrays(x, y), **settings)

    found = made(start, optimizer)
    for _ in range(4):
        state = json.loads(json.dumps(found.state_dict()))
        found = made(found.module, optimizer)
        found.load_state_dict(state)
        assert found.step()
    assert str(family_of(network_of(found.module).graph)) == "Basic3ResNet-3-2-2"


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(RunError, match="takes growths back, which only a run can do"):
        grower(policy={"name": "dag", "strategy": "whole"})
    with pytest.raises(ModelError, match="must be a GraphModule that growir made"):
        Grower(Residual(), torch.optim.SGD([torch.zeros(1)]), "mse", Data.from_arrays(X, Y), policy="random")
    with pytest.raises(RunError, match="Did you mean 'random'"):
        grower(policy="ramdom")
