"""What candidates learn, and what they are said to do to the loss beside what they do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from growir.data.source import Batch
from growir.errors import RunError
from growir.growth.config import parse_run
from growir.growth.measure.choice import Choice
from growir.growth.measure.gated import Gated
from growir.growth.measure.judging import along_path, left_out
from growir.growth.measure.learning import batch_statistics, learned, mean_loss, training_batches
from growir.growth.problem import Problem
from growir.growth.session import Session
from tests.growth.test_policies import images, net


def session_of(name: str) -> Session:
    config = parse_run({"policy": "random", "threads": 1, "train": {"batch_size": 32}}, "test")
    return Session(net(name), Problem.of_data(images()), config)


def tried(session: Session, *, split: bool = True, fresh: int = 2) -> Gated:
    choice = Choice(session.graph)
    return choice.gated(session.module, choice.sites, split=split, fresh=fresh, key=(7,))


def some_batches(session: Session, count: int) -> list[Batch]:
    found = training_batches(session, 0, 1)
    return [next(found) for _ in range(count)]


def test_of_losses_that_are_squares_of_gates_the_path_says_all() -> None:
    """As those of splits are: their slope is zero where the gate is."""
    sizes, gates = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 0.1, -0.2])
    batch = Batch((torch.zeros(4, 1),), torch.zeros(4))
    found = along_path(gates, lambda g, _: (sizes * g.square()).sum(), [batch, batch])
    torch.testing.assert_close(found, sizes * gates.square())


@pytest.mark.parametrize("name", ["dense", "residual", "depthwise"])
def test_the_sum_along_the_path_is_what_all_change_together(name: str) -> None:
    session = session_of(name)
    gated = tried(session)
    draws = torch.Generator().manual_seed(0)
    gates = 0.1 * torch.rand(len(gated.units), generator=draws)
    loss, batches = mean_loss(session, gated), some_batches(session, 2)
    with batch_statistics(session.module, session.graph):
        changes = along_path(gates, loss, batches)
        sizes = torch.tensor([len(batch) for batch in batches]) / sum(map(len, batches))
        measured = sum(s * float(loss(gates, b) - loss(gated.gates(), b)) for s, b in zip(sizes, batches, strict=True))
    assert float(changes.sum()) == pytest.approx(float(measured), abs=0.02 * float(changes.abs().sum()))


def test_of_small_gates_the_sum_over_some_is_what_these_change() -> None:
    session = session_of("residual")
    gated = tried(session, split=False)
    gates = gated.gates(1e-2)
    loss, batches = mean_loss(session, gated), some_batches(session, 1)
    with batch_statistics(session.module, session.graph):
        changes = along_path(gates, loss, batches)
        alone = gated.gates()
        alone[[0, 3]] = 1e-2
        measured = float(loss(alone, batches[0]) - loss(gated.gates(), batches[0]))
    assert float(changes[[0, 3]].sum()) == pytest.approx(measured, rel=0.05)


def test_left_out_is_the_difference_of_two_losses() -> None:
    session = session_of("dense")
    gated = tried(session)
    gates = gated.gates(0.3)
    loss, batches = mean_loss(session, gated), some_batches(session, 1)
    found = left_out(gates, loss, batches)
    without = gates.clone()
    without[5] = 0.0
    assert float(found[5]) == pytest.approx(float(loss(gates, batches[0]) - loss(without, batches[0])), abs=1e-7)
    assert int((found != 0).sum()) > 5


def test_candidates_learn_within_their_bounds_and_lower_the_loss() -> None:
    session = session_of("residual")
    gated = tried(session)
    batches = some_batches(session, 12)
    loss = mean_loss(session, gated)
    before = {key: tensor.clone() for key, tensor in session.tensors.items()}
    with batch_statistics(session.module, session.graph):
        first = float(loss(gated.gates(0.1), batches[0]))
        gates = learned(gated, loss, batches, eps=0.2, rate=0.3)
        last = float(loss(gates, batches[0]))
    assert last < first - 0.01
    assert float(gates.abs().max()) <= 0.2001
    for address, direction in gated.directions.items():
        (axis,) = gated.over.lies[address].at
        rows = direction.movedim(axis, 0).flatten(1)
        assert float(rows.square().mean(1).sqrt().max()) <= 1.0001 * gated.spreads[address]
        assert not direction.requires_grad
    assert all(torch.equal(before[key], tensor) for key, tensor in session.tensors.items())


def test_norms_take_the_batch_and_dropout_rests() -> None:
    session = session_of("residual")
    session.module.train()
    norms = [part for part in session.module.modules() if isinstance(part, nn.BatchNorm2d)]
    norms[0].eval()
    with batch_statistics(session.module, session.graph):
        assert all(norm.training for norm in norms)
        assert sum(part.training for part in session.module.modules()) == len(norms)
    assert [norm.training for norm in norms] == [False, True]
    assert session.module.training


def test_a_loss_that_is_not_finite_is_refused_before_anything_changes() -> None:
    session = session_of("dense")
    gated = tried(session)
    (batch,) = some_batches(session, 1)
    inputs = tuple(torch.full_like(x, torch.nan) for x in batch.inputs)  # type: ignore[arg-type]  # they are tensors
    with pytest.raises(RunError, match="growing: the loss is nan where candidates are measured"):
        learned(gated, mean_loss(session, gated), [Batch(inputs, batch.target)], eps=0.2, rate=0.1)
