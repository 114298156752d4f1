"""Update: what it adds, that it is recorded, and that a sequence of it and a growth is both, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from growir import live
from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.network import Network
from growir.ops import BatchNorm, Linear, Relu
from growir.params import param_table, with_frozen
from growir.passes import AddEdge, AddNode, InsertLayer, Sequence, Split, Update, Widen
from growir.rewrite import Pass, Preserves
from growir.testing import pass_law, random_network
from tests.samples import graph_of, mlp, residual_convnet

test_update_keeps_what_it_promises = pass_law(Update)


def normed() -> Graph:
    """linear, batch norm, relu, linear."""
    return graph_of(
        (3,),
        Node(name="fc1", op=Linear(out_features=4), inputs=("x",)),
        Node(name="norm", op=BatchNorm(), inputs=("fc1",)),
        Node(name="act1", op=Relu(), inputs=("norm",)),
        Node(name="head", op=Linear(out_features=2), inputs=("act1",)),
    )


def numbers(graph: Graph, *keys: str) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=param_table(graph)[key].shape).astype(np.float32) for key in keys}


def small(network: Network) -> Network:
    """The same in float32."""
    arrays = {k: a.astype(np.float32) if a.dtype.kind == "f" else a for k, a in network.arrays.items()}
    return network.with_arrays(arrays)


def added(network: Network, by: Mapping[str, NDArray[Any]]) -> Network:
    return network.with_arrays({key: network.arrays[key] + block for key, block in by.items()})


def test_numbers_are_added_and_recorded() -> None:
    network = small(random_network(mlp()))
    by = numbers(network.graph, "fc1.weight", "head.bias")
    step = Update(parameters=("fc1.weight", "head.bias", "fc1.bias"), values=by)
    grown = network.apply(step)
    assert step.preserves(network.graph) is Preserves.NOTHING
    wanted = added(network, by)
    assert {key: array.tobytes() for key, array in grown.arrays.items()} == {
        key: array.tobytes() for key, array in wanted.arrays.items()
    }
    assert grown.graph.nodes == network.graph.nodes
    assert grown.history is not None
    assert [step.kind for step in grown.history.steps] == ["update"]
    again = grown.replayed(network.arrays)
    assert all(np.array_equal(again.arrays[key], array) for key, array in grown.arrays.items())


def test_without_numbers_it_adds_zeros() -> None:
    network = small(random_network(mlp()))
    for step in (
        Update(parameters=("fc1.weight",)),
        Update(parameters=("fc1.weight",), values={"fc1.weight": np.zeros((4, 3))}),
    ):
        assert step.preserves(network.graph) is Preserves.EXACT
        assert all(np.array_equal(array, network.arrays[key]) for key, array in network.apply(step).arrays.items())


GROWTHS: dict[str, Pass] = {
    "add_edge": AddEdge(source="x", target="head"),
    "add_node": AddNode(source="x", target="head", width=2),
    "insert_layer": InsertLayer(after="act1", activation="relu"),
    "widen": Widen(node="fc1", by=2),
    "split": Split(node="fc1", channels=(1, 3)),
}


@pytest.mark.parametrize("given", [False, True], ids=["drawn", "given"])
@pytest.mark.parametrize("name", GROWTHS)
def test_a_sequence_is_to_add_first_and_then_to_grow(name: str, given: bool) -> None:
    """The same names, the same draws, the same numbers to the bit."""
    network = small(random_network(mlp()))
    growth = GROWTHS[name]
    if given and name != "split":
        done = growth.rewrite(network.graph)
        rng = np.random.default_rng(1)
        blocks = growth.blocks(done.graph, done.edits)
        growth = growth.model_copy(
            update={"values": {key: rng.normal(size=shape).astype(np.float32) for key, shape in blocks.items()}}
        )
    by = numbers(network.graph, "fc1.weight", "fc1.bias", "head.weight", "head.bias")
    together = network.apply(Sequence(passes=(Update(parameters=tuple(by), values=by), growth)))
    apart = added(network, by).apply(growth)
    assert together.graph.nodes == apart.graph.nodes
    assert together.graph.history is not None
    assert apart.graph.history is not None
    assert together.graph.history.steps[-1].created == apart.graph.history.steps[-1].created
    assert together.arrays.keys() == apart.arrays.keys()
    for key, array in apart.arrays.items():
        assert together.arrays[key].tobytes() == array.tobytes(), key
    again = together.replayed(network.arrays)
    assert all(again.arrays[key].tobytes() == array.tobytes() for key, array in together.arrays.items())


def test_several_growths_draw_as_without_updates_between_them() -> None:
    network = small(random_network(mlp()))
    first, second = AddNode(source="x", target="head", width=2), AddNode(source="act1", target="head", width=2)
    plain = network.apply(Sequence(passes=(first, second)))
    idle = Update(parameters=("fc1.weight",))
    mixed = network.apply(Sequence(passes=(idle, first, idle, second, idle)))
    assert mixed.graph.nodes == plain.graph.nodes
    assert all(np.array_equal(mixed.arrays[key], array) for key, array in plain.arrays.items())


def test_statistics_of_a_norm_may_be_updated_and_frozen_weights_too() -> None:
    network = random_network(with_frozen(normed(), {"fc1.weight"}))
    by = {"norm.running_mean": np.full(4, 0.5), "fc1.weight": np.ones((4, 3))}
    grown = network.apply(Update(parameters=tuple(by), values=by))
    for key, block in by.items():
        assert np.array_equal(grown.arrays[key], network.arrays[key] + block)
    assert grown.graph["fc1"].frozen == ("weight",)
    assert all(step.parameters != ("fc1.weight",) for step in Update.candidates(network.graph))


def test_a_module_keeps_its_optimizer_state() -> None:
    module = random_network(normed()).to_torch(dtype=torch.float32)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(8, 3)).square().mean().backward()
    optimizer.step()
    key = "fc1.weight"
    weight = module.get_parameter(key)
    before, state = weight.detach().clone(), {name: value.clone() for name, value in optimizer.state[weight].items()}
    by = {key: np.full((4, 3), 0.25, np.float32), "norm.running_var": np.full(4, 0.5, np.float32)}
    variance = module.get_buffer("norm.running_var").clone()
    grown, report = live.grow(module, Update(parameters=tuple(by), values=by), optimizer)
    assert torch.equal(grown.get_parameter(key).detach(), before + 0.25)
    assert torch.equal(grown.get_buffer("norm.running_var"), variance + 0.5)
    after = optimizer.state[grown.get_parameter(key)]
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert {change.key for change in report.changes} == set(by)
    network = live.network_of(grown, report.values)
    assert network.graph.history is not None
    assert network.graph.history.steps[-1].kind == "update"


REFUSED: dict[str, tuple[Graph, dict[str, Any], str]] = {
    "unknown": (
        mlp(),
        {"parameters": ("fc.weight",)},
        "update: the graph has no parameter 'fc.weight' of its own. Did you mean 'fc1.weight'?",
    ),
    "tied": (
        graph_of(
            (3,),
            Node(name="fc1", op=Linear(out_features=3), inputs=("x",)),
            Node(name="head", op=Linear(out_features=3), inputs=("fc1",), tied={"weight": "fc1.weight"}),
        ),
        {"parameters": ("head.weight",)},
        "update: the graph has no parameter 'head.weight' of its own. Name it as its owner does, 'fc1.weight'.",
    ),
    "whole numbers": (
        residual_convnet(),
        {"parameters": ("block.norm.num_batches_tracked",)},
        "update: block.norm.num_batches_tracked counts in whole numbers and cannot be added to; leave it out",
    ),
    "twice": (
        mlp(),
        {"parameters": ("fc1.bias", "head.bias", "fc1.bias")},
        "update: fc1.bias is named twice; name it once, with the sum of its numbers",
    ),
    "not named": (
        mlp(),
        {"parameters": ("fc1.weight",), "values": {"fc1.bias": np.ones(4)}},
        "update: values are given for fc1.bias, which parameters does not name. There is fc1.weight.",
    ),
    "shape": (
        mlp(),
        {"parameters": ("fc1.weight",), "values": {"fc1.weight": np.ones(4)}},
        "update: fc1.weight has shape (4, 3), but values give (4,); give a number for each of its entries",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    graph, fields, says = REFUSED[case]
    with pytest.raises(PassRefused) as caught:
        Update(**fields).rewrite(graph)
    assert str(caught.value) == says


def test_it_names_at_least_one() -> None:
    with pytest.raises(PassRefused, match="update: "):
        Update(parameters=())
