"""Plans in a schedule: modules of one's own class that grow by shares of a run's budget."""

from __future__ import annotations

import functools
import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import growir
from growir import live
from growir.costs import costs_of
from growir.errors import ModelError
from growir.live import Growth, Plateau, Schedule
from growir.passes import Widen

X = torch.linspace(-1, 1, 24).reshape(8, 3)


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc, self.norm, self.head = nn.Linear(3, width), nn.LayerNorm(3), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(functional.gelu(self.fc(self.norm(x))))
        return found


@functools.cache
def plans() -> tuple[growir.Plan, growir.Plan]:
    return growir.plan(Net(4), Net(6), X), growir.plan(Net(6), Net(12), X)


def growths() -> list[Growth]:
    one, other = plans()
    return [Growth(0.3, one, lambda: Net(6)), Growth(0.6, other, lambda: Net(12))]


def optimizer_of(module: nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim < 2]
    return torch.optim.AdamW([{"params": matrices, "lr": 1e-2}, {"params": vectors, "lr": 1e-3}])


def trained(
    module: nn.Module, optimizer: torch.optim.Optimizer, schedule: Schedule, steps: int
) -> tuple[nn.Module, list[Any]]:
    reports: list[Any] = []
    for _ in range(steps):
        loss = functional.mse_loss(module(X), X[:, :2])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        module, report = schedule.step(module, optimizer, samples=8, loss=loss.item())
        reports += [report] if report is not None else []
    return module, reports


def test_a_module_of_ones_own_class_grows_by_the_compute_that_its_plans_count() -> None:
    one, other = plans()
    macs = [costs_of(graph).macs for graph in (one.graph, one.rewrite.graph, other.rewrite.graph)]
    assert macs == [3 * 4 + 4 * 2, 3 * 6 + 6 * 2, 3 * 12 + 12 * 2]
    schedule = Schedule(growths(), budget=6 * 8 * macs[0] * 20)
    torch.manual_seed(0)
    module: nn.Module = Net(4)
    optimizer = optimizer_of(module)
    kept = optimizer
    module, reports = trained(module, optimizer, schedule, 6)
    assert [report.preserves for report in reports] == ["exact"]
    assert schedule.grown == [pytest.approx(0.3)]
    assert isinstance(module, Net)
    assert module.fc.out_features == 6
    before = module(X)
    module, reports = trained(module, optimizer, schedule, 4)
    assert schedule.grown == [pytest.approx(0.3), pytest.approx(0.3 + 4 * 0.05 * macs[1] / macs[0])]
    assert optimizer is kept
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == set(map(id, module.parameters()))
    assert all(p.ndim > 1 for p in optimizer.param_groups[0]["params"])
    assert all("exp_avg" in optimizer.state[p] for p in module.parameters())
    module, _ = trained(module, optimizer, schedule, 10)
    assert schedule.ended
    assert functional.mse_loss(module(X), X[:, :2]) < functional.mse_loss(before, X[:, :2])


@pytest.mark.parametrize("unit", ["steps", "compute"])
def test_the_old_module_is_refused_at_the_next_step(unit: Any) -> None:
    schedule = Schedule(growths()[:1], budget=10 if unit == "steps" else 6 * 8 * 20 * 10, unit=unit)
    small = Net(4)
    optimizer = optimizer_of(small)
    trained(small, optimizer, schedule, 2)
    _, report = schedule.step(small, optimizer, samples=8)
    assert report is not None
    for module in (small, Net(7)):
        with pytest.raises(ModelError, match=r"after 1 growth the schedule needs the module that was given back last"):
            schedule.step(module, optimizer, samples=8)


def test_a_run_of_ones_own_class_goes_on_from_a_checkpoint_to_the_same_bits() -> None:
    def fresh() -> Schedule:
        one, other = plans()
        rule = Plateau(window=0.2, least=0.9)
        return Schedule(
            [Growth(rule, one, lambda: Net(6)), Growth(0.7, other, lambda: Net(12))], budget=20, unit="steps"
        )

    torch.manual_seed(0)
    schedule, module = fresh(), Net(4)
    optimizer = optimizer_of(module)
    found, reports = trained(module, optimizer, schedule, 9)
    assert len(reports) == 1
    file = io.BytesIO()
    torch.save([found.state_dict(), optimizer.state_dict(), schedule.state_dict()], file)
    found, reports = trained(found, optimizer, schedule, 11)
    assert len(reports) == 1
    file.seek(0)
    weights, state, counts = torch.load(file, weights_only=True)
    again_schedule = fresh()
    again_schedule.load_state_dict(counts)
    again = again_schedule.made(lambda: Net(4))
    again.load_state_dict(weights)
    again_optimizer = optimizer_of(again)
    again_optimizer.load_state_dict(state)
    again, _ = trained(again, again_optimizer, again_schedule, 11)
    assert again_schedule.grown == schedule.grown
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in found.state_dict().items())
    assert isinstance(fresh().made(lambda: Net(4)), Net)


def test_modes_and_options_go_to_the_growth() -> None:
    schedule = Schedule(growths(), budget=1, unit="steps", fresh="zero")
    small = Net(4).eval()
    optimizer = optimizer_of(small)
    schedule = Schedule(growths(), budget=3, unit="steps", fresh="zero")
    large, reports = trained(small, optimizer, schedule, 1)
    assert reports
    assert not large.training
    assert not optimizer.state[large.get_parameter("fc.weight")]["exp_avg_sq"][4:].any()


def test_growths_that_do_not_go_together_are_told() -> None:
    one, other = plans()
    with pytest.raises(ModelError, match="with a plan, `make` is needed"):
        Growth(0.5, one)
    with pytest.raises(ModelError, match="`make` goes with a plan"):
        Growth(0.5, Widen(node="fc", by=2), lambda: Net(6))
    with pytest.raises(ModelError, match="for one of your class: not both"):
        Schedule([Growth(0.2, one, lambda: Net(6)), Growth(0.5, Widen(node="fc", by=2))], budget=1)
    with pytest.raises(ModelError, match=f"growth 0 leads to a graph with hash {other.after[:12]}, but the plan of"):
        Schedule([Growth(0.2, other, lambda: Net(12)), Growth(0.5, one, lambda: Net(6))], budget=1)
    schedule = Schedule([Growth(0.0, one, lambda: Net(7))], budget=4, unit="steps")
    small = Net(4)
    with pytest.raises(ModelError, match=r"the large model: fc.weight has shape \[7, 3\], but in the plan \[6, 3\]"):
        schedule.step(small, optimizer_of(small))
    assert not schedule.grown
    assert live.Schedule is Schedule
