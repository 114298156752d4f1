"""Running statistics of norms: taken anew, they say what the present weights give, and the log tells of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import growir
from growir.growth.config import parse_run
from growir.growth.problem import Problem
from growir.growth.session import Session
from growir.network import Network
from growir.runs import records
from tests.growth.nets import imported, maps
from tests.growth.problems import small_session, spirals


def net(dropout: float = 0.0, width: int = 4) -> Network:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout), nn.Flatten()]
    x, _ = maps(8)
    model = nn.Sequential(*layers, nn.Linear(width * x.shape[2] * x.shape[3], 4))
    return imported(model, x[:2])


def session_of(network: Network, batches: int = 30) -> Session:
    x, y = maps(96)
    data = growir.data.Data.from_arrays(x.numpy(), y.numpy(), select=0.25)
    config = parse_run({"policy": "random", "train": {"recalibrate": batches, "batch_size": 16}}, "test")
    return Session(network, Problem.of_data(data, "cross_entropy"), config)


def stale(session: Session) -> None:
    """Weights that have moved away from the statistics."""
    with torch.no_grad():
        session.tensors["layers.0.weight"].mul_(3.0).add_(0.5)


def statistics(session: Session) -> dict[str, torch.Tensor]:
    return {key: t.clone() for key, t in session.tensors.items() if not isinstance(t, nn.Parameter)}


def test_statistics_are_those_of_the_data_that_is_trained_on() -> None:
    session = session_of(net())
    stale(session)
    before = {key: parameter.clone() for key, parameter in session.learned.items()}
    kept = statistics(session)
    assert session.recalibrate(0) == 5  # 72 samples: four batches of 16, the last joined or by itself
    found = statistics(session)
    (x,) = session.reading.first(len(session.data.train))
    made = nn.functional.conv2d(x, session.tensors["layers.0.weight"], session.tensors["layers.0.bias"], padding=1)
    torch.testing.assert_close(found["layers.1.running_mean"], made.mean((0, 2, 3)), rtol=0.02, atol=0.02)
    torch.testing.assert_close(found["layers.1.running_var"], made.var((0, 2, 3)), rtol=0.05, atol=0.05)
    assert not torch.allclose(kept["layers.1.running_mean"], found["layers.1.running_mean"], rtol=0.1)
    assert torch.equal(kept["layers.1.num_batches_tracked"], found["layers.1.num_batches_tracked"])
    for key, parameter in session.learned.items():
        assert torch.equal(parameter, before[key])


def test_the_same_key_reads_the_same_batches_and_drops_nothing_out() -> None:
    found: list[dict[str, torch.Tensor]] = []
    for key in (0, 0, 1):
        session = session_of(net(dropout=0.5), batches=2)
        stale(session)
        assert session.recalibrate(key) == 2
        assert not session.reading.ready(session.data.train).module.training
        found.append(statistics(session))
    assert torch.equal(found[0]["layers.1.running_mean"], found[1]["layers.1.running_mean"])
    assert not torch.equal(found[0]["layers.1.running_mean"], found[2]["layers.1.running_mean"])
    norms = [part for part in session.module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms] == [0.1]


def test_a_network_without_statistics_is_not_read() -> None:
    session = small_session(spirals(60))
    assert session.recalibrate(0) == 0


@pytest.mark.parametrize("batches", [0, 3])
def test_the_log_says_when_they_were_taken_anew(batches: int) -> None:
    x, y = maps(96)
    result = growir.grow(
        net(),
        growir.data.Data.from_arrays(x.numpy(), y.numpy(), select=0.25),
        policy="random",
        objective="cross_entropy",
        budget={"steps": 1, "parameters": 10**6},
        train={"recalibrate": batches, "epochs_between": 1, "epochs_final": 1, "batch_size": 16},
    )
    told = [event for event in result.events if isinstance(event, records.Recalibrated)]
    growths = [event for event in result.events if isinstance(event, records.Growth)]
    if not batches:
        assert told == []
        return
    assert [(each.step, each.when, each.batches) for each in told] == [(1, "before", 3), (1, "after", 3)]
    (growth,) = growths
    assert growth.before is not None
    assert growth.after is not None
    losses = [parts["selection"]["loss"] for parts in (growth.before, growth.after)]
    assert [each.selection_loss for each in told] == losses
