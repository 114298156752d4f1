"""A batch norm goes into the layer before it: every kind of layer, what is refused, what the optimizer forgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from growir.backends.torch_edits import TORCH
from growir.edits import NUMPY, Derive
from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.moments import carry_optimizer
from growir.ops import BatchNorm, Conv1d, Conv2d, Conv3d, ConvTranspose2d, Linear, Op, Param, Parameter, Relu, Uniform
from growir.passes import FoldBatchNorm
from growir.passes.fold_batch_norm import folded_weight, weight_views
from growir.rewrite import Preserves
from growir.testing import assert_preserves, random_network
from tests.samples import graph_of, residual_convnet

IMAGE, VECTOR = (4, 5, 5), (4,)


def normed(shape: tuple[int, ...], layer: Op, norm: BatchNorm | None = None) -> Graph:
    return graph_of(
        shape,
        Node(name="layer", op=layer, inputs=("x",)),
        Node(name="norm", op=norm or BatchNorm(), inputs=("layer",)),
        Node(name="head", op=Relu(), inputs=("norm",)),
    )


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        (VECTOR, Linear(out_features=3)),
        (IMAGE, Conv2d(out_channels=3, kernel_size=3, padding=1)),
        (IMAGE, Conv2d(out_channels=6, kernel_size=2, groups=2)),
        (IMAGE, Conv2d(kernel_size=3, depthwise=True, multiplier=2)),
        (IMAGE, ConvTranspose2d(out_channels=3, kernel_size=2)),
        (IMAGE, ConvTranspose2d(out_channels=6, kernel_size=2, groups=2)),
        ((4, 5), Conv1d(out_channels=3, kernel_size=2)),
        ((4, 3, 3, 2), Conv3d(out_channels=3, kernel_size=2)),
    ],
)
def test_every_layer_takes_a_norm_in(shape: tuple[int, ...], layer: Op, bias: bool, affine: bool) -> None:
    layer = layer.model_copy(update={"bias": bias})
    graph = normed(shape, layer, BatchNorm(affine=affine, eps=0.1))
    step = FoldBatchNorm(node="norm")
    done = step.rewrite(graph)
    assert done.preserves is Preserves.EVAL
    assert done.created == ()
    assert [node.name for node in done.graph.nodes] == ["layer", "head"]
    assert assert_preserves(step, graph).arrays.keys() == {"layer.weight", "layer.bias"}


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_transposed_convolutions_hold_their_outputs_group_by_group(groups: int) -> None:
    """Their weight is (in, out / groups, ...); checked against torch, scaling what comes out."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 2, 3, 3))
    gamma, var = rng.uniform(0.5, 2, size=(2, 2 * groups))
    param = Param(weight.shape, ("in", "out", "kernel", "kernel"), Uniform(1.0))
    found = folded_weight(1e-5, *weight_views(param, 2 * groups), NUMPY, weight, var, gamma)
    x = torch.from_numpy(rng.normal(size=(2, 6, 4, 4)))
    wanted = torch.conv_transpose2d(x, torch.from_numpy(weight), groups=groups)
    wanted = wanted * torch.from_numpy(gamma / np.sqrt(var + 1e-5)).reshape(1, -1, 1, 1)
    assert torch.allclose(torch.conv_transpose2d(x, torch.from_numpy(found), groups=groups), wanted, atol=1e-12)


def test_the_norm_of_an_output_gives_its_name_away() -> None:
    graph = graph_of(
        VECTOR,
        Node(name="layer", op=Linear(out_features=3), inputs=("x",)),
        Node(name="head", op=BatchNorm(), inputs=("layer",)),
    )
    assert FoldBatchNorm(node="head").rewrite(graph).graph.outputs == ("layer",)
    assert_preserves(FoldBatchNorm(node="head"), graph)


@pytest.mark.parametrize(
    ("layer", "norm", "kept"),
    [(("weight",), ("bias", "weight"), ("bias", "weight")), (("weight",), ("bias",), ("weight",)), ((), (), ())],
)
def test_what_was_frozen_stays_frozen(layer: Any, norm: Any, kept: Any) -> None:
    graph = normed(VECTOR, Linear(out_features=3, bias=False))
    held = {"layer": layer, "norm": norm, "head": ()}
    nodes = [node.model_copy(update={"frozen": held[node.name]}) for node in graph.nodes]
    assert FoldBatchNorm(node="norm").rewrite(graph.replace(nodes=nodes)).graph["layer"].frozen == kept


def test_optimizer_state_starts_anew() -> None:
    done = FoldBatchNorm(node="norm").rewrite(normed(VECTOR, Linear(out_features=3)))
    state = {key: {"exp_avg": np.ones(3)} for key in ("layer.weight", "layer.bias", "norm.weight")}
    assert carry_optimizer(done.edits, state, NUMPY) == {}


def test_gradients_flow_through_the_derivation() -> None:
    network = random_network(normed(VECTOR, Linear(out_features=3)))
    done = FoldBatchNorm(node="norm").rewrite(network.graph)
    gamma = torch.tensor(network.arrays["norm.weight"], requires_grad=True)
    edit = next(edit for edit in done.edits if isinstance(edit, Derive) and edit.key == "layer.weight")
    sources = [gamma if key == "norm.weight" else torch.tensor(network.arrays[key]) for key in edit.sources]
    torch.autograd.backward(edit.formula(TORCH, *sources).sum())
    assert gamma.grad is not None
    assert (gamma.grad != 0).all()


def test_every_norm_behind_a_layer_is_a_candidate() -> None:
    assert [step.node for step in FoldBatchNorm.candidates(residual_convnet())] == ["block.norm"]


def tied(*, weight: bool) -> Graph:
    graph = normed(VECTOR, Linear(out_features=4))
    other = (
        Node(name="other", op=Linear(out_features=4), inputs=("norm",), tied={"weight": "layer.weight"})
        if weight
        else Node(name="other", op=BatchNorm(), inputs=("norm",), tied={"bias": "norm.bias"})
    )
    return graph.replace(nodes=[*graph.nodes, other], outputs=("head", "other"))


def read_twice() -> Graph:
    graph = normed(VECTOR, Linear(out_features=4))
    return graph.replace(nodes=[*graph.nodes, Node(name="again", op=Relu(), inputs=("layer",))])


def computed_weight() -> Graph:
    return graph_of(
        VECTOR,
        Node(name="matrix", op=Parameter(shape=(3, 4)), inputs=()),
        Node(name="layer", op=Linear(), inputs=("x", "matrix")),
        Node(name="head", op=BatchNorm(), inputs=("layer",)),
    )


@pytest.mark.parametrize(
    ("graph", "node", "says"),
    [
        (normed(VECTOR, Linear(out_features=3)), "nrom", "'nrom' does not exist. Did you mean 'norm'?"),
        (normed(VECTOR, Linear(out_features=3)), "layer", "layer is of kind linear; only a batch_norm can be folded"),
        (
            normed(VECTOR, Linear(out_features=3), BatchNorm(track_running_stats=False)),
            "norm",
            "normalises by the batch in eval mode too",
        ),
        (normed(VECTOR, Relu()), "norm", "cannot be folded into layer, which is relu; directly before it must stand"),
        (graph_of(VECTOR, Node(name="head", op=BatchNorm(), inputs=("x",))), "head", "into x, which is a graph input"),
        (computed_weight(), "head", "into layer, which is linear; .* with a weight of its own"),
        (
            normed((2, 4), Linear(out_features=3)),
            "norm",
            r"it normalises axis 1 of \(N, 2, 3\), and the layer makes the last one",
        ),
        (read_twice(), "norm", "whose own value is read by again too"),
        (read_twice().replace(outputs=("head", "layer")), "norm", "whose own value is read by again too"),
        (tied(weight=True), "norm", "other uses tensors of layer too"),
        (tied(weight=False), "norm", "other uses tensors of norm too"),
    ],
)
def test_refusals(graph: Graph, node: str, says: str) -> None:
    with pytest.raises(PassRefused, match=says):
        FoldBatchNorm(node=node).rewrite(graph)


def test_an_output_of_the_graph_reads_too() -> None:
    graph = normed(VECTOR, Linear(out_features=3)).replace(outputs=("head", "layer"))
    with pytest.raises(PassRefused, match="whose own value is read by the graph's outputs too"):
        FoldBatchNorm(node="norm").rewrite(graph)
