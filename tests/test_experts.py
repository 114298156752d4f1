"""Mixtures of experts: two ways to compute one, and how their experts and hidden units change."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from growir.channels import analyse
from growir.errors import PassRefused
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import Add, Experts, LayerNorm, Linear
from growir.passes import Prune, Stack, Widen
from growir.testing import assert_preserves, outputs, random_batch, random_network
from growir.verify import verify


def mixture(count: int = 4, width: int = 6, tokens: tuple[int, ...] = (5,), **given: Any) -> Graph:
    """A router and its experts behind a layer that makes the features, and a head."""
    op = Experts(num_experts=count, hidden_features=3, out_features=width, **given)
    nodes = (
        Node(name="fc", op=Linear(out_features=width), inputs=("x",)),
        Node(name="router", op=Linear(out_features=count), inputs=("fc",)),
        Node(name="experts", op=op, inputs=("fc", "router")),
        Node(name="head", op=Linear(out_features=2), inputs=("experts",)),
    )
    return verify(Graph(inputs=(Input(name="x", shape=("N", *tokens, 3)),), nodes=nodes, outputs=("head",)))


def computed(graph: Graph, *, traced: bool, weights: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The output on a batch and the gradients, through the chosen experts alone or, as traced, through all."""
    module = random_network(graph, weights).to_torch()
    batch = random_batch(graph, size=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: traced)
        found: torch.Tensor = module(*batch)
        found.square().sum().backward()  # type: ignore[no-untyped-call]
    return found.detach(), {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("weights", ["chosen", "all"])
@pytest.mark.parametrize("gated", [False, True])
def test_through_the_chosen_or_through_all(top_k: int, weights: str, gated: bool) -> None:
    graph = mixture(top_k=top_k, weights=weights, gated=gated, bias=True)
    one, other = computed(graph, traced=False), computed(graph, traced=True)
    torch.testing.assert_close(one[0], other[0], rtol=1e-12, atol=1e-12)
    assert one[1].keys() == other[1].keys() == random_network(graph).arrays.keys()
    for name, grad in one[1].items():
        torch.testing.assert_close(grad, other[1][name], rtol=1e-10, atol=1e-12)


def test_an_expert_that_nobody_chooses_has_gradient_zero() -> None:
    network = random_network(mixture(top_k=1))
    bias = network.arrays["router.bias"].copy()
    bias[2] = -1e3
    module = Network(network.graph, {**network.arrays, "router.bias": bias}).to_torch()
    module(*random_batch(network.graph)).sum().backward()
    grad = module.get_parameter("experts.up_proj").grad
    assert grad is not None
    assert not grad[2].any()
    assert grad.any()


@pytest.mark.parametrize("size", [0, 1])
def test_few_tokens(size: int) -> None:
    graph = mixture(top_k=2)
    assert random_network(graph).to_torch()(torch.zeros(size, 5, 3, dtype=torch.float64)).shape == (size, 5, 2)


def test_equal_scores_choose_as_torch_does() -> None:
    graph = mixture(top_k=2)
    arrays = dict(random_network(graph).arrays)
    arrays["router.weight"] = np.zeros_like(arrays["router.weight"])
    arrays["router.bias"] = np.zeros_like(arrays["router.bias"])
    module = Network(graph, arrays).to_torch()
    (batch,) = random_batch(graph)
    seen: list[torch.Tensor] = []

    def keep(_: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        seen.extend((*given, out))

    module.get_submodule("experts").register_forward_hook(keep)
    module(batch)
    x, scores, found = seen
    where = scores.flatten(0, 1).topk(2, -1).indices
    up, down = (torch.tensor(arrays[f"experts.{name}"]) for name in ("up_proj", "down_proj"))
    wanted = [
        sum((down[e] @ torch.nn.functional.silu(up[e] @ token) for e in row), torch.zeros(6)) / 2
        for token, row in zip(x.flatten(0, 1), where, strict=True)
    ]
    torch.testing.assert_close(found.flatten(0, 1), torch.stack(wanted))


def test_it_exports_for_any_batch() -> None:
    graph = mixture(top_k=2, gated=True)
    module = random_network(graph).to_torch().eval()
    (batch,) = random_batch(graph)
    program = torch.export.export(module, (batch,), dynamic_shapes=({0: torch.export.Dim("n")},))
    file = io.BytesIO()
    torch.export.save(program, file)
    torch.testing.assert_close(program.module()(batch[:2]), module(batch[:2]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("given", [{}, {"top_k": 2}, {"top_k": 1, "weights": "all"}, {"weights": "all", "gated": True}])
def test_copies_of_every_expert_keep_the_function(given: dict[str, Any]) -> None:
    graph = mixture(**given)
    copied = assert_preserves(Widen(node="router", by=4), graph)
    op = copied.graph["experts"].op
    assert isinstance(op, Experts)
    assert (op.num_experts, op.top_k) == (8, 2 * given.get("top_k", 0))
    assert copied.arrays["experts.down_proj"].shape == (8, 6, 3)


def test_fresh_experts_and_copies_of_some_are_refused() -> None:
    with pytest.raises(PassRefused, match="it grows by multiples of 4"):
        Widen(node="router", by=1).rewrite(mixture())
    with pytest.raises(PassRefused, match="every channel is copied equally often"):
        Widen(node="router", by=4, copies=(0, 0, 1, 2)).rewrite(mixture())


@pytest.mark.parametrize(("channels", "left"), [((1,), 3), ((0, 1, 3), 1)])
def test_pruned_experts_are_gone(channels: tuple[int, ...], left: int) -> None:
    network = random_network(mixture(top_k=2))
    fewer = network.apply(Prune(node="router", channels=channels))
    op = fewer.graph["experts"].op
    assert isinstance(op, Experts)
    assert (op.num_experts, op.top_k) == (left, min(left, 2))
    kept = [k for k in range(4) if k not in channels]
    assert np.array_equal(fewer.arrays["experts.up_proj"], network.arrays["experts.up_proj"][kept])
    assert np.array_equal(fewer.arrays["router.weight"], network.arrays["router.weight"][kept])


def test_hidden_units_and_features_grow_as_those_of_any_layer() -> None:
    graph = mixture(gated=True, top_k=2, bias=True)
    spaces = {space.name: space for space in analyse(graph).spaces}
    assert {name for name, space in spaces.items() if not space.pins} == {
        "fc",
        "router",
        "experts",
        "experts.hidden_features",
    }
    hidden = assert_preserves(Widen(node="experts.hidden_features", by=2), graph)
    gate_up = hidden.arrays["experts.gate_up_proj"]
    assert gate_up.shape == (4, 10, 6)
    old = random_network(graph).arrays["experts.gate_up_proj"]
    assert np.array_equal(gate_up[:, [0, 1, 2, 5, 6, 7]], old)
    assert not hidden.arrays["experts.down_proj"][:, :, 3:].any()
    copied = assert_preserves(Widen(node="experts.hidden_features", by=1, copies=(2,)), graph)
    assert np.array_equal(copied.arrays["experts.gate_up_proj"][:, [3, 7]], old[:, [2, 5]])


def test_outputs_of_experts_are_finite_for_large_scores() -> None:
    graph = mixture(top_k=2)
    arrays = dict(random_network(graph).arrays)
    arrays["router.bias"] = np.array([1e4, -1e4, 9e3, 0.0])
    (found,) = outputs(Network(graph, arrays), random_batch(graph))
    assert np.isfinite(found).all()


def test_a_block_of_experts_is_stacked_exactly() -> None:
    """At its end are the experts' own last layers, which start at zero."""
    nodes = (
        Node(name="embed", op=Linear(out_features=6), inputs=("x",)),
        Node(name="layers.0.norm", op=LayerNorm(), inputs=("embed",)),
        Node(name="layers.0.router", op=Linear(out_features=3), inputs=("layers.0.norm",)),
        Node(
            name="layers.0.experts",
            op=Experts(num_experts=3, hidden_features=4, out_features=6, top_k=2, bias=True),
            inputs=("layers.0.norm", "layers.0.router"),
        ),
        Node(name="layers.0.sum", op=Add(), inputs=("embed", "layers.0.experts")),
    )
    graph = verify(Graph(inputs=(Input(name="x", shape=("N", 2, 3)),), nodes=nodes, outputs=("layers.0.sum",)))
    step = Stack(block="layers.0", copy_weights=True)
    assert step.identity(graph) == {f"layers.1.experts.{name}": 0.0 for name in ("down_proj", "down_proj_bias")}
    grown = assert_preserves(step, graph)
    up, old = (grown.arrays[f"layers.{k}.experts.up_proj"] for k in (1, 0))
    assert np.array_equal(up, old)
