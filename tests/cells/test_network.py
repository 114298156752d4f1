"""Cells as graphs: templates, operations of one's own, sizes, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from growir import Network
from growir.cells import OPERATIONS, Template, cell, cells_of, fragment, genotype, genotype_of, network
from growir.cells.operations import Spot, operation
from growir.document import dumps
from growir.errors import GraphError, GrowirError
from growir.ops import BatchNorm, Conv2d, Relu
from growir.passes import Stack
from growir.shapes import shapes_of
from growir.verify import load


@pytest.fixture
def own() -> Iterator[None]:
    """Operations that a test adds go again."""
    before = dict(OPERATIONS)
    yield
    OPERATIONS.clear()
    OPERATIONS.update(before)


def test_a_template_has_every_operation_on_every_edge_with_inner_channels() -> None:
    graph = network(Template(nodes=2, inner=3), (3, 16, 16), 10, cells=3, width=4, reductions=[1])
    for at in cells_of(graph):
        assert len(at.operations) == 5 * (2 + 3)
        for each in at.operations:
            assert (each.inner is None) == (each.edge.operation == "skip_connect")
            assert each.inner in (None, 3)
        assert at.concat == (2, 3)


def test_every_operation_gives_the_width_and_halves_the_size() -> None:
    for name in OPERATIONS:
        if name == "none":
            continue
        for inner in (None, 2):
            plan = Template(nodes=1, operations=(name,), inner=2)
            graph = cell(plan, "reduce", (5, 7, 6))
            assert shapes_of(graph)["node_2"].sizes == (5, 4, 3), (name, inner)


def test_odd_maps_and_single_channels_are_halved() -> None:
    for shape in ((1, 7, 5), (3, 5, 8), (4, 2, 2)):
        graph = cell(Template(nodes=1, operations=("skip_connect",)), "reduce", shape)
        found = Network.init(graph, 0).to_torch()(torch.randn(2, *shape), torch.randn(2, *shape))
        assert found.shape == (2, shape[0], -(-shape[1] // 2), -(-shape[2] // 2))


def test_factorized_reduction_reads_every_second_position_and_the_one_below() -> None:
    shape = (2, 4, 4)
    graph = cell(Template(nodes=1, operations=("skip_connect",)), "reduce", shape)
    network_ = Network.init(graph, 0)
    arrays = {key: np.ones_like(array) if key.endswith("weight") else array for key, array in network_.arrays.items()}
    module = network_.with_arrays(arrays).to_torch().eval()
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    found = module(x, torch.zeros(1, 2, 4, 4)) * (1 + 1e-5) ** 0.5
    even, odd = x[:, :, ::2, ::2].sum(1), x[:, :, 1::2, 1::2].sum(1)
    torch.testing.assert_close(found, torch.stack([even, odd], 1))


def test_edges_may_have_operations_of_their_own() -> None:
    plan = Template(nodes=2, between={(0, 2): ("skip_connect",), (2, 3): ("sep_conv_3x3", "none")})
    graph = cell(plan, "normal", (3, 8, 8))
    edges = cells_of(graph)[0].edges
    assert [(each.source, each.target, each.operation) for each in edges] == [
        (0, 2, "skip_connect"),
        (2, 3, "sep_conv_3x3"),
    ]


@pytest.mark.usefixtures("own")
def test_an_operation_of_ones_own_is_built_and_read() -> None:
    @operation("conv_3x3")
    def conv_3x3(at: Spot) -> str:
        first = Conv2d(out_channels=at.inner or at.width, kernel_size=3, stride=at.stride, padding=1, bias=False)
        return at.chain(relu=Relu(), conv=first, norm=BatchNorm(), last=Conv2d(out_channels=at.width, kernel_size=1))

    graph = network(Template(nodes=1, operations=("conv_3x3",), inner=3), (1, 8, 8), 2, cells=3, width=2)
    assert {each.inner for at in cells_of(graph) for each in at.operations} == {3}
    with pytest.raises(GrowirError, match="two operations are called 'conv_3x3'"):
        operation("conv_3x3")(OPERATIONS["none"])


@pytest.mark.usefixtures("own")
def test_an_operation_that_gives_another_shape_is_refused() -> None:
    @operation("wide")
    def wide(at: Spot) -> str:
        return at.chain(conv=Conv2d(out_channels=at.width + 1, kernel_size=1))

    with pytest.raises(
        GraphError, match=r"normal: wide from 0 to 2 gives \(N, 4, 8, 8\), but node 2 is \(N, 3, 8, 8\)"
    ):
        cell(Template(nodes=1, operations=("wide",)), "normal", (3, 8, 8))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("value", ["nowhere", 3])
def test_an_operation_that_gives_no_node_is_refused(value: Any) -> None:
    operation("odd")(lambda at: value)
    with pytest.raises(
        GraphError, match=r"normal: odd from 0 to 2 gives .*, but an operation gives the name of its last"
    ):
        cell(Template(nodes=1, operations=("odd",)), "normal", (3, 8, 8))


@pytest.mark.parametrize("shape", [(), (8,), (8, 4), (8, 4, 4, 4), (8, 0, 4), (8.0, 4, 4)])
def test_a_cell_of_no_maps_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match=r"a cell reads maps, \(C, H, W\), but shape is"):
        cell(genotype("SNAS"), "normal", shape)
    with pytest.raises(GraphError, match="kind is 'norml', but a cell is one of normal, reduce"):
        cell(genotype("SNAS"), "norml", (8, 4, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"operations": "skip_connect"}, "operations: names of operations are needed, in a tuple"),
        ({"operations": (["a"],)}, "operations: names of operations are needed"),
        ({"between": {"0-2": ("none",)}}, r"between '0-2': an edge is a pair of a state and a node, such as \(0, 2\)"),
        ({"nodes": 0}, "nodes: a number from 1 to 100 is needed, but it is 0"),
        ({"inner": 1.5}, "inner: a number from 1 to 100,000 is needed, but it is 1.5"),
        ({"operations": ()}, "operations: an edge has one operation or more"),
        ({"operations": ("sep_conv",)}, "there is no operation 'sep_conv'"),
        ({"between": {(0, 2): ()}}, r"between \(0, 2\): an edge has one operation or more; leave out edges"),
        ({"between": {(3, 2): ("none",)}}, "a cell has no cycle: node 2 reads the inputs, 0 and 1"),
        ({"between": {(2, 2): ("none",)}}, "a cell has no cycle"),
        ({"between": {(0, 9): ("none",)}}, r"there is no node 9; 4 nodes are 2 to 5"),
        ({"between": {(0, 2): ("none", "none")}}, "an operation is there twice"),
        ({"between": {(0, 2): ("skip_connect",)}}, "node 3: no operation leads to it"),
        ({"operations": ("none",)}, "node 2: no operation leads to it"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Template(**given)


@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        ((3, 2, 2), {}, r"cell 2 cannot halve maps of \(N, 16, 1, 1\)"),
        ((5,), {}, "convolutions read images"),
        ((3, 8, 8), {"cells": 0}, "cells is 0, but a number from 1"),
        ((3, 8, 8), {"width": True}, "width is True"),
        ((3, 8, 8), {"reductions": [3]}, "reductions names cell 3, but 3 cells are 0 to 2"),
    ],
)
def test_a_network_that_cannot_be_is_refused(shape: tuple[int, ...], given: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        network(genotype("DARTS_V1"), shape, 2, **{"cells": 3, "width": 2, **given})


def test_a_whole_cell_of_a_graph_is_a_document_that_stack_takes() -> None:
    found = genotype("SNAS")
    graph = network(found, (3, 8, 8), 2, cells=4, width=2, reductions=[0])
    saved = load(dumps(fragment(graph, "normal.3", whole=True)))
    step = Stack(block=saved, after="normal.3.out", before="normal.2.out", exact=False, module="normal.4")
    longer = step.rewrite(graph).graph
    written = network(found, (3, 8, 8), 2, cells=5, width=2, reductions=[0])
    assert [(at.module, at.edges) for at in cells_of(longer)] == [(at.module, at.edges) for at in cells_of(written)]
    assert longer.costs().parameters == written.costs().parameters
    assert cells_of(saved)[0].edges == found.edges("normal")


def test_cells_that_are_no_genotype_are_refused() -> None:
    graph = network(Template(nodes=2), (3, 8, 8), 2, cells=3, width=2)
    with pytest.raises(GraphError, match="is a sum of 10 operations, but in a genotype each node has 2"):
        genotype_of(graph)
    with pytest.raises(GraphError, match="the graph has no reduce cell"):
        genotype_of(network(genotype("SNAS"), (3, 8, 8), 2, cells=2, width=2, reductions=[]))
    assert cells_of(Network.init(cell(genotype("SNAS"), "normal", (2, 4, 4)), 0).graph)[0].kind == "normal"
