"""States behind batch norm: they are seen, and what is measured of them is what is applied and what training finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import growir
from growir.errors import RunError
from growir.graph import Graph, Input, Node
from growir.growth.measure.section import run_section
from growir.growth.policies.dag.norms import norm_behind
from growir.growth.policies.dag.scored import Scored
from growir.growth.policies.dag.states import StateView, states_of, widenable
from growir.growth.session import Session
from growir.network import Network
from growir.ops import Add, BatchNorm, Conv2d, Flatten, GroupNorm, Linear, MaxPool2d, Op, Relu, Tanh
from growir.passes import AddNode, Widen
from growir.rewrite import Pass, Preserves
from growir.runs.records import Growth
from growir.verify import verify
from tests.growth.problems import (
    Arrays,
    apply,
    blobs,
    loss_on,
    proposed,
    scored,
    select_of,
    small_config,
    small_problem,
    small_session,
    spirals,
    trained,
    values_of,
)

Entry = tuple[str, Op, Sequence[str]]
KERNELS: dict[str, Any] = {"kernels": [3], "neurons": 3}


def graph_of(shape: tuple[int, ...], *nodes: Entry) -> Graph:
    made = tuple(Node(name=name, op=op, inputs=tuple(inputs)) for name, op, inputs in nodes)
    return verify(Graph(inputs=(Input(name="x", shape=("N", *shape)),), nodes=made, outputs=(made[-1].name,)))


def conv(channels: int, *, bias: bool = False) -> Conv2d:
    return Conv2d(out_channels=channels, kernel_size=3, padding=1, bias=bias)


def maps(norm: BatchNorm | None = None, *, bias: bool = False) -> Graph:
    """Two maps and a vector, each with a norm; the first map feeds the second and, past it, the vector."""
    norm = norm or BatchNorm()
    return graph_of(
        (1, 8, 8),
        ("a", conv(3, bias=bias), "x"),
        ("na", norm, ["a"]),
        ("ra", Relu(), ["na"]),
        ("p", MaxPool2d(kernel_size=2), ["ra"]),
        ("b", conv(3), "p"),
        ("nb", norm, ["b"]),
        ("rb", Tanh(), ["nb"]),
        ("q", MaxPool2d(kernel_size=2), ["rb"]),
        ("f", Flatten(), "q"),
        ("c", Linear(out_features=5), "f"),
        ("pf", MaxPool2d(kernel_size=4), ["ra"]),
        ("ff", Flatten(), ["pf"]),
        ("d", Linear(out_features=5, bias=False), ["ff"]),
        ("s", Add(), "cd"),
        ("nc", norm, "s"),
        ("rc", Relu(), ["nc"]),
        ("o", Linear(out_features=4), ["rc"]),
    )


def dense() -> Graph:
    return graph_of(
        (3,),
        ("a", Linear(out_features=4), "x"),
        ("na", BatchNorm(), ["a"]),
        ("ra", Relu(), ["na"]),
        ("o", Linear(out_features=2), ["ra"]),
    )


def session_of(graph: Graph, arrays: Arrays, **policy: Any) -> Session:
    """A session on a network with a little training, and statistics taken anew, as before a growth."""
    config = small_config(policy=policy, budget={"parameters": 50_000}, train={"epochs_between": 3})
    session = Session(Network.init(graph), small_problem(arrays, config), config)
    trained(session, 0)
    session.recalibrate(0)
    return session


def image_session(graph: Graph | None = None, **policy: Any) -> Session:
    return session_of(graph or maps(), blobs(channels="first"), **{**KERNELS, **policy})


def states(graph: Graph) -> dict[str, StateView]:
    return {state.node: state for state in states_of(graph)}


# -- what is seen -----------------------------------------------------------------------------------------------------


def test_a_state_is_the_sum_in_front_of_its_norm() -> None:
    graph = maps()
    found = states(graph)
    assert [(s.node, s.norm and s.norm.node, s.post) for s in found.values()] == [
        ("a", "na", "ra"),
        ("b", "nb", "rb"),
        ("s", "nc", "rc"),
        ("o", None, None),
    ]
    assert [widenable(graph, states_of(graph), state) for state in found.values()] == [True, True, True, False]


@pytest.mark.parametrize(
    "nodes",
    [
        [("n", BatchNorm(track_running_stats=False), "a"), ("r", Relu(), "n")],
        [("n", GroupNorm(num_groups=2), "a"), ("r", Relu(), "n")],
        [("n", BatchNorm(), "a"), ("m", BatchNorm(), "n"), ("r", Relu(), "m")],
        [("n", BatchNorm(), "a"), ("t", Relu(), "n"), ("r", Add(), "ta")],
        [("n", BatchNorm(), "a"), ("t", Relu(), "n"), ("r", Add(), "tn")],
    ],
    ids=["it keeps no statistics", "groups", "two norms", "the sum is read too", "the norm is read too"],
)
def test_states_behind_other_norms_are_not_wider(nodes: Sequence[Entry]) -> None:
    graph = graph_of((3,), ("a", Linear(out_features=4), "x"), *nodes, ("o", Linear(out_features=2), "r"))
    assert not widenable(graph, states_of(graph), states(graph)["a"])


def test_norms_that_share_a_tensor_are_left_alone() -> None:
    graph = dense()
    norm = Node(name="nb", op=BatchNorm(), inputs=("b",), tied={"weight": "na.weight"})
    b = Node(name="b", op=Linear(out_features=4), inputs=("ra",))
    nodes = [*graph.nodes[:3], b, norm, Node(name="rb", op=Relu(), inputs=("nb",)), graph.nodes[3].with_inputs(["rb"])]
    shared = verify(graph.replace(nodes=nodes))
    assert norm_behind(graph, "a") is not None
    assert norm_behind(shared, "a") is norm_behind(shared, "b") is None


# -- what is measured -------------------------------------------------------------------------------------------------

NORMS = {"scaled": BatchNorm(), "not scaled": BatchNorm(affine=False), "without momentum": BatchNorm(momentum=None)}


def feeds_norm(session: Session, step: Pass) -> bool:
    return states(session.graph)[step.target].norm is not None if hasattr(step, "target") else False


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("directions", ["random", "fitted"])
def test_the_preview_of_every_candidate_equals_what_is_applied(norm: str, directions: str) -> None:
    session = image_session(maps(NORMS[norm], bias=norm == "scaled"), directions=directions)
    before, kinds = loss_on(session, select_of(session)), set[tuple[str, bool]]()
    wider = set[str]()
    for choice in scored(session, key=5):
        if choice.amplitude == 0:
            continue
        kinds.add((choice.step.name, feeds_norm(session, choice.step)))
        wider |= {choice.step.node} if isinstance(choice.step, Widen) else set[str]()
        restore = session.keep()
        apply(session, choice)
        after = loss_on(session, select_of(session))
        restore()
        assert after == pytest.approx(choice.loss, abs=2e-6 + 1e-5 * after), choice.step
        assert before - after == pytest.approx(choice.gain, abs=2e-6 + 1e-5 * after)
    assert kinds >= {("add_edge", True), ("add_edge", False), ("add_node", True), ("add_node", False)}
    assert wider == {"ra", "rb", "rc"}


def taken_back(session: Session, moves: Sequence[Scored]) -> float:
    """What statistics that are taken anew change of the loss, as a mean part of what the moves gain."""
    found: list[float] = []
    for choice in moves:
        restore = session.keep()
        apply(session, choice)
        before = loss_on(session, select_of(session))
        session.recalibrate(0)
        found.append(abs(loss_on(session, select_of(session)) - before) / choice.gain)
        restore()
    return float(np.mean(found))


def test_the_gain_stays_when_statistics_are_taken_anew() -> None:
    session = image_session()
    norms = {key for state in states_of(session.graph) if state.norm for key in state.norm.keys}
    moved = [s for s in scored(session, key=5) if s.gain > 0.01 and not norms.isdisjoint(s.updates)]
    assert len(moved) > 5
    assert taken_back(session, moved) < 0.1
    # Norms that did not follow would take more of it back.
    left = [replace(s, updates={k: v for k, v in s.updates.items() if k not in norms}) for s in moved]
    assert taken_back(session, left) > 0.15


@pytest.mark.parametrize("make", [image_session, lambda: session_of(dense(), spirals())], ids=["maps", "vectors"])
def test_new_units_have_the_statistics_that_batches_give(make: Any) -> None:
    session, means = make(), list[torch.Tensor]()
    for choice in scored(session, key=5):
        if not isinstance(choice.step, Widen):
            continue
        restore, state = session.keep(), next(s for s in states_of(session.graph) if s.post == choice.step.node)
        apply(session, choice)
        assert state.norm is not None
        fresh = slice(state.width, None)
        tensors = {key.rpartition(".")[2]: session.tensors[key] for key in state.norm.keys}
        given = {name: tensor.detach()[fresh].clone() for name, tensor in tensors.items()}
        session.recalibrate(0)
        found = {name: tensor[fresh] for name, tensor in tensors.items()}
        spread = given["running_var"].sqrt()
        assert ((given["running_mean"] - found["running_mean"]) / spread).abs().max() < 0.3
        assert (given["running_var"] / found["running_var"]).log().abs().max() < 0.5
        means.append(given["running_mean"])
        assert given["weight"].square().allclose(given["running_var"], rtol=1e-3)
        restore()
    assert torch.cat(means).abs().max() > 0.1  # a norm starts from 0 otherwise


def test_idle_units_keep_the_function() -> None:
    session = image_session()
    names = session.reading.prefix()
    values = values_of(session, select_of(session))
    (before,) = run_section(session.graph, session.tensors, names, [session.output])(*values)
    done: set[str] = set()
    for choice in scored(session, [m for m in proposed(session) if isinstance(m, Widen)]):
        assert choice.idle.preserves(session.graph) is Preserves.EXACT
        restore = session.keep()
        session.grow(choice.idle)
        (after,) = run_section(session.graph, session.tensors, names, [session.output])(*values)
        assert torch.allclose(before, after, atol=1e-5)
        done.add(str(choice.idle))
        restore()
    assert len(done) == 3


def test_a_frozen_norm_stays_as_it_is() -> None:
    def moved(frozen: tuple[str, ...]) -> set[str]:
        nodes = [n.model_copy(update={"frozen": frozen}) if n.name == "nc" else n for n in maps().nodes]
        session = image_session(maps().replace(nodes=nodes))
        found = [s for s in scored(session) if getattr(s.step, "target", None) == "s" and s.amplitude > 0]
        assert found
        return {key for s in found for key in s.updates if key.startswith("nc.")}

    assert moved(()) == {"nc.weight", "nc.bias", "nc.running_mean", "nc.running_var"}
    assert not moved(("weight",))


# -- new maps with a norm ---------------------------------------------------------------------------------------------


FLAT: dict[str, Any] = {"out_pool": "flatten", "out_stride": 1}


def normed_session(**policy: Any) -> Session:
    """A session on a map with a norm and one behind it, from nothing."""
    config = small_config(policy={**KERNELS, "norm": "batch", **policy}, budget={"parameters": 50_000})
    session = small_session(blobs(), config)
    way: dict[str, Any] = {"norm": "batch_norm", "kernel_size": 3, "out_pool": "max", "out_stride": 2, "width": 3}
    session.grow(AddNode(source="standard", target="out", **way))
    session.grow(AddNode(source="node_1.act", target="out", pool="max", stride=2, **way | FLAT))
    trained(session, 0)
    session.recalibrate(0)
    return session


def test_maps_that_are_added_have_norms_and_vectors_have_none() -> None:
    session = normed_session()
    nodes = [m for m in proposed(session) if isinstance(m, AddNode)]
    found = {(m.norm, m.kernel_size) for m in nodes}
    assert found == {("batch_norm", 3), (None, None)}
    for move in proposed(normed_session(norm="none")):
        assert getattr(move, "norm", None) is None


@pytest.mark.parametrize("directions", ["random", "fitted"])
def test_what_is_measured_of_a_map_with_a_norm_is_what_is_applied(directions: str) -> None:
    session, kinds = normed_session(directions=directions), Counter[str]()
    for choice in scored(session, key=5):
        if choice.amplitude == 0:
            continue
        restore = session.keep()
        apply(session, choice)
        after = loss_on(session, select_of(session))
        session.recalibrate(0)
        anew = loss_on(session, select_of(session))
        restore()
        assert after == pytest.approx(choice.loss, abs=2e-6 + 1e-5 * after), choice.step
        assert abs(anew - after) < 0.01 + 0.2 * abs(choice.gain), choice.step
        kinds[choice.step.name] += getattr(choice.step, "norm", None) is not None or isinstance(choice.step, Widen)
    assert kinds["add_node"] > 2
    assert kinds["widen"] == 2


def test_a_map_beside_one_with_a_norm_is_its_widening() -> None:
    session = small_session(blobs(), small_config(policy={**KERNELS, "norm": "batch"}, budget={"parameters": 50_000}))
    step = next(m for m in proposed(session) if isinstance(m, AddNode) and m.norm and m.out_stride == 2)
    session.grow(step)
    moves = [m.model_copy(update={"target": "out"}) if isinstance(m, AddNode) else m for m in proposed(session)]
    assert step not in moves
    assert step.model_copy(update={"out_pool": "flatten", "out_stride": 1}) in moves
    assert Widen(node="node_1.act", by=3) in moves


def test_a_norm_needs_two_samples() -> None:
    settings: dict[str, Any] = {"policy": {"name": "dag", "norm": "batch", **KERNELS}, "train": {"batch_size": 1}}
    with pytest.raises(RunError, match=r'norm is "batch", .* but \[train\] batch_size is 1'):
        growir.grow(None, blobs(), **settings)


# -- whole runs -------------------------------------------------------------------------------------------------------


def test_a_run_from_nothing_adds_maps_with_norms() -> None:
    arrays = blobs()
    settings: dict[str, Any] = {
        "policy": {"name": "dag", "strategy": "widen", "norm": "batch", **KERNELS},
        "train": {"epochs_between": 3, "epochs_final": 4, "batch_size": 32},
        "budget": {"parameters": 2000, "steps": 3},
        "schedule": {"trials": 0.0},
    }
    found = growir.grow(None, arrays, **settings)
    norms = [node.name for node in found.network.graph.nodes if node.op.kind() == "batch_norm"]
    assert norms == ["node_1.norm", "node_2.norm"]
    assert found.network.replayed().graph.hash == found.network.graph.hash
    again = growir.grow(None, arrays, **settings)
    assert all(np.array_equal(array, again.network.arrays[key]) for key, array in found.network.arrays.items())


def test_a_run_widens_the_states_of_a_network_with_norms(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(2),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(2, 2, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 4),
    )
    network = growir.from_torch(module, torch.zeros(2, 1, 8, 8))
    arrays = blobs(channels="first")
    settings: dict[str, Any] = {
        "policy": {"name": "dag", "strategy": "widen", "kernels": [3], "neurons": 2},
        "train": {"epochs_between": 3, "epochs_final": 4, "batch_size": 32},
        "budget": {"parameters": 2000, "steps": 3},
        "schedule": {"trials": 0.0},
    }
    found = growir.grow(network, arrays, **settings)
    growths = [event for event in found.events if isinstance(event, Growth)]
    assert [done["pass"] for event in growths for done in event.passes if done["pass"] != "update"] == ["widen"] * 3
    assert found.network.replayed().graph.hash == found.network.graph.hash
    x = arrays["x_test"].astype(np.float32)
    found.network.to_onnx(tmp_path / "net.onnx")
    scores = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {found.network.graph.inputs[0].name: x})[0]
    assert np.mean(scores.argmax(axis=1) == arrays["y_test"]) == found.summary["test_after_fit"]["accuracy"] > 0.4
