"""A feed-forward part that becomes experts: the function, the optimizer, and what is no such part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import growir.live as live
from growir.document import dumps
from growir.errors import ModelError, PassRefused
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import Add, Experts, Gelu, LayerNorm, Linear, Mul, Op, Relu, Silu, Slice
from growir.passes import Upcycle, pass_from_data
from growir.rewrite import Preserves
from growir.testing import assert_preserves, outputs, random_batch, random_network
from growir.verify import load, verify


def plain(activation: Op | None = None, bias: bool = True) -> Graph:
    """x + down(gelu(up(norm x))), with the part in a module of its own."""
    nodes = (
        Node(name="embed", op=Linear(out_features=6), inputs=("x",)),
        Node(name="norm", op=LayerNorm(), inputs=("embed",)),
        Node(name="mlp.up", op=Linear(out_features=5, bias=bias), inputs=("norm",)),
        Node(name="mlp.act", op=activation or Gelu(), inputs=("mlp.up",)),
        Node(name="mlp.down", op=Linear(out_features=6, bias=bias), inputs=("mlp.act",)),
        Node(name="sum", op=Add(), inputs=("embed", "mlp.down")),
        Node(name="head", op=Linear(out_features=3), inputs=("sum",)),
    )
    return verify(Graph(inputs=(Input(name="x", shape=("N", 4, 3)),), nodes=nodes, outputs=("head",)))


def gated(packed: bool = False, flipped: bool = False) -> Graph:
    """down(silu(gate x) * up x), of two layers or of the halves of one."""
    first = (
        (
            Node(name="both", op=Linear(out_features=10, bias=False), inputs=("embed",)),
            Node(name="gate", op=Slice(axis=-1, length=5), inputs=("both",)),
            Node(name="up", op=Slice(axis=-1, start=5, length=5), inputs=("both",)),
        )
        if packed
        else (
            Node(name="gate", op=Linear(out_features=5, bias=False), inputs=("embed",)),
            Node(name="up", op=Linear(out_features=5, bias=False), inputs=("embed",)),
        )
    )
    nodes = (
        Node(name="embed", op=Linear(out_features=4), inputs=("x",)),
        *first,
        Node(name="act", op=Silu(), inputs=("gate",)),
        Node(name="mul", op=Mul(), inputs=("up", "act") if flipped else ("act", "up")),
        Node(name="down", op=Linear(out_features=3, bias=False), inputs=("mul",)),
    )
    return verify(Graph(inputs=(Input(name="x", shape=("N", 3)),), nodes=nodes, outputs=("down",)))


GATED = ("gate", "up", "act", "mul", "down")
CASES: list[tuple[Graph, dict[str, Any]]] = [
    (plain(), {"part": "mlp", "num_experts": 4, "top_k": 2}),
    (plain(Relu(), bias=False), {"part": "mlp", "num_experts": 3}),
    (plain(), {"part": "mlp", "num_experts": 3, "weights": "all", "bias": True}),
    (gated(), {"part": GATED, "num_experts": 3, "top_k": 2}),
    (gated(flipped=True), {"part": GATED, "num_experts": 2}),
    (gated(packed=True), {"part": ("both", *GATED), "num_experts": 4, "top_k": 3}),
]


@pytest.mark.parametrize(("graph", "fields"), CASES)
def test_keeps_the_function_whatever_the_router(graph: Graph, fields: dict[str, Any]) -> None:
    step = Upcycle.model_validate(fields)
    assert step.rewrite(graph).preserves is Preserves.EXACT
    assert_preserves(step, graph)
    network = random_network(graph)
    grown = network.apply(step)
    router = next(key for key in grown.arrays if key.endswith("router.weight"))
    other = Network(
        grown.graph, {**grown.arrays, router: 30 * np.random.default_rng(1).normal(size=grown.arrays[router].shape)}
    )
    batch = random_batch(graph)
    np.testing.assert_allclose(outputs(other, batch)[0], outputs(network, batch)[0], rtol=1e-12, atol=1e-12)


def test_weights_that_do_not_sum_to_one_change_it() -> None:
    step = Upcycle(part="mlp", num_experts=4, top_k=2, weights="all")
    done = step.rewrite(plain())
    assert done.preserves is Preserves.NOTHING
    op = done.graph["mlp.experts"].op
    assert isinstance(op, Experts)
    assert not op.sums_to_one


def test_it_is_recorded_and_replayed() -> None:
    grown = random_network(plain()).apply(Upcycle(part="mlp", num_experts=4, top_k=2))
    assert load(dumps(grown.graph)).hash == grown.graph.hash
    assert grown.graph.history is not None
    (step,) = grown.graph.history.steps
    assert step.created == ("mlp.router", "mlp.experts")
    again = pass_from_data({"pass": step.kind, **step.fields, "version": step.version})
    assert again.rewrite(plain()).graph.hash == grown.graph.hash
    assert not any(key.startswith(("mlp.up", "mlp.down")) for key in grown.arrays)


@pytest.mark.parametrize("top_k", [0, 2])
def test_the_copies_part_from_the_first_steps_on(top_k: int) -> None:
    """Equal experts get different gradients, since each token weighs them in its own way."""
    torch.manual_seed(0)
    module = random_network(plain()).to_torch()
    module, _ = live.grow(module, Upcycle(part="mlp", num_experts=4, top_k=top_k))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    x, y = torch.randn(32, 4, 3, dtype=torch.float64), torch.randn(32, 4, 3, dtype=torch.float64)
    router = module.get_parameter("mlp.router.weight")
    before = router.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.mse_loss(module(x), y))
        optimizer.step()
    experts = module.get_parameter("mlp.experts.up_proj").detach()
    apart = torch.cdist(experts.flatten(1), experts.flatten(1)) + torch.eye(4, dtype=torch.float64)
    assert apart.min() > 1e-3
    assert (router - before).abs().max() > 1e-4


def test_optimizer_state_and_groups_go_along() -> None:
    module = random_network(gated()).to_torch()
    matrices = [p for name, p in module.named_parameters() if name != "embed.bias"]
    optimizer = torch.optim.AdamW([{"params": [module.get_parameter("embed.bias")]}, {"params": matrices}])
    module(torch.randn(8, 3, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    old = {name: optimizer.state[p]["exp_avg"].clone() for name, p in module.named_parameters()}
    module, report = live.grow(module, Upcycle(part=GATED, num_experts=4, top_k=2), optimizer)
    packed = module.get_parameter("mixture_1.experts.gate_up_proj")
    state = optimizer.state[packed]
    wanted = torch.cat([old["gate.weight"], old["up.weight"]]) / 4
    torch.testing.assert_close(state["exp_avg"], wanted.expand(4, -1, -1))
    assert state["exp_avg_sq"].shape == packed.shape
    assert float(state["step"]) == 1
    assert any(packed is p for p in optimizer.param_groups[1]["params"])
    assert len(optimizer.param_groups[1]["params"]) == 4
    optimizer.zero_grad()
    module(torch.randn(8, 3, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    assert report.preserves is Preserves.EXACT


def test_masks_are_stacked_and_need_each_source() -> None:
    module = random_network(gated()).to_torch()
    ones = {key: torch.ones_like(module.get_parameter(key)) for key in ("gate.weight", "up.weight")}
    ones["gate.weight"][0] = 0
    _, report = live.grow(module, Upcycle(part=GATED, num_experts=2), masks=ones)
    assert report.masks is not None
    assert report.masks["mixture_1.experts.gate_up_proj"].shape == (2, 10, 4)
    assert not report.masks["mixture_1.experts.gate_up_proj"][:, 0].any()
    with pytest.raises(ModelError, match="which has no mask"):
        live.grow(
            random_network(gated()).to_torch(),
            Upcycle(part=GATED, num_experts=2),
            masks={"up.weight": ones["up.weight"]},
        )


@pytest.mark.parametrize(
    ("graph", "fields", "text"),
    [
        (plain(), {"part": "mlp", "num_experts": 1}, "num_experts"),
        (plain(), {"part": "mlp", "num_experts": 2, "top_k": 3}, "top_k 3 is more than num_experts 2"),
        (plain(), {"part": "mlp", "num_experts": 2, "top_k": 1}, "the router would never learn"),
        (plain(), {"part": "ffn", "num_experts": 2}, "there is no module 'ffn'"),
        (plain(), {"part": ("norm", "mlp.up", "mlp.act", "mlp.down"), "num_experts": 2}, "norm does not belong to it"),
        (plain(), {"part": ("mlp.act", "mlp.down"), "num_experts": 2}, "mlp.up belongs to it, and is not named"),
        (plain(), {"part": ("mlp.up",), "num_experts": 2}, "mlp.up reads norm, which is layer_norm"),
        (plain(LayerNorm()), {"part": "mlp", "num_experts": 2}, "mlp.down reads mlp.act, which is layer_norm"),
        (plain(), {"part": ("sum",), "num_experts": 2}, "ends in sum, which is no linear layer"),
        (plain(), {"part": "mlp", "num_experts": 2, "module": "mlp.up"}, "mlp.up' is a node"),
        (gated(), {"part": GATED[:-1], "num_experts": 2}, "which is no linear layer"),
    ],
)
def test_what_is_refused(graph: Graph, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(PassRefused) as caught:
        Upcycle(**fields).rewrite(graph)
    assert text in str(caught.value).replace("\n", " ")


def test_layers_frozen_apart_are_refused_and_alike_are_kept() -> None:
    graph = gated()
    held = {"gate": ("weight",), "up": ("weight",)}
    one = graph.replace(
        nodes=[n.model_copy(update={"frozen": ("weight",)}) if n.name == "gate" else n for n in graph.nodes]
    )
    with pytest.raises(PassRefused, match="must be frozen alike"):
        Upcycle(part=GATED, num_experts=2).rewrite(one)
    both = graph.replace(nodes=[n.model_copy(update={"frozen": held.get(n.name, ())}) for n in graph.nodes])
    grown = Upcycle(part=GATED, num_experts=2).rewrite(both).graph
    assert grown["mixture_1.experts"].frozen == ("gate_up_proj",)


def test_candidates_are_the_feed_forward_parts() -> None:
    assert [step.part for step in Upcycle.candidates(plain())] == [("mlp.up", "mlp.act", "mlp.down")] * 2
    assert len(list(Upcycle.candidates(gated()))) == 2
