"""A layer as the identity or as a residual: where the function stays, what its weights are, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from growir.errors import PassRefused
from growir.graph import Graph, Input, Node
from growir.ops import (
    Add,
    Conv1d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Parameter,
    Relu,
    Relu6,
    Sigmoid,
    Tanh,
)
from growir.passes import InsertLayer
from growir.rewrite import Preserves
from growir.testing import assert_preserves, random_network
from growir.verify import verify
from tests.samples import graph_of, mlp, residual_convnet


def chain(shape: tuple[int, ...], *ops: Any) -> Graph:
    """The operators one after the other, n0, n1, ..., and a linear head."""
    nodes = [Node(name=f"n{k}", op=op, inputs=(f"n{k - 1}" if k else "x",)) for k, op in enumerate(ops)]
    return graph_of(shape, *nodes, Node(name="head", op=Linear(out_features=2), inputs=(nodes[-1].name,)))


@pytest.mark.parametrize(
    ("graph", "after", "activation"),
    [
        (chain((3,), Relu()), "n0", "relu"),
        (chain((3,), Relu6()), "n0", "relu"),
        (chain((3,), Relu6()), "n0", "relu6"),
        (chain((3,), Relu()), "n0", "elu"),
        (chain((3,), Sigmoid()), "n0", "relu6"),
        (chain((2, 3), Relu()), "n0", "relu"),
        (chain((2, 4, 4), Relu(), MaxPool2d(kernel_size=2)), "n1", "relu"),
        (chain((2, 4, 4), Relu(), Flatten(), Dropout()), "n2", "relu"),
        (chain((3,), Tanh()), "n0", "identity"),
        (chain((3,), Tanh()), "x", "identity"),
        (chain((2, 3, 2, 3), Relu()), "n0", "relu"),
    ],
)
def test_an_identity_where_the_activation_keeps_what_comes(graph: Graph, after: str, activation: str) -> None:
    step = InsertLayer(after=after, activation=activation)
    assert step.rewrite(graph).preserves is Preserves.EXACT
    assert_preserves(step, graph)


@pytest.mark.parametrize("residual", [False, True])
def test_values_of_three_axes_convolve_on_request(residual: bool) -> None:
    graph = chain((2, 5), Relu())
    step = InsertLayer(after="n0", layer="conv1d", kernel_size=5, residual=residual)
    assert step.rewrite(graph).graph[f"layer_1.{'first' if residual else 'layer'}"].op == Conv1d(
        out_channels=2, kernel_size=5, padding=2
    )
    assert_preserves(step, graph)


def test_readers_and_outputs_read_the_new_layer() -> None:
    graph = graph_of(
        (2, 4, 4),
        Node(name="act", op=Relu(), inputs=("x",)),
        Node(name="total", op=Add(), inputs=("act", "act", "x")),
        outputs=("total", "act"),
    )
    done = InsertLayer(after="act", kernel_size=(3, 5)).rewrite(graph)
    assert done.created == ("layer_1.layer", "layer_1.act")
    assert done.graph["total"].inputs == ("layer_1.act", "layer_1.act", "x")
    assert done.graph.outputs == ("total", "layer_1.act")
    op = Conv2d(out_channels=2, kernel_size=(3, 5), padding=(1, 2))
    assert done.graph["layer_1.layer"].op == op
    weight = random_network(graph).apply(InsertLayer(after="act", kernel_size=(3, 5))).arrays["layer_1.layer.weight"]
    assert np.array_equal(weight.sum(axis=(2, 3)), np.eye(2))
    assert np.array_equal(weight[:, :, 1, 2], np.eye(2))


@pytest.mark.parametrize("norm", [None, "batch_norm", "layer_norm"])
@pytest.mark.parametrize("graph", [mlp(), residual_convnet()])
def test_residuals_keep_the_function_with_any_activation(graph: Graph, norm: Any) -> None:
    for name in ("x", graph.nodes[0].name, graph.outputs[0]):
        step = InsertLayer(after=name, residual=True, activation="tanh", width=3, norm=norm)
        assert step.rewrite(graph).preserves is Preserves.EXACT
        assert_preserves(step, graph)


def test_a_residual_is_a_module_that_learns() -> None:
    done = InsertLayer(after="act1", residual=True, activation="gelu").rewrite(mlp())
    assert done.created == ("layer_1.first", "layer_1.act", "layer_1.last", "layer_1.sum")
    assert done.graph["layer_1.sum"].inputs == ("act1", "layer_1.last")
    assert done.graph["layer_1.first"].inputs == ("act1",)
    assert done.graph.history is not None
    assert done.graph.history.steps[0].fields["width"] == 4
    arrays = random_network(mlp()).apply(InsertLayer(after="act1", residual=True)).arrays
    assert not arrays["layer_1.last.weight"].any()
    assert not arrays["layer_1.last.bias"].any()
    assert arrays["layer_1.first.weight"].all()


@pytest.mark.parametrize(
    ("fields", "key", "preserves"),
    [
        ({"residual": True}, "layer_1.last.bias", Preserves.NOTHING),
        ({"residual": True}, "layer_1.first.bias", Preserves.EXACT),
        ({}, "layer_1.layer.bias", Preserves.NOTHING),
    ],
)
def test_given_numbers(fields: dict[str, Any], key: str, preserves: Preserves) -> None:
    step = InsertLayer(after="act1", values={key: np.ones(4)}, **fields)
    done = step.rewrite(mlp())
    assert done.preserves is preserves
    assert random_network(mlp()).apply(step).arrays[key].tolist() == [1, 1, 1, 1]


def unfit() -> Graph:
    return verify(
        Graph(
            inputs=(Input(name="x", shape=("N", 3)), Input(name="ids", shape=("N", 3), dtype="int64")),
            nodes=(
                Node(name="fixed", op=Parameter(shape=(3,)), inputs=()),
                Node(name="head", op=Add(), inputs=("x", "fixed")),
                Node(name="flat", op=Flatten(), inputs=("ids",)),
            ),
            outputs=("head", "flat"),
        )
    )


@pytest.mark.parametrize(
    ("graph", "fields", "says"),
    [
        (
            mlp(),
            {"after": "act1", "activation": "gelu"},
            "a layer after act1: it starts as the identity, so the function would change: gelu changes nearly every "
            "number, and the value may hold 0 to inf; activation='relu' keeps it, and residual=True does with any",
        ),
        (
            mlp(),
            {"after": "fc1"},
            "relu keeps only 0 to inf, and the value may hold -inf to inf; activation='identity'",
        ),
        (chain((3,), Relu()), {"after": "n0", "activation": "relu6"}, "relu6 keeps only 0 to 6"),
        (chain((3,), Tanh()), {"after": "n0", "activation": "tanh"}, "tanh changes nearly every number"),
        (chain((3,), Sigmoid()), {"after": "n0", "activation": "silu"}, "activation='relu' keeps it"),
        (mlp(), {"after": "act1", "norm": "batch_norm"}, "no norm is an identity, a batch norm not in train mode"),
        (mlp(), {"after": "act1", "width": 5}, "width goes with residual=True"),
        (mlp(), {"after": "act", "residual": True}, "after 'act' does not exist. Did you mean 'act1'?"),
        (mlp(), {"after": "act1", "activation": "rellu"}, "'rellu' is no activation.*Did you mean 'relu'?"),
        (mlp(), {"after": "act1", "kernel_size": 3}, "kernel_size goes with a convolution, but the layer is"),
        (mlp(), {"after": "act1", "layer": "conv2d"}, r"a conv2d takes 4 axes, \(N, C, ...\), but it is"),
        (residual_convnet(), {"after": "act", "kernel_size": 2}, "kernel_size must be odd, to keep .*: 3 instead of 2"),
        (unfit(), {"after": "fixed"}, r"needs floats with a batch axis and a width, but it is \(3,\) of float32"),
        (unfit(), {"after": "ids"}, r"needs floats with a batch axis and a width, but it is \(N, 3\) of int64"),
        (
            chain((2, 3), Relu()),
            {"after": "n0", "residual": True, "norm": "batch_norm"},
            "batch_norm is over axis 1, and the layer makes the last one; use layer_norm",
        ),
        (mlp(), {"after": "act1", "width": 0}, "width is 0"),
    ],
)
def test_refusals(graph: Graph, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(PassRefused, match=says):
        InsertLayer(**fields).rewrite(graph)
