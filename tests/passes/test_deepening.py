"""Runs of blocks that become deeper: whose copy each block is, what it is called, and what moves up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import growir
from growir import live
from growir.errors import PassRefused
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import Add, Affine, Gelu, LayerNorm, Linear, Parameter
from growir.passes import Stack, deepen, pass_from_data
from growir.passes.deepening import Order, sources_of
from growir.replay import check_history
from growir.rewrite import Preserves
from growir.stages import stages_of
from growir.testing import assert_preserves, outputs, random_batch, random_network
from growir.verify import verify


def residual(depth: int) -> Graph:
    """A chain of blocks x + down(gelu(up(norm(x)))), and a head."""
    nodes: list[Node] = []
    at = "x"
    for k in range(depth):
        b = f"blocks.{k}"
        nodes += [
            Node(name=f"{b}.norm", op=LayerNorm(), inputs=(at,)),
            Node(name=f"{b}.up", op=Linear(out_features=6), inputs=(f"{b}.norm",)),
            Node(name=f"{b}.gate", op=Linear(out_features=6), inputs=(f"{b}.norm",)),
            Node(name=f"{b}.sum", op=Add(), inputs=(f"{b}.gate", f"{b}.up")),
            Node(name=f"{b}.act", op=Gelu(), inputs=(f"{b}.sum",)),
            Node(name=f"{b}.down", op=Linear(out_features=4), inputs=(f"{b}.act",)),
            Node(name=f"{b}.add", op=Add(), inputs=(at, f"{b}.down")),
        ]
        at = f"{b}.add"
    nodes.append(Node(name="head", op=Linear(out_features=3), inputs=(at,)))
    return verify(Graph(inputs=(Input(name="x", shape=("N", 4)),), nodes=tuple(nodes), outputs=("head",)))


def test_the_order_says_whose_copies_the_blocks_are() -> None:
    assert sources_of(4, 6, "whole") == [0, 1, 2, 3, 0, 1]
    assert sources_of(4, 6, "each") == [0, 0, 1, 2, 2, 3]
    assert sources_of(4, 6, "middle") == [0, 1, 2, 1, 2, 3]
    assert sources_of(2, 8, "middle") == sources_of(2, 8, "whole") == [0, 1] * 4


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("order", ["whole", "each", "middle"])
def test_a_deeper_chain_is_that_of_the_deeper_class(order: Order, exact: bool) -> None:
    net = random_network(residual(3))
    deeper = net.apply(deepen(net.graph, "blocks", depth=5, order=order, exact=exact))
    assert deeper.graph.hash == residual(5).hash
    check_history(deeper.graph)
    sources = sources_of(3, 5, order)
    for place, source in enumerate(sources):
        for key in (key for key in net.arrays if key.startswith(f"blocks.{source}.")):
            here = deeper.arrays[key.replace(f"blocks.{source}.", f"blocks.{place}.")]
            silent = exact and place != sources.index(source) and ".down." in key
            assert np.array_equal(here, np.zeros_like(here) if silent else net.arrays[key])
    if exact:
        batch = random_batch(net.graph)
        (wanted,), (found,) = outputs(net, batch), outputs(deeper, batch)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_state_and_groups_move_up_with_their_block() -> None:
    module = random_network(residual(2)).to_torch()
    of = dict(module.named_parameters())
    of["blocks.1.up.weight"].requires_grad_(False)
    late = [p for key, p in of.items() if key.startswith("blocks.1.") and p.requires_grad]
    rest = [p for key, p in of.items() if not key.startswith("blocks.1.")]
    optimizer = torch.optim.AdamW([{"params": rest, "lr": 1e-2}, {"params": late, "lr": 1e-4}])
    module(*random_batch(residual(2))).square().sum().backward()
    optimizer.step()
    before = {key: optimizer.state[p]["exp_avg"].clone() for key, p in of.items() if p in optimizer.state}
    optimizer.zero_grad()
    graph = live.network_of(module).graph
    grown, _ = live.grow(module, deepen(graph, "blocks", order="each"), optimizer)
    group = {id(p): k for k, each in enumerate(optimizer.param_groups) for p in each["params"]}
    for key, p in grown.named_parameters():
        number = int(key.split(".")[1]) if key.startswith("blocks") else None
        old = key if number is None else key.replace(f"blocks.{number}.", f"blocks.{number // 2}.")
        assert p.requires_grad is (old != "blocks.1.up.weight")
        if p.requires_grad:
            assert torch.equal(optimizer.state[p]["exp_avg"], before[old])
            assert group[id(p)] == int(old.startswith("blocks.1."))


def with_a_common_table(depth: int) -> Graph:
    """A chain of blocks x + down(gelu(up(x) + t)), each in two parts; the first one makes the table t, as in a T5."""
    made = [
        Node(name="blocks.0.layer.0.table", op=Parameter(shape=(6,))),
        Node(name="blocks.0.layer.0.scaled", op=Affine(scale=0.5), inputs=("blocks.0.layer.0.table",)),
    ]
    nodes: list[Node] = []
    at = "x"
    for k in range(depth):
        b = f"blocks.{k}"
        nodes += [
            Node(name=f"{b}.layer.0.up", op=Linear(out_features=6), inputs=(at,)),
            *(made if k == 0 else ()),
            Node(name=f"{b}.layer.0.sum", op=Add(), inputs=(f"{b}.layer.0.up", "blocks.0.layer.0.scaled")),
            Node(name=f"{b}.layer.0.act", op=Gelu(), inputs=(f"{b}.layer.0.sum",)),
            Node(name=f"{b}.layer.1.down", op=Linear(out_features=4), inputs=(f"{b}.layer.0.act",)),
            Node(name=f"{b}.layer.1.add", op=Add(), inputs=(f"{b}.layer.1.down", at)),
        ]
        at = f"{b}.layer.1.add"
    return verify(Graph(inputs=(Input(name="x", shape=("N", 4)),), nodes=tuple(nodes), outputs=(at,)))


@pytest.mark.parametrize("order", ["whole", "each", "middle"])
def test_a_table_that_one_block_makes_for_all_is_no_part_of_it(order: Order) -> None:
    graph = with_a_common_table(2)
    deeper = assert_preserves(deepen(graph, "blocks", order=order, exact=True), graph)
    assert deeper.graph.replace(history=None).hash == with_a_common_table(4).hash
    (stage,) = stages_of(graph)
    assert [block.beside for block in stage.blocks] == [("blocks.0.layer.0.scaled",)] * 2


def test_steps_of_version_one_stand_where_they_stood() -> None:
    data = {"pass": "stack", "version": 1, "block": "blocks.1", "after": None, "input": None}
    old, new = pass_from_data(data), Stack(block="blocks.1")
    assert isinstance(old, Stack)
    assert old.placed == "read"
    assert not {"placed", "shift"} & new.model_dump().keys()
    names = [[node.name for node in step.rewrite(residual(2)).graph.nodes] for step in (old, new)]
    assert names[1] == [node.name for node in residual(3).nodes] != names[0]
    assert pass_from_data({"pass": "stack", **old.model_dump(), "version": 2}) == old


def test_what_can_not_become_deeper_is_refused() -> None:
    graph = residual(3)
    for text, fields in {
        "'block' lists no blocks.": {"module": "block"},
        "has no blocks 1 to 7; it has 0 to 2": {"module": "blocks", "first": 1, "last": 7},
        "would have 3; give more": {"module": "blocks", "depth": 3},
        "order is 'twice', but it is 'whole'": {"module": "blocks", "order": "twice"},
    }.items():
        with pytest.raises(PassRefused, match=text):
            deepen(graph, **fields)  # type: ignore[arg-type]
    with pytest.raises(PassRefused, match=r"cannot move up to make room.*numbers 0, 1, 2"):
        Stack(block="blocks.0", module="blocks.7", shift=True).check(graph)
    with pytest.raises(PassRefused, match="shift makes room for a module that has a number"):
        Stack(block="blocks.0", shift=True).check(graph)
    gone = growir.passes.Unstack(block="blocks.2").rewrite(graph).graph
    with pytest.raises(PassRefused, match=r"the name blocks.2.\w+ has been used"):
        Stack(block="blocks.0", module="blocks.1", shift=True).check(gone)


def test_a_part_of_the_run_is_repeated_in_its_place() -> None:
    net = Network.init(residual(4), seed=1)
    step = deepen(net.graph, "blocks", first=1, last=2)
    deeper = net.apply(step)
    assert step.preserves(net.graph) is Preserves.NOTHING
    assert deeper.graph.hash == residual(6).hash
    for place, source in enumerate([0, 1, 2, 1, 2, 3]):
        assert np.array_equal(deeper.arrays[f"blocks.{place}.up.weight"], net.arrays[f"blocks.{source}.up.weight"])
