"""Low-rank adapters: beside a layer, wider, trained, and folded into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import growir.live as live
from growir.document import dumps
from growir.errors import PassRefused
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import Conv2d, Linear, Relu
from growir.params import frozen_keys
from growir.passes import Adapt, MergeAdapter, Widen, pass_from_data
from growir.rewrite import Preserves
from growir.testing import assert_preserves, outputs, random_batch, random_network
from growir.verify import load, verify


def dense() -> Graph:
    nodes = (
        Node(name="fc1", op=Linear(out_features=6), inputs=("x",)),
        Node(name="act", op=Relu(), inputs=("fc1",)),
        Node(name="fc2", op=Linear(out_features=3, bias=False), inputs=("act",)),
    )
    return verify(Graph(inputs=(Input(name="x", shape=("N", 2, 4)),), nodes=nodes, outputs=("fc2",)))


def maps(**given: Any) -> Graph:
    op = Conv2d.model_validate({"out_channels": 5, "kernel_size": 3, **given})
    nodes = (Node(name="conv", op=op, inputs=("x",)), Node(name="act", op=Relu(), inputs=("conv",)))
    return verify(Graph(inputs=(Input(name="x", shape=("N", 3, 7, 7)),), nodes=nodes, outputs=("act",)))


CASES = [
    (dense(), Adapt(node="fc1", rank=2)),
    (dense(), Adapt(node="fc2", rank=1, scale=0.5, freeze=False)),
    (maps(), Adapt(node="conv", rank=2, scale=2.0)),
    (maps(stride=2, padding=1, dilation=2), Adapt(node="conv", rank=3)),
    (maps(padding="same"), Adapt(node="conv", rank=1)),
]


def moved(network: Network) -> Network:
    """The network with random numbers where adapters start at zero."""
    rng = np.random.default_rng(3)
    arrays = {k: rng.normal(size=a.shape) if k.endswith("up.weight") else a for k, a in network.arrays.items()}
    return Network(network.graph, arrays)


@pytest.mark.parametrize(("graph", "step"), CASES)
def test_beside_and_folded(graph: Graph, step: Adapt) -> None:
    assert step.rewrite(graph).preserves is Preserves.EXACT
    network = random_network(graph)
    adapted = network.apply(step)
    batch = random_batch(graph)
    assert np.array_equal(outputs(adapted, batch)[0], outputs(network, batch)[0])
    assert_preserves(step, graph)
    (merge,) = MergeAdapter.candidates(adapted.graph)
    assert merge.node == f"{step.node}_adapter.sum"
    assert_preserves(merge, adapted.graph)
    trained = moved(adapted)
    back = trained.apply(merge)
    (found,), (wanted,) = outputs(back, batch), outputs(trained, batch)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
    assert np.abs(wanted - outputs(network, batch)[0]).max() > 1e-3
    held = frozen_keys(adapted.graph)
    plain = graph.replace(nodes=[n.model_copy(update={"frozen": adapted.graph[n.name].frozen}) for n in graph.nodes])
    assert back.graph.hash == plain.hash
    assert all(key.startswith(f"{step.node}.") for key in held)
    assert bool(held) is step.freeze


@pytest.mark.parametrize(("graph", "step"), CASES)
def test_the_rank_is_a_width_like_any_other(graph: Graph, step: Adapt) -> None:
    adapted = step.rewrite(graph).graph
    wider = assert_preserves(Widen(node=f"{step.node}_adapter.down", by=2), adapted)
    assert wider.arrays[f"{step.node}_adapter.down.weight"].shape[0] == step.rank + 2
    assert not wider.arrays[f"{step.node}_adapter.up.weight"][:, step.rank :].any()
    (merge,) = MergeAdapter.candidates(wider.graph)
    assert_preserves(merge, wider.graph)


def test_only_the_adapter_learns() -> None:
    module = random_network(dense()).to_torch()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    module(torch.randn(8, 2, 4, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    module, _ = live.grow(module, Adapt(node="fc1", rank=2), optimizer)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        module(torch.randn(8, 2, 4, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    still = {name for name, p in module.named_parameters() if torch.equal(p, before[name])}
    assert still == {"fc1.weight", "fc1.bias"}
    x = torch.randn(8, 2, 4, dtype=torch.float64)
    wanted = module(x)
    module, _ = live.grow(module, MergeAdapter(node="fc1_adapter.sum"), optimizer)
    torch.testing.assert_close(module(x), wanted)
    module(x).square().sum().backward()
    optimizer.step()


def test_it_is_recorded_and_replayed() -> None:
    grown = random_network(dense()).apply(Adapt(node="fc1", rank=2)).apply(Adapt(node="fc1", rank=1))
    assert load(dumps(grown.graph)).hash == grown.graph.hash
    assert grown.graph.history is not None
    graph = dense()
    for step in grown.graph.history.steps:
        graph = pass_from_data({"pass": step.kind, **step.fields, "version": step.version}).rewrite(graph).graph
    assert graph.hash == grown.graph.hash
    assert "fc1_adapter_1.sum" in graph


def test_given_numbers_at_its_end_change_the_function() -> None:
    step = Adapt(node="fc1", rank=2, values={"fc1_adapter.up.weight": np.ones((6, 2))})
    assert step.rewrite(dense()).preserves is Preserves.NOTHING


@pytest.mark.parametrize(
    ("graph", "fields", "text"),
    [
        (dense(), {"node": "fc3", "rank": 1}, "'fc3' does not exist. Did you mean"),
        (dense(), {"node": "act", "rank": 1}, "adapt act: it is relu; only a linear layer"),
        (maps(out_channels=6, groups=3), {"node": "conv", "rank": 1}, "a convolution in one group"),
        (dense(), {"node": "fc1", "rank": 0}, "rank"),
        (dense(), {"node": "fc1", "rank": 1, "module": "fc2"}, "module 'fc2' cannot be one, since 'fc2' is a node"),
        (dense(), {"node": "fc1", "rank": 1, "module": "a.import"}, "is a word of Python"),
    ],
)
def test_what_has_no_adapter(graph: Graph, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(PassRefused) as caught:
        Adapt(**fields).rewrite(graph)
    assert text in str(caught.value).replace("\n", " ")


def test_shared_weights_are_not_frozen_unasked() -> None:
    graph = dense()
    nodes = (
        *graph.nodes,
        Node(name="again", op=Linear(out_features=6), inputs=("x",), tied={"weight": "fc1.weight"}),
    )
    shared = verify(graph.replace(nodes=nodes, outputs=("fc2", "again")))
    with pytest.raises(PassRefused, match="again uses its tensors too"):
        Adapt(node="fc1", rank=1).rewrite(shared)
    adapted = assert_preserves(Adapt(node="fc1", rank=1, freeze=False), shared)
    with pytest.raises(PassRefused, match="again uses tensors of fc1 too"):
        MergeAdapter(node="fc1_adapter.sum").rewrite(adapted.graph)


def test_what_is_no_adapter() -> None:
    graph = Adapt(node="fc1", rank=2).rewrite(dense()).graph

    def refused(changed: Graph, node: str = "fc1_adapter.sum") -> str:
        with pytest.raises(PassRefused) as caught:
            MergeAdapter(node=node).rewrite(changed)
        return str(caught.value).replace("\n", " ")

    assert "'sum' does not exist" in refused(graph, "sum")
    assert "it is relu; the sum of a layer and its adapter is an add" in refused(graph, "act")
    assert "fc1_adapter.down is an output" in refused(graph.replace(outputs=("fc2", "fc1_adapter.down")))
    other = graph.replace(
        nodes=[n.with_op(bias=True) if n.name == "fc1_adapter.up" else n for n in graph.nodes],
    )
    assert "are no adapter of fc1: two layers without bias" in refused(other)
