"""Residual blocks behind hidden maps: where they are proposed, and that what is measured of them is what is applied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import growir
from growir.growth.measure.section import run_section
from growir.growth.policies.dag.policy import _touches
from growir.growth.policies.dag.states import states_of
from growir.growth.session import Session
from growir.ops import Add
from growir.passes import AddNode, InsertBlock, Widen
from growir.rewrite import Preserves
from growir.runs.records import Growth
from growir.runs.words import describe_step
from growir.shapes import shapes_of
from tests.growth.problems import (
    apply,
    blobs,
    loss_on,
    proposed,
    scored,
    select_of,
    small_config,
    small_session,
    trained,
    values_of,
)

POLICY: dict[str, Any] = {"name": "dag", "strategy": "whole", "kernels": [3], "neurons": 3, "shortcuts": True}
FIRST: dict[str, Any] = {"kernel_size": 3, "out_pool": "max", "out_stride": 2}


def session_of(*, train: bool = True, **policy: Any) -> Session:
    """A session on two maps, one behind the other, and a vector, with a little training unless there is to be none."""
    session = small_session(blobs(), small_config(policy={**POLICY, **policy}, budget={"parameters": 50_000}))
    norm: dict[str, Any] = {"norm": "batch_norm"} if policy.get("norm") == "batch" else {}
    session.grow(AddNode(source="standard", target="out", width=4, **FIRST, **norm))
    way: dict[str, Any] = {"pool": "max", "stride": 2, "kernel_size": 3, "out_pool": "flatten"}
    session.grow(AddNode(source="node_1.act", target="out", width=2, **way, **norm))
    session.grow(AddNode(source="flat", target="out", width=3))
    if train:
        trained(session, 0)
        session.recalibrate(0)
    return session


def blocks(session: Session) -> list[InsertBlock]:
    return [move for move in proposed(session) if isinstance(move, InsertBlock)]


def test_each_hidden_map_may_get_a_block() -> None:
    session = session_of(train=False)
    assert [move.after for move in blocks(session)] == ["node_1.act", "node_2.act"]
    assert len(blocks(session_of(train=False, activation=["relu", "tanh"]))) == 4
    assert not blocks(session_of(train=False, shortcuts=False))
    assert not blocks(session_of(train=False, strategy="widen"))
    for move in blocks(session):
        done = move.rewrite(session.graph)
        total = done.created[-1]
        assert done.graph[total].op == Add()
        assert done.graph[total].inputs == (move.after, "block_1.last")
        assert shapes_of(done.graph)[total] == shapes_of(session.graph)[move.after]
        assert set(done.graph.consumers[move.after]) == {"block_1.first", total}


def test_blocks_fit_the_budget() -> None:
    config = small_config(policy=POLICY, budget={"parameters": 50_000})
    session = small_session(blobs(), config)
    session.grow(AddNode(source="standard", target="out", width=4, **FIRST))
    costs = blocks(session)[0].rewrite(session.graph).graph.costs().parameters
    for limit, fits in ((costs, True), (costs - 1, False)):
        session.config = small_config(policy=POLICY, budget={"parameters": limit})
        assert bool(blocks(session)) == fits


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("directions", ["random", "fitted"])
def test_what_is_measured_of_a_block_is_what_is_applied(norm: str, directions: str) -> None:
    session = session_of(norm=norm, directions=directions)
    _, searched = session.reading.halves
    before, searched_before = loss_on(session, select_of(session)), loss_on(session, searched)
    for choice in scored(session, blocks(session), 5):
        assert choice.amplitude > 0
        restore = session.keep()
        apply(session, choice)
        after = loss_on(session, select_of(session))
        assert after == pytest.approx(choice.loss, abs=2e-6 + 1e-5 * after)
        assert before - after == pytest.approx(choice.gain, abs=2e-6 + 1e-5 * after)
        assert loss_on(session, searched) < searched_before
        restore()
        # At a hundredth of the amplitude the loss falls at the predicted rate.
        small = {k: a * np.float32(0.01 if k == "block_1.last.weight" else 1) for k, a in choice.step.values.items()}
        session.grow(choice.step.model_copy(update={"values": small}))
        assert choice.predicted is not None
        fallen = searched_before - loss_on(session, searched)
        assert fallen == pytest.approx(0.01 * choice.predicted, rel=0.2, abs=3e-6)
        restore()


def test_an_idle_block_keeps_the_function() -> None:
    session = session_of()
    values = values_of(session, select_of(session))
    names = session.reading.prefix()
    (before,) = run_section(session.graph, session.tensors, names, [session.output])(*values)
    choice = scored(session, blocks(session))[0]
    assert choice.idle.preserves(session.graph) is Preserves.EXACT
    session.grow(choice.idle)
    (after,) = run_section(session.graph, session.tensors, names, [session.output])(*values)
    assert torch.allclose(before, after, atol=1e-6)
    assert session.tensors["block_1.first.weight"].abs().max() > 0  # so the block learns


def test_what_a_block_adds_to_can_be_added_to_again() -> None:
    session = session_of()
    apply(session, scored(session, blocks(session))[0])
    (total,) = session.graph.consumers["block_1.last"]
    moves = proposed(session)
    beside = [m for m in moves if isinstance(m, AddNode) and (m.source, m.target) == ("node_1.act", total)]
    assert not beside  # that is the widening of the block
    assert {m.node for m in moves if isinstance(m, Widen)} == {"block_1.act", "node_2.act", "node_3.act"}
    before = loss_on(session, select_of(session))
    near = [m for m in moves if getattr(m, "target", None) == total or isinstance(m, Widen)]
    for choice in scored(session, near, 5):
        if choice.amplitude > 0:
            restore = session.keep()
            apply(session, choice)
            assert before - loss_on(session, select_of(session)) == pytest.approx(choice.gain, abs=3e-6), choice.step
            restore()


def test_a_block_is_a_move_of_the_map_in_front_of_it() -> None:
    session = session_of(train=False)
    (first, second) = blocks(session)
    states = states_of(session.graph)
    assert (_touches(first, states), _touches(second, states)) == ({"node_1.conv2d"}, {"node_2.conv2d"})
    restricted = session_of(train=False, strategy="restricted")
    assert {move.after for move in blocks(restricted)} < {first.after, second.after}


def test_a_run_with_blocks() -> None:
    arrays = blobs()
    settings: dict[str, Any] = {
        "policy": {**POLICY, "norm": "batch", "significance": 1.0},
        "train": {"epochs_between": 3, "epochs_final": 4, "batch_size": 32},
        "budget": {"parameters": 4000, "steps": 3},
        "schedule": {"trials": 0.0},
    }
    found = growir.grow(None, arrays, **settings)
    growths = [event for event in found.events if isinstance(event, Growth)]
    tried = {each["pass"] for event in growths for one in event.measured.tried for each in one.passes}
    assert "insert_block" in tried
    assert found.network.replayed().graph.hash == found.network.graph.hash


def test_blocks_of_a_stage_in_words() -> None:
    nodes = ["layer1.1.conv", "layer1.1.bn.scale"]
    stack = {"pass": "stack", "block": nodes, "after": "layer1.1.bn.scale", "module": "layer1.2"}
    assert describe_step(stack) == "block layer1.2 behind layer1.1.bn.scale"
    assert describe_step({**stack, "copy_weights": True}) == "copy layer1.2 behind layer1.1.bn.scale"
    assert describe_step({"pass": "stack", "created": ["block_1.a"]}) == "block block_1.a behind ?"
    assert describe_step({"pass": "unstack", "block": nodes}) == "no block layer1.1"
    assert describe_step({"pass": "unstack", "block": "layer1.1"}) == "no block layer1.1"
    assert describe_step({"pass": "unstack", "block": ["a", "b"]}) == "no block b"
    assert describe_step({"pass": "unstack", "block": [1]}) == "no block 1"
    assert describe_step({"pass": "unstack"}) == "no block ?"


def test_a_block_in_words() -> None:
    assert describe_step({"pass": "insert_block", "after": "node_1.act"}) == "residual block behind node_1"
