"""Learnable growth: the law, closed gates, penalties, what is recorded beside what was learned, and budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import growir
from growir.data.nests import tensors_of
from growir.errors import GrowirError, RunError
from growir.growth.budget import Budget
from growir.growth.measure.learning import batch_statistics, training_batches
from growir.growth.measure.offered import Offered, learned
from growir.growth.measure.sites import sites
from growir.growth.policies.learnable import Learnable, LearnableSettings
from growir.growth.policy import Score
from growir.growth.session import Session
from growir.passes import Sequence, Update, Widen
from growir.rewrite import Pass
from growir.runs.records import Growth
from growir.testing import policy_law
from tests.growth.test_firefly import SITED
from tests.growth.test_policies import grown, images, session_of
from tests.growth.test_policy_law import GRAPHS

FEW: dict[str, Any] = {"learn_steps": 3, "judge_batches": 1, "offered": 0.5}
LONG: dict[str, Any] = {"learn_steps": 20, "gate_rate": 0.2, "judge_batches": 1, "offered": 1.0}
SPARSE = pytest.mark.parametrize("sparse", [False, True], ids=["learnable", "sparse"])
test_sparse = pytest.mark.slow(policy_law(Learnable, settings=FEW, graphs=SITED, max_examples=8))
test_channels_alone = policy_law(Learnable, settings={**FEW, "sparse": False}, graphs=GRAPHS, max_examples=4)


def decided(session: Session, **settings: Any) -> tuple[Learnable, list[Score], list[Score]]:
    """A policy, its scores and those it selects, on a net that is not trained."""
    policy = Learnable(LearnableSettings(**{**LONG, **settings}))
    room = Budget(session.config.budget, session.graph)
    scores = policy.score(session, policy.propose(session, room), 1)
    return policy, scores, policy.select(session, scores, room)


def offered_in(session: Session, *, sparse: bool = True) -> Offered:
    """One or two channels at each site."""
    found = sites(session.graph).sites
    return Offered(
        session.module, found, {site.name: 1 + k % 2 for k, site in enumerate(found)}, sparse=sparse, key=(3,)
    )


def only_growth(step: Pass) -> Pass:
    """A rewrite without what the old weights have learned."""
    assert isinstance(step, Sequence)
    assert isinstance(step.passes[0], Update)
    return step.passes[1]


@pytest.mark.parametrize(
    ("name", "sparse"),
    [*((name, True) for name in ("dense", "residual", "depthwise", "attention")), ("residual", False)],
)
def test_every_net_grows_within_its_budget_and_replays_to_the_same_bits(name: str, sparse: bool) -> None:
    policy = {"name": "learnable", **FEW, "sparse": sparse}
    result = grown(name, policy, per_growth={"units": 3})
    growths = [event for event in result.events if isinstance(event, Growth)]
    assert len(growths) == 2
    assert all(1 <= len(event.chosen) <= 3 for event in growths)
    history = result.network.graph.history
    assert history is not None
    session = session_of(name, "random")
    policy_, _, chosen = decided(session, **FEW, sparse=sparse)
    step = policy_.build(session, chosen)
    session.grow(step)
    again = session_of(name, "random").network().apply(step)
    now = session.network()
    assert again.graph.hash == now.graph.hash
    assert all(np.array_equal(again.arrays[key], array) for key, array in now.arrays.items())


@pytest.mark.parametrize(("name", "sparse"), [("dense", True), ("residual", True), ("residual", False)])
def test_what_comes_in_computes_what_was_learned(name: str, sparse: bool) -> None:
    session = session_of(name, "random")
    policy, _, chosen = decided(session, penalty=0.02, sparse=sparse)
    offered = policy.offered
    assert len(chosen) > 0
    assert [unit.index for unit in offered.units].count(0) == len(sites(session.graph).sites)
    batch = next(training_batches(session, 9))
    with batch_statistics(offered.over.module, session.graph):
        (wanted,) = offered(offered.open(), offered.kernels(), *tensors_of(batch.inputs))
    session.grow(policy.build(session, chosen))
    with batch_statistics(session.module, session.graph):
        torch.testing.assert_close(session.module(*batch.inputs), wanted, rtol=1e-4, atol=1e-4)


def test_closed_channels_do_not_come_in_and_closed_kernels_are_zero() -> None:
    session = session_of("residual", "random")
    offered = offered_in(session)
    with torch.no_grad():
        offered.grown.copy_(torch.tensor([1.0 if k % 2 else -1.0 for k in range(len(offered.units))]))
        for gates in offered.attentive.values():
            gates.flatten()[::3] = -1.0
    batch = next(training_batches(session, 9))
    with batch_statistics(session.module, session.graph):
        (wanted,) = offered(offered.open(), offered.kernels(), *tensors_of(batch.inputs))
        closed = [k for k in range(len(offered.units)) if k % 2 == 0]
        for address, weight in offered.weights.items():
            if address in offered.attentive:
                weight.data.copy_(torch.where(offered.attentive[address] > 0, weight, 1e3))
        (same,) = offered(offered.open(), offered.kernels(), *tensors_of(batch.inputs))
    torch.testing.assert_close(same, wanted, rtol=0, atol=0)
    opened = [k for k in range(len(offered.units)) if k not in closed]
    step = offered.chosen(opened)
    assert isinstance(step, Sequence)
    assert sum(each.by for each in step.passes if isinstance(each, Widen)) == len(opened)
    kernels = [array for array in step.values.values() if array.ndim == 4]
    zero = [(array == 0).all((2, 3)) for array in kernels]
    assert all(((array == 0).all((2, 3)) == (array == 0).any((2, 3))).all() for array in kernels)
    assert 0.2 < np.concatenate([each.ravel() for each in zero]).mean() < 0.5
    assert max(float(np.abs(array).max()) for array in kernels) < 1e2


@SPARSE
def test_a_strong_penalty_lets_nothing_in_and_none_lets_all_in(sparse: bool) -> None:
    shut, scores, chosen = decided(session_of("dense", "random"), penalty=100.0, sparse=sparse)
    assert not chosen
    assert len(scores) == len(shut.offered.units) > 0
    assert all(score.notes["gate"] < 0 and score.gain == 0 for score in scores)
    _, scores, chosen = decided(
        session_of("dense", "random"), penalty=0.0, learn_steps=40, gate_rate=0.1, sparse=sparse
    )
    assert len(chosen) == len(scores)
    few = decided(session_of("dense", "random"), penalty=0.1, sparse=sparse)[2]
    assert 0 < len(few) < len(scores)


def test_where_no_gate_is_open_growth_ends() -> None:
    result = grown("dense", {"name": "learnable", **LONG, "penalty": 100.0})
    assert result.summary["ended"] == "no gain"


def test_of_more_open_channels_than_there_is_room_for_the_best_come_in() -> None:
    session = session_of("residual", "random", per_growth={"parameters": 90})
    policy, scores, chosen = decided(session, penalty=0.0)
    room = Budget(session.config.budget, session.graph)
    assert chosen
    assert chosen[0] is max(scores, key=lambda score: score.gain)
    assert room.fits(policy.build(session, chosen))
    left = [score for score in scores if score not in chosen]
    assert left
    for score in left:
        assert not room.fits(policy.build(session, [*chosen, score]))


@SPARSE
def test_gains_are_what_open_gates_lessen_the_loss_by(sparse: bool) -> None:
    """Three points of the path say its integral well enough where gates have learned for ten steps."""
    session = session_of("dense", "random")
    policy, scores, _ = decided(session, learn_steps=10, judge_batches=4, sparse=sparse)
    offered = policy.offered
    with torch.no_grad():
        batch = next(training_batches(session, 9))
        assert len(batch) == len(session.data.train)

        def loss(channels: torch.Tensor) -> float:
            (outputs,) = offered(channels, offered.kernels(), *tensors_of(batch.inputs))
            return float(session.objective.total((outputs,), batch.target)) / len(batch)

        gain = loss(offered.all(0.0)) - loss(offered.open())
    assert sum(score.gain for score in scores) == pytest.approx(gain, rel=0.1)


def test_old_weights_learn_too_and_come_along_as_an_update() -> None:
    session = session_of("residual", "random")
    before = session.network()
    policy, _, chosen = decided(session, penalty=0.0)
    assert all(np.array_equal(before.arrays[key], array) for key, array in session.network().arrays.items())
    step = policy.build(session, chosen)
    assert isinstance(step, Sequence)
    assert isinstance(step.passes[0], Update)
    assert set(step.passes[0].values) == set(session.learned)
    with_it, without = session.fork(), session.fork()
    with_it.grow(step)
    without.grow(only_growth(step))
    for each in (with_it, without):
        each.recalibrate(3)
    losses = [each.measure(each.data.train).metrics["loss"] for each in (with_it, without, session)]
    assert losses[0] < losses[1]
    assert losses[0] < losses[2]


def test_a_frozen_weight_stays_and_what_joins_a_frozen_norm_is_not_learned() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4))
    model[2].weight.requires_grad_(False)
    start = growir.from_torch(model, torch.zeros(2, 1, 8, 8))
    result = growir.grow(
        start,
        images(),
        policy={"name": "learnable", **FEW},
        budget={"steps": 1},
        train={"epochs_between": 1, "epochs_final": 1, "batch_size": 16},
    )
    (key,) = [key for key in result.network.arrays if key.endswith("2.weight")]
    assert result.network.arrays[key].shape[0] > 5
    assert (result.network.arrays[key] == 1).all()


def test_attentive_masks_have_one_gate_for_each_kernel() -> None:
    session = session_of("residual", "random")
    offered = offered_in(session)
    assert offered.attentive
    for address, gates in offered.attentive.items():
        shape = offered.weights[address].shape
        assert gates.shape == (*shape[:2], *(1 for _ in shape[2:]))
    assert not offered_in(session, sparse=False).attentive
    assert (offered.kernel_shares() == 1).all()
    with torch.no_grad():
        for gates in offered.attentive.values():
            gates.fill_(-1.0)
    assert (offered.kernel_shares() == 0).all()


def test_one_seed_learns_one_set_of_gates_and_another_seed_another() -> None:
    def gates(key: int) -> torch.Tensor:
        session = session_of("dense", "random")
        offered = offered_in(session)
        batches = [next(training_batches(session, 9))] * 3
        learned(session, offered, batches, penalty=0.1, rate=0.1, key=(key,))
        return offered.grown.detach()

    assert torch.equal(gates(1), gates(1))
    assert not torch.equal(gates(1), gates(2))
    policy = {"name": "learnable", **FEW}
    assert grown("residual", policy).network.graph.hash == grown("residual", policy).network.graph.hash


def test_nothing_has_changed_where_growing_finds_no_finite_loss() -> None:
    session = session_of("residual", "random")
    policy = Learnable(LearnableSettings(**FEW))
    candidates = policy.propose(session, Budget(session.config.budget, session.graph))
    key = next(key for key, tensor in session.tensors.items() if tensor.ndim == 4)
    session.tensors[key].data[0] = 3e38
    before = {key: tensor.clone() for key, tensor in session.tensors.items()}
    with pytest.raises(RunError, match=r"growing: the loss is (nan|inf) where candidates are measured"):
        policy.score(session, candidates, 1)
    assert all(torch.equal(tensor, before[key]) for key, tensor in session.tensors.items())


def test_channels_need_a_site() -> None:
    session = session_of("dense", "random")
    with pytest.raises(GrowirError, match="offered channels need sites, but there is none"):
        Offered(session.module, [], {}, sparse=True, key=(0,))
