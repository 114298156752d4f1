"""An optimizer's state by name, exact to the bit, for any optimizer."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from growir.errors import RunError
from growir.growth.optimizer_state import OptimizerState, optimizer_state, restore_optimizer
from growir.growth.optimizing import make
from growir.growth.rates import schedule, set_apart
from growir.growth.recipe import OptimizerConfig, RateConfig

NAMES = ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Rprop", "ASGD", "Muon"]
KEYWORDS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "Adam": {"amsgrad": True, "betas": [0.8, 0.9]},
    "RMSprop": {"momentum": 0.5, "centered": True},
}


def weights(vectors: bool = True) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (4, 3), "b.weight": (2, 4)} | ({"a.bias": (4,)} if vectors else {})
    return {key: nn.Parameter(torch.randn(shape, generator=generator)) for key, shape in shapes.items()}


def step(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def through_files(state: OptimizerState) -> OptimizerState:
    return OptimizerState(
        {key: tensor.clone() for key, tensor in state.tensors.items()}, json.loads(json.dumps(state.rest))
    )


def assert_same(one: OptimizerState, other: OptimizerState) -> None:
    assert json.dumps(one.rest, sort_keys=True) == json.dumps(other.rest, sort_keys=True)
    assert one.tensors.keys() == other.tensors.keys()
    for key, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[key].dtype
        assert tensor.numpy().tobytes() == other.tensors[key].numpy().tobytes(), key


@pytest.mark.parametrize("name", NAMES)
def test_what_is_restored_steps_as_before(name: str) -> None:
    config = OptimizerConfig.model_validate({"name": name, **KEYWORDS.get(name, {})})
    one, other = weights(name != "Muon"), weights(name != "Muon")
    before, after = make(one, config), make(other, config)
    for number in range(3):
        step(one, before, number)
    state = through_files(optimizer_state(before, one))
    assert state.tensors
    with torch.no_grad():
        for key, parameter in one.items():
            other[key].copy_(parameter)
    step(other, after, 7)  # what it had is gone
    with torch.no_grad():
        for key, parameter in one.items():
            other[key].copy_(parameter)
    restore_optimizer(after, state, other)
    assert_same(optimizer_state(after, other), state)
    for group, mine in zip(before.state_dict()["param_groups"], after.state_dict()["param_groups"], strict=True):
        assert group == mine
    for number in (3, 4):
        step(one, before, number)
        step(other, after, number)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_groups_that_a_growth_made_and_a_schedule_left_come_back() -> None:
    one, other = weights(), weights()
    before, after = make(one), make(other)
    rate = RateConfig(name="cosine", rewarm="new", rewarm_steps=5)
    set_apart(before, [one["b.weight"], one["a.bias"]], 3)
    scheduler = schedule(before, rate, 10, step=3)
    assert scheduler is not None
    step(one, before, 0)
    scheduler.step()
    state = through_files(optimizer_state(before, one))
    assert [group["params"] for group in state.rest["groups"]] == [["a.weight"], [], ["b.weight"], ["a.bias"]]
    restore_optimizer(after, state, other)
    assert_same(optimizer_state(after, other), state)
    again = schedule(after, rate, 10, step=4)
    assert [g["lr"] for g in after.param_groups] == [g["lr"] for g in before.param_groups]
    assert again is not None
    # And the other way: groups that were not there then leave.
    fresh = through_files(optimizer_state(make(weights()), weights()))
    plain = make(one)
    set_apart(plain, [one["b.weight"]], 3)
    saved = through_files(optimizer_state(make(one), one))
    restore_optimizer(plain, saved, one)
    assert_same(optimizer_state(plain, one), saved)
    assert fresh.tensors == {}


def test_a_rate_that_is_a_tensor_and_parameters_of_others() -> None:
    own, foreign = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam([own, foreign], lr=rate, capturable=False)
    step({"own": own, "foreign": foreign}, optimizer, 0)
    state = through_files(optimizer_state(optimizer, {"own": own}))
    assert "exp_avg:#0.1" in state.tensors
    rate.fill_(0.5)
    restore_optimizer(optimizer, state, {"own": own})
    assert float(rate) == pytest.approx(0.1)
    assert optimizer.param_groups[0]["lr"] is rate


class Lookahead(torch.optim.Optimizer):
    """Steps another optimizer, and keeps slow weights itself."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        super().__init__([p for group in inner.param_groups for p in group["params"]], {"alpha": 0.5})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        for group in self.param_groups:
            for parameter in group["params"]:
                slow = self.state[parameter].setdefault("slow", parameter.clone())
                slow.lerp_(parameter, group["alpha"])


def test_an_optimizer_that_holds_another() -> None:
    one, other = weights(), weights()
    before, after = (Lookahead(torch.optim.SGD(list(w.values()), lr=0.1, momentum=0.9)) for w in (one, other))
    for number in range(2):
        step(one, before, number)
    state = through_files(optimizer_state(before, one))
    assert {"slow:a.weight", "inner/momentum_buffer:a.weight"} <= state.tensors.keys()
    restore_optimizer(after, state, other)
    assert_same(optimizer_state(after, other), state)


def test_state_of_another_optimizer_or_network() -> None:
    parameters = weights()
    state = optimizer_state(make(parameters, OptimizerConfig(name="SGD")), parameters)
    with pytest.raises(RunError, match=r"^the state was kept by SGD, but the optimizer is AdamW; go on with the one"):
        restore_optimizer(make(parameters), state, parameters)
    fewer = weights(vectors=False)
    words = r"^the state of SGD is of other parameters than the network's: 1 parameter \(a\.bias\) in one of them only"
    with pytest.raises(RunError, match=words):
        restore_optimizer(make(fewer, OptimizerConfig(name="SGD")), state, fewer)
