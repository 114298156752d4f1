"""Growth from networks that users bring: whatever stands between the linear layers, it grows or says why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import growir
from growir.graph import Graph
from growir.runs.records import Growth
from tests.growth.problems import SMALL, curve, spirals

Nodes = list[dict[str, Any]]
SETTINGS: dict[str, Any] = {**SMALL, "budget": {"parameters": 300, "steps": 3}}


def node(name: str, op: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "inputs": list(inputs), **attributes}


def linear(name: str, source: str, width: int, **attributes: Any) -> dict[str, Any]:
    return node(name, "linear", source, out_features=width, **attributes)


def start(nodes: Nodes, output: str, features: int = 3) -> Graph:
    inputs = [{"name": "x", "shape": ["N", features]}]
    return growir.load_graph({"schema": "growir/1", "inputs": inputs, "nodes": nodes, "outputs": [output]})


BETWEEN: dict[str, Nodes] = {
    "nothing": [node("r", "relu", "a")],
    "norm before": [node("n", "batch_norm", "a"), node("r", "relu", "n")],
    "norm behind": [node("n", "relu", "a"), node("r", "batch_norm", "n")],
    "layer norm": [node("n", "layer_norm", "a"), node("r", "relu", "n")],
    "dropout": [node("n", "relu", "a"), node("r", "dropout", "n")],
    "one slope": [node("r", "prelu", "a")],
    "slopes": [node("r", "prelu", "a", num_parameters=8)],
    "identity": [node("n", "relu", "a"), node("r", "identity", "n")],
    "two activations": [node("n", "relu", "a"), node("r", "tanh", "n")],
    "residual": [node("n", "relu", "a"), node("r", "add", "a", "n")],
    "concatenation": [node("n", "relu", "a"), node("r", "concat", "a", "n")],
    "gate": [node("n", "sigmoid", "a"), node("r", "mul", "a", "n")],
    "selection": [node("n", "relu", "a"), node("r", "select", "n", indices=[5, 0, 2])],
    "two readers": [node("n", "relu", "a"), node("m", "tanh", "a"), node("r", "add", "n", "m")],
    "broadcast edge": [linear("b", "x", 1), node("s", "add", "a", "b"), node("r", "relu", "s")],
    "broadcast bias": [node("b", "bias", "x", features=1), node("s", "add", "a", "b"), node("r", "relu", "s")],
    "an edge twice": [node("s", "add", "a", "a"), node("r", "relu", "s")],
    "a dead layer": [node("r", "relu", "a"), linear("dead", "r", 5)],
    "a weight as a value": [
        node("p", "parameter", shape=[8, 8]),
        node("n", "linear", "a", "p"),
        node("r", "relu", "n"),
    ],
    "tied weight": [
        node("n", "relu", "a"),
        linear("b", "n", 8),
        node("m", "relu", "b"),
        linear("c", "m", 8, tied={"weight": "b.weight"}),
        node("r", "relu", "c"),
    ],
    "tied bias": [node("n", "relu", "a"), linear("b", "n", 8, tied={"bias": "a.bias"}), node("r", "relu", "b")],
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=list(BETWEEN))
def test_grows_from(between: Nodes) -> None:
    graph = start([linear("a", "x", 8), *between, linear("o", "r", 2)], "o")
    runs = [growir.grow(graph, spirals(), **SETTINGS) for _ in range(2)]
    assert runs[0].summary["steps"] >= 1
    assert runs[0].network.replayed().graph.hash == runs[0].network.graph.hash
    assert runs[0].network.graph.hash == runs[1].network.graph.hash
    for key, array in runs[0].network.arrays.items():
        assert np.array_equal(array, runs[1].network.arrays[key])
    # What it changed is where it says: the measured gain is that of applying.
    for event in runs[0].events:
        if isinstance(event, Growth):
            found = event.measured
            assert found.loss_before is not None
            assert found.loss_after is not None
            assert found.loss_before - found.loss_after == pytest.approx(event.measured_gain)


def test_a_regression_network_grows() -> None:
    graph = start([linear("a", "x", 8), node("r", "relu", "a"), linear("o", "r", 2)], "o", features=4)
    assert growir.grow(graph, curve(), **SETTINGS).summary["steps"] >= 1


def test_dropout_is_seeded_by_the_run_alone() -> None:
    graph = start([linear("a", "x", 8), node("d", "dropout", "a", p=0.3), linear("o", "d", 2)], "o")
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(growir.grow(graph, spirals(), **SETTINGS).network)
        assert torch.initial_seed() == seed  # and the caller's generator is left alone
    for key, array in found[0].arrays.items():
        assert np.array_equal(array, found[1].arrays[key])


def test_what_differs_in_training_is_no_constant() -> None:
    nodes = [node("n", "batch_norm", "x", affine=False), linear("o", "n", 2)]
    network = growir.grow(start(nodes, "o"), spirals(scale=5.0), **SETTINGS).network
    assert network.arrays["n.num_batches_tracked"] > 0
    assert (network.arrays["n.running_var"] > 5).all()


def test_batch_norm_refuses_single_samples() -> None:
    graph = start([linear("a", "x", 8), node("n", "batch_norm", "a"), linear("o", "n", 2)], "o")
    with pytest.raises(growir.RunError, match="batch norm needs two samples"):
        growir.grow(graph, spirals(), **{**SETTINGS, "train": {"batch_size": 1}})


def test_numbers_that_overflow_are_the_datas_fault() -> None:
    arrays = spirals()
    arrays["x_train"] = arrays["x_train"] * 1e25
    with pytest.raises(growir.DataError, match="squares overflow"):
        growir.grow(None, arrays, standardise="none", **SETTINGS)
