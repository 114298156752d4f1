"""Growth of networks that somebody brings: residual sums, outputs in the targets' own unit, unknown histories."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from growir.graph import Graph, Input, Node
from growir.growth.config import RunConfig
from growir.growth.data import check_data
from growir.growth.policies.dag.bottleneck import Bottleneck
from growir.growth.policies.dag.measuring import Measured
from growir.growth.policies.dag.policy import Dag
from growir.growth.policies.dag.states import StateView, states_of
from growir.growth.running import start_run
from growir.growth.session import Session
from growir.network import Network
from growir.ops import Add, BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, Op, Relu, Tanh
from growir.passes import AddNode
from growir.verify import verify
from tests.growth.problems import Arrays, blobs, curve, small_config, spirals


def graph_of(shape: tuple[int, ...], *nodes: tuple[str, Op, tuple[str, ...]]) -> Graph:
    made = tuple(Node(name=name, op=op, inputs=inputs) for name, op, inputs in nodes)
    entry = Input(name="x", shape=("N", *shape))
    return verify(Graph(name="given", inputs=(entry,), nodes=made, outputs=(made[-1].name,)))


def trained(graph: Graph, arrays: Arrays, **policy: Any) -> tuple[Session, Dag]:
    config = small_config(policy=policy, budget={"parameters": 50_000}, train={"epochs_between": 3})
    session = Session(Network.init(graph), check_data(arrays, config.data, "test"), config)
    session.train_between(0)
    return session, Dag(session.config.policy, session.config.budget)


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
    session, policy = trained(RESIDUALS[name], spirals(600))
    scored = [s for s in policy.score(session, policy.propose(session), 1) if s.amplitude > 0]
    assert scored
    for choice in scored:
        restore = session.keep()
        session.grow(choice.step, choice.updates)
        assert session.loss_on(session.parts.gr) == pytest.approx(choice.loss, abs=1e-5), choice.step
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
    session = Session(Network(graph, tensors), check_data(arrays, config.data, "test"), config)
    policy = Dag(session.config.policy, session.config.budget)
    scored = policy.score(session, policy.propose(session), 1)
    assert [choice.outcome for choice in scored] == ["improving"] * len(scored)
    # What one unit of the targets gains, another does: losses are in units of the targets' deviation.
    assert min(choice.gain or 0.0 for choice in scored) > 0.01


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
    session, policy = trained(graph, blobs(channels="first"), strategy="restricted")
    real = Measured.bottleneck

    def lacking(self: Measured, state: StateView) -> Bottleneck:
        # A norm stands behind the convolution, so that no move feeds or widens it.
        return dataclasses.replace(real(self, state), psi=1e9) if state.node == "c" else real(self, state)

    monkeypatch.setattr(Measured, "bottleneck", lacking)
    proposed = policy.propose(session)
    assert proposed
    assert set(proposed) <= set(policy.moves.moves(session.graph))


def test_a_tournament_ends_on_a_network_whose_history_is_unknown_here(tmp_path: Path) -> None:
    first = Network.init(graph_of((3,), ("l", line(2), ("x",)))).apply(AddNode(source="x", target="l", width=3))
    first.save(tmp_path / "net")
    document = tmp_path / "net" / "graph.json"
    document.write_text(document.read_text().replace('"add_node"', '"their_pass"'))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = Network.load(tmp_path / "net")
        config = small_config(policy={"strategy": "tournament"}, budget={"parameters": 300, "steps": 2})
        found = start_run(config, _data(config, spirals()), start, out=tmp_path / "run")
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
    found = start_run(config, _data(config, blobs()), None, out=tmp_path / "run")
    assert found.events[0].event == "inputs"
    assert any(isinstance(node.op, Conv2d) for node in found.network.graph.nodes)
    assert found.network.replayed().graph.hash == found.network.graph.hash


def test_a_network_without_states_that_could_grow_says_so() -> None:
    graph = graph_of((1, 8, 8), ("c", Conv2d(out_channels=4, kernel_size=8), ("x",)), ("f", Flatten(), ("c",)))
    config = small_config(budget={"parameters": 300})
    found = start_run(config, _data(config, blobs(channels="first")), Network.init(graph))
    assert found.summary["ended"] == "no move"


def _data(config: RunConfig, arrays: Arrays) -> Any:
    return check_data(arrays, config.data, "test")
