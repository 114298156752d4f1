"""Growth of networks that somebody brings: residual sums, outputs in the targets' own unit, unknown histories."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import growir
from growir.graph import Graph, Input, Node
from growir.growth.config import parse_run
from growir.growth.policies.dag.bottleneck import Bottleneck
from growir.growth.policies.dag.measuring import Measured
from growir.growth.policies.dag.states import StateView, states_of
from growir.growth.running import read_config, start_run
from growir.growth.session import Session
from growir.growth.target import read_target
from growir.network import Network
from growir.ops import Add, BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, Op, Relu, Tanh
from growir.passes import AddNode
from growir.verify import verify
from tests.growth.problems import (
    Arrays,
    apply,
    blobs,
    budget_of,
    curve,
    loss_on,
    policy_of,
    proposed,
    scored,
    select_of,
    small_config,
    small_problem,
    spirals,
    trained,
)


def graph_of(shape: tuple[int, ...], *nodes: tuple[str, Op, tuple[str, ...]]) -> Graph:
    made = tuple(Node(name=name, op=op, inputs=inputs) for name, op, inputs in nodes)
    entry = Input(name="x", shape=("N", *shape))
    return verify(Graph(name="given", inputs=(entry,), nodes=made, outputs=(made[-1].name,)))


def session_of(graph: Graph, arrays: Arrays, **policy: Any) -> Session:
    config = small_config(policy=policy, budget={"parameters": 50_000}, train={"epochs_between": 3})
    session = Session(Network.init(graph), small_problem(arrays, config), config)
    trained(session, 0)
    return session


def line(width: int) -> Linear:
    return Linear(out_features=width)


RESIDUALS = {
    "read before it is summed": graph_of(
        (3,),
        ("a", line(6), ("x",)),
        ("r", Relu(), ("a",)),
        ("b", line(6), ("r",)),
        ("s", Add(), ("a", "b")),
        ("t", Relu(), ("s",)),
        ("o", line(2), ("t",)),
    ),
    "summed after its activation": graph_of(
        (3,),
        ("a", line(6), ("x",)),
        ("r", Relu(), ("a",)),
        ("b", line(6), ("r",)),
        ("s", Add(), ("r", "b")),
        ("t", Relu(), ("s",)),
        ("o", line(2), ("t",)),
    ),
    "an output that is read": graph_of(
        (3,),
        ("l", line(8), ("x",)),
        ("r", Relu(), ("l",)),
        ("a", line(2), ("r",)),
        ("n", Tanh(), ("a",)),
        ("s", Add(), ("a", "n")),
    ),
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_what_is_measured_is_what_is_applied_in_residual_networks(name: str) -> None:
    session = session_of(RESIDUALS[name], spirals(600))
    found = [s for s in scored(session, key=1) if s.amplitude > 0]
    assert found
    for choice in found:
        restore = session.keep()
        apply(session, choice)
        assert loss_on(session, select_of(session)) == pytest.approx(choice.loss, abs=1e-5), choice.step
        restore()


def test_a_layer_that_something_else_reads_is_no_edge() -> None:
    states = {state.node: state for state in states_of(RESIDUALS["read before it is summed"])}
    assert [edge.name for edge in states["s"].edges] == ["b"]
    assert states["s"].bias == "b.bias"
    assert [edge.name for edge in states["a"].edges] == ["a"]


@pytest.mark.parametrize("unit", [1e-2, 1.0, 1e2])
def test_the_unit_of_the_targets_decides_nothing(unit: float) -> None:
    graph = graph_of((4,), ("l", line(8), ("x",)), ("r", Relu(), ("l",)), ("o", line(2), ("r",)))
    arrays = curve(600)
    for key in ("y_train", "y_test"):
        arrays[key] = (arrays[key] - 50) / 8 * unit
    start = Network.init(graph)
    tensors = dict(start.arrays)
    for key in ("o.weight", "o.bias"):
        tensors[key] = tensors[key] * np.float32(unit)
    config = small_config(budget={"parameters": 600})
    session = Session(Network(graph, tensors), small_problem(arrays, config), config)
    found = scored(session, key=1)
    assert [choice.outcome for choice in found] == ["improving"] * len(found)
    # What one unit of the targets gains, another does: losses are in units of the targets' deviation.
    assert min(choice.gain for choice in found) > 0.01


def test_restricted_growth_stays_where_there_are_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(
        (1, 8, 8),
        ("c", Conv2d(out_channels=4, kernel_size=3, padding=1), ("x",)),
        ("b", BatchNorm(), ("c",)),
        ("r", Relu(), ("b",)),
        ("p", MaxPool2d(kernel_size=4), ("r",)),
        ("f", Flatten(), ("p",)),
        ("l", line(8), ("f",)),
        ("q", Relu(), ("l",)),
        ("o", line(4), ("q",)),
    )
    session = session_of(graph, blobs(channels="first"), strategy="restricted")
    real = Measured.bottleneck

    def lacking(self: Measured, state: StateView) -> Bottleneck:
        # A norm stands behind the convolution, so that no move feeds or widens it.
        return dataclasses.replace(real(self, state), psi=1e9) if state.node == "c" else real(self, state)

    monkeypatch.setattr(Measured, "bottleneck", lacking)
    found = proposed(session)
    assert found
    assert set(found) <= set(policy_of(session).moves.moves(budget_of(session)))


def test_a_tournament_ends_on_a_network_whose_history_is_unknown_here(tmp_path: Path) -> None:
    first = Network.init(graph_of((3,), ("l", line(2), ("x",)))).apply(AddNode(source="x", target="l", width=3))
    first.save(tmp_path / "net")
    document = tmp_path / "net" / "graph.json"
    document.write_text(document.read_text().replace('"add_node"', '"their_pass"'))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = Network.load(tmp_path / "net")
        config = small_config(policy={"strategy": "tournament"}, budget={"parameters": 300, "steps": 2})
        found = start_run(config, small_problem(spirals(), config), start, out=tmp_path / "run")
    documents = sorted((tmp_path / "run" / "growth").iterdir())
    assert documents[0].name == "0000.json"
    last = json.loads(documents[-1].read_text())
    assert len(last["history"]["steps"]) == 1 + found.summary["steps"]


def test_maps_and_a_choice_of_inputs_go_together(tmp_path: Path) -> None:
    config = small_config(
        data={"variance": [0.9, 0.99]},
        policy={"strategy": "widen", "kernels": [3]},
        budget={"parameters": 2000, "steps": 2},
        train={"epochs_final": 10},
    )
    found = start_run(config, small_problem(blobs(), config), None, out=tmp_path / "run")
    assert found.events[0].event == "inputs"
    assert any(isinstance(node.op, Conv2d) for node in found.network.graph.nodes)
    assert found.network.replayed().graph.hash == found.network.graph.hash


def test_a_network_without_states_that_could_grow_says_so() -> None:
    graph = graph_of((1, 8, 8), ("c", Conv2d(out_channels=4, kernel_size=8), ("x",)), ("f", Flatten(), ("c",)))
    config = small_config(budget={"parameters": 300})
    found = start_run(config, small_problem(blobs(channels="first"), config), Network.init(graph))
    assert found.summary["ended"] == "no move"


def test_a_network_that_is_given_grows_at_random_to_four_times_its_size(tmp_path: Path) -> None:
    assert parse_run({}, "test").policy.name == "dag"
    assert parse_run({"network": "net"}, "test").policy.name == "random"
    assert parse_run({"network": "net", "policy": {"spaces": 0.25}}, "test").policy.name == "random"
    assert read_target("digits").config({}).policy.name == "dag"
    assert read_target("digits").config({"network": "net"}).policy.name == "random"
    network = Network.init(graph_of((3,), ("a", line(3), ("x",)), ("r", Relu(), ("a",)), ("out", line(2), ("r",))), 0)
    arrays = spirals(60)
    short = {"epochs_between": 1, "epochs_final": 1}
    result = growir.grow(network, arrays, train=short, budget={"steps": 30}, out=tmp_path / "run")
    assert read_config(tmp_path / "run").policy.name == "random"
    before, after = network.graph.costs().parameters, result.network.graph.costs().parameters
    assert 3 * before < after <= 4 * before
    limited = growir.grow(network, arrays, policy={"spaces": 1.0}, train=short, budget={"macs": 50, "steps": 30})
    assert 45 <= limited.network.graph.costs().macs <= 50
