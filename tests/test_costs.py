"""Costs: parameters, multiply-accumulates, activation memory."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from growir.costs import Costs, NodeCosts, costs_of
from growir.graph import Graph, Input, Node
from growir.ops import OPS, Op, Relu, Shape
from growir.ops import Parameter as ParameterOp
from growir.passes import Prune, Widen
from growir.shapes import own_tables, shapes_of
from growir.testing import graphs
from growir.verify import load, verify


def costs(nodes: list[dict[str, Any]], outputs: list[str], **inputs: list[object]) -> Costs:
    """Costs of a graph with inputs of these shapes; an input called `i...` holds integers."""
    entries = [
        {"name": n, "shape": ["N", *s], "dtype": "int64" if n[0] == "i" else "float32"} for n, s in inputs.items()
    ]
    return costs_of(load({"schema": "growir/1", "inputs": entries, "nodes": nodes, "outputs": outputs}))


def linear(name: str, source: str, width: int, **more: object) -> dict[str, Any]:
    return {"name": name, "op": "linear", "inputs": [source], "out_features": width, **more}


def relu(name: str, source: str) -> dict[str, Any]:
    return {"name": name, "op": "relu", "inputs": [source]}


def test_dense() -> None:
    found = costs([linear("fc", "x", 32), relu("act", "fc"), linear("head", "act", 10, bias=False)], ["head"], x=[784])
    assert found.parameters == 784 * 32 + 32 + 32 * 10
    assert found.macs == 784 * 32 + 32 * 10
    assert found.nodes["fc"] == NodeCosts(parameters=784 * 32 + 32, buffers=0, macs=784 * 32, activation_bytes=128)
    assert found.training_bytes == 4 * (784 + 32 + 32 + 10)
    assert found.peak_bytes == 4 * (784 + 32)


def test_convolution() -> None:
    conv = {
        "name": "conv",
        "op": "conv2d",
        "inputs": ["x"],
        "out_channels": 16,
        "kernel_size": 3,
        "padding": 1,
        "groups": 2,
    }
    norm = {"name": "norm", "op": "batch_norm", "inputs": ["conv"]}
    found = costs([conv, norm], ["norm"], x=[4, 8, 8])
    assert found.parameters == 16 * 2 * 9 + 16 + 2 * 16
    assert found.buffers == 2 * 16 + 1
    assert found.macs == 16 * 64 * 2 * 9


def test_tied_weights_count_once_but_are_multiplied_twice() -> None:
    nodes = [linear("a", "x", 8), linear("b", "a", 8, tied={"weight": "a.weight", "bias": "a.bias"})]
    found = costs(nodes, ["b"], x=[8])
    assert found.parameters == 72
    assert found.nodes["b"].parameters == 0
    assert found.macs == 128


def test_a_value_lives_until_its_last_reader() -> None:
    nodes = [relu("a", "x"), relu("b", "a"), relu("c", "b"), {"name": "sum", "op": "add", "inputs": ["a", "c"]}]
    assert costs(nodes, ["sum"], x=[5]).peak_bytes == 4 * 5 * 3  # a, b and c; then a, c and sum
    assert costs(nodes, ["sum", "b"], x=[5]).peak_bytes == 4 * 5 * 4  # an output stays


def test_a_value_nobody_reads_is_freed_at_once() -> None:
    dead = [relu(f"dead{k}", "x") for k in range(5)]
    assert costs([*dead, relu("y", "x")], ["y"], x=[5]).peak_bytes == 4 * 5 * 2


def test_integers_take_eight_bytes() -> None:
    nodes = [{"name": "y", "op": "bias", "inputs": ["ids"], "features": 3}]
    assert costs(nodes, ["y"], ids=[7]).training_bytes == 8 * 7 + 4 * 3


def test_weights_as_values_are_no_activations() -> None:
    weight = {"name": "w", "op": "parameter", "shape": [3, 8]}
    found = costs([weight, {"name": "y", "op": "linear", "inputs": ["x", "w"]}], ["y"], x=[8])
    assert found.parameters == 24 + 3
    assert found.macs == 24
    assert found.training_bytes == 4 * (8 + 3)


def test_are_computed_once() -> None:
    graph = load(
        {
            "schema": "growir/1",
            "inputs": [{"name": "x", "shape": ["N", 2]}],
            "nodes": [linear("y", "x", 2)],
            "outputs": ["y"],
        }
    )
    assert costs_of(graph) is costs_of(graph)
    assert graph.costs() == costs_of(graph)


def example_graph(op: Op, shapes: tuple[Shape, ...]) -> Graph:
    """One operator, fed by graph inputs, and by parameters where it takes a value without a batch."""
    inputs = [Input(name="x", shape=("N", 1))]
    nodes, sources = [], []
    for k, shape in enumerate(shapes):
        name = f"v{k}"
        sources.append(name)
        if shape.batched:
            inputs.append(Input(name=name, shape=shape.dims, dtype=shape.dtype))
        else:
            nodes.append(Node(name=name, op=ParameterOp(shape=shape.sizes)))
    nodes.append(Node(name="y", op=op, inputs=tuple(sources)))
    return Graph(inputs=tuple(inputs), nodes=tuple(nodes), outputs=("y",))


EXAMPLES = [(kind, k) for kind in OPS for k in range(len(kind.examples()))]


@pytest.mark.parametrize(("kind", "k"), EXAMPLES, ids=[f"{kind.kind()}-{k}" for kind, k in EXAMPLES])
def test_every_operator_has_costs(kind: type[Op], k: int) -> None:
    example = kind.examples()[k]
    graph = example_graph(example.op, example.inputs)
    found = costs_of(graph)
    assert found.macs >= 0
    assert found.peak_bytes <= found.training_bytes
    assert found.parameters == sum(n.parameters for n in found.nodes.values())
    if kind is not ParameterOp:
        verify(graph)


@given(st.data())
def test_what_a_rewrite_leaves_alone_costs_what_it_did_and_the_rest_is_counted_anew(data: st.DataObject) -> None:
    """A rewritten graph takes over what was worked out for nodes that are the same; it comes to what a new one says."""
    graph = data.draw(graphs())
    costs_of(graph)
    offered = [step for kind in (Widen, Prune) for step in kind.candidates(graph)]
    assume(offered)
    grown = data.draw(st.sampled_from(offered)).rewrite(graph).graph
    alone = Graph(**{name: getattr(grown, name) for name in ("name", "inputs", "nodes", "outputs")})
    assert alone.origin is None
    assert shapes_of(grown) == shapes_of(alone)
    assert own_tables(grown) == own_tables(alone)
    assert costs_of(grown) == costs_of(alone)


def test_a_graph_knows_what_it_was_made_of_while_that_is_there() -> None:
    graph = Graph(
        inputs=(Input(name="x", shape=("N", 3)),), nodes=(Node(name="a", op=Relu(), inputs=("x",)),), outputs=("a",)
    )
    again = graph.replace(outputs=("a",))
    assert again.origin is graph
    assert copy.copy(again).origin is None
    assert pickle.loads(pickle.dumps(again)).origin is None
    del graph
    assert again.origin is None
