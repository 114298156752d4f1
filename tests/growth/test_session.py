"""Sections, live tensors and optimizer state that survives growth."""

from __future__ import annotations

import json

import torch
from torch import fx

from growir.data.memory import ArraySource
from growir.growth.measure.section import run_section
from growir.growth.optimizer_state import OptimizerState
from growir.growth.session import Session
from growir.params import initial_arrays
from growir.passes import AddEdge, AddNode, Widen
from growir.runs.meter import Meter
from tests.growth.problems import (
    fitted,
    loss_on,
    parts_of,
    select_of,
    small_config,
    small_session,
    spirals,
    trained,
    values_of,
)


def grown() -> Session:
    session = small_session(spirals())
    session.grow(AddNode(source="standard", target="out", width=3))
    trained(session, 1)
    return session


def slots_of(session: Session) -> dict[str, dict[str, torch.Tensor]]:
    """What the optimizer keeps of each parameter."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in session.optimizer_state().tensors.items():
        entry, _, key = name.partition(":")
        found.setdefault(key, {})[entry] = tensor
    return found


def test_optimizer_state_survives_every_kind_of_growth() -> None:
    session = grown()
    old = slots_of(session)
    assert float(old["node_1.linear.weight"]["step"]) > 0
    session.grow(AddEdge(source="standard", target="out"))
    session.grow(Widen(node="node_1.act", by=2))
    new = slots_of(session)
    assert "edge_2.weight" not in new  # a tensor that is new starts as any new parameter
    for entry in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(new["out.bias"][entry], old["out.bias"][entry])
        assert torch.equal(new["node_1.linear.weight"][entry][:3], old["node_1.linear.weight"][entry])
        assert torch.equal(new["edge_1.weight"][entry][:, :3], old["edge_1.weight"][entry])
    fresh = new["node_1.linear.weight"]
    assert torch.equal(fresh["exp_avg"][3:], torch.zeros(2, 3))
    small = 1e-4 * old["node_1.linear.weight"]["exp_avg_sq"].double().mean(0, keepdim=True)
    assert torch.allclose(fresh["exp_avg_sq"][3:].double(), small.expand(2, 3), rtol=1e-5, atol=0)
    assert float(fresh["step"]) == float(old["node_1.linear.weight"]["step"])
    trained(session, 2)  # and the optimizer takes it


def test_optimizer_state_survives_a_checkpoint() -> None:
    session = grown()
    state = session.optimizer_state()
    other = grown()
    tensors = {key: torch.from_numpy(tensor.numpy().copy()) for key, tensor in state.tensors.items()}
    other.restore_optimizer(OptimizerState(tensors, json.loads(json.dumps(state.rest))))
    trained(session, 2)
    trained(other, 2)
    for key, tensor in session.tensors.items():
        assert torch.equal(tensor, other.tensors[key])


def test_the_final_fit_starts_from_the_share_of_the_matrices_that_is_kept() -> None:
    tiny = {"learning_rate_final": 1e-9, "weight_decay": 0.0, "epochs_final": 1}
    session = small_session(spirals(), small_config(train={**tiny, "keep_final": 0.25}))
    session.grow(AddNode(source="standard", target="out", width=3))
    trained(session, 1)
    before = {key: tensor.detach().clone() for key, tensor in session.tensors.items()}
    fitted(session)
    for key in ("node_1.linear.weight", "edge_1.weight"):
        assert torch.allclose(session.tensors[key], 0.25 * before[key], atol=1e-6)
    for key in ("out.bias", "node_1.linear.bias"):
        assert torch.allclose(session.tensors[key], before[key], atol=1e-6)


def test_the_final_fit_starts_from_new_weights_where_they_are_asked_for() -> None:
    tiny = {"learning_rate_final": 1e-9, "weight_decay": 0.0, "epochs_final": 1}
    session = small_session(spirals(), small_config(train={**tiny, "weights_final": "new"}))
    session.grow(AddNode(source="standard", target="out", width=3))
    trained(session, 1)
    standard = {key: tensor.clone() for key, tensor in session.tensors.items() if key.startswith("standard")}
    fitted(session)
    drawn = initial_arrays(session.graph, session.seed)
    assert standard
    for key, tensor in session.tensors.items():  # all that learns is new, and the data's mean and deviation are not
        wanted = standard[key] if key in standard else torch.from_numpy(drawn[key]).float()
        assert torch.allclose(tensor, wanted, atol=1e-6)


def test_growth_keeps_the_function_while_training_changes_it() -> None:
    session = grown()
    before = loss_on(session, select_of(session))
    session.grow(Widen(node="node_1.act", by=2))
    session.grow(AddNode(source="node_1.act", target="out", width=2, activation="selu"))
    kept = loss_on(session, select_of(session))
    assert abs(kept - before) < 1e-6
    trained(session, 2)
    assert abs(loss_on(session, select_of(session)) - kept) > 1e-6


def test_a_section_gives_inner_values_and_takes_shifts() -> None:
    session = grown()
    x = values_of(session, session.data.train)[0][:7]
    _, out = run_section(session.graph, session.tensors, ["standard"], ["node_1.act", "sum_1"])(x)
    delta = torch.randn(7, 3)
    (shifted,) = run_section(session.graph, session.tensors, ["standard"], ["sum_1"], ["node_1.act"])(x, delta)
    expected = out + delta @ session.tensors["edge_1.weight"].T
    assert torch.allclose(shifted, expected, atol=1e-5)
    (same,) = run_section(session.graph, session.tensors, ["sum_1"], ["sum_1"], ["sum_1"])(out, torch.ones_like(out))
    assert torch.allclose(same, out + 1, atol=1e-6)


def test_the_constant_prefix_is_computed_once_and_left_out_of_training() -> None:
    session = grown()
    assert session.reading.prefix() == ["standard"]
    sources = [session.reading.ready(session.data.train).source for _ in range(2)]
    first, again = (source.whole.inputs for source in sources if isinstance(source, ArraySource))
    assert isinstance(first, tuple)
    assert isinstance(again, tuple)
    assert first[0] is again[0]
    module = session.reading.ready(session.data.train).module
    assert isinstance(module, fx.GraphModule)
    assert "standard" not in module.code


def test_the_three_parts_are_equal_disjoint_and_random() -> None:
    parts = parts_of(100, seed=3)
    whole = torch.cat([parts.opt, parts.ls, parts.gr])
    assert sorted(whole.tolist()) == list(range(100))
    assert [len(parts.opt), len(parts.ls), len(parts.gr)] == [33, 33, 34]
    assert not torch.equal(whole, torch.arange(100))
    assert torch.equal(parts_of(100, seed=3).opt, parts.opt)
    assert not torch.equal(parts_of(100, seed=4).opt, parts.opt)
    assert torch.equal(parts.between, torch.cat([parts.opt, parts.ls]))


def test_operations_of_training_are_counted_by_steps_as_by_epochs() -> None:
    session = grown()
    samples, macs = len(session.data.train), session.graph.costs().macs
    for recipe, trained_on in (
        ({"epochs": 2, "batch_size": 8}, 2 * samples),
        ({"steps": 5, "batch_size": 8}, 5 * 8),
        ({"steps": 5, "batch_size": 4, "accumulate": 2}, 5 * 8),
    ):
        session.meter = Meter()
        with session.meter.phase("training"):
            session.train(recipe, 1)
        assert session.meter.costs["training"].flops == 6 * macs * trained_on > 0
