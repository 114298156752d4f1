"""Edges and nodes between maps, and from maps to vectors: which arguments fit, and what is said where none do."""

from __future__ import annotations

from typing import Any

import pytest

from growir.document import dumps
from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.network import Network
from growir.ops import AdaptiveAvgPool2d, Add, Conv1d, Conv2d, Conv3d, Flatten, Linear, Op, Relu
from growir.passes import AddEdge, AddNode, pass_from_step
from growir.replay import check_history, replayable
from growir.rewrite import Preserves
from growir.shapes import shapes_of
from growir.testing import assert_preserves
from growir.verify import load
from tests.samples import graph_of


def convnet() -> Graph:
    """7 x 6 maps, then 4 x 3 by stride, then a vector."""
    return graph_of(
        (2, 7, 6),
        Node(name="stem", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("x",)),
        Node(name="act", op=Relu(), inputs=("stem",)),
        Node(name="down", op=Conv2d(out_channels=4, kernel_size=3, padding=1, stride=2), inputs=("act",)),
        Node(name="act2", op=Relu(), inputs=("down",)),
        Node(name="pool", op=AdaptiveAvgPool2d(), inputs=("act2",)),
        Node(name="flat", op=Flatten(), inputs=("pool",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )


WAYS: list[tuple[str, str, dict[str, Any]]] = [
    ("x", "stem", {"kernel_size": 5}),
    ("x", "down", {"stride": 2}),
    ("x", "down", {"stride": 2, "kernel_size": (1, 3)}),
    ("act", "down", {"pool": "adaptive_avg"}),
    ("x", "head", {"pool": "global_avg"}),
    ("act2", "head", {"pool": "flatten"}),
]


@pytest.mark.parametrize(("source", "target", "fields"), WAYS)
def test_every_way_keeps_the_function(source: str, target: str, fields: dict[str, Any]) -> None:
    graph = convnet()
    for step in (
        AddEdge(source=source, target=target, **fields),
        AddNode(source=source, target=target, width=3, activation="tanh", **fields),
    ):
        assert step.rewrite(graph).preserves is Preserves.EXACT
        grown = assert_preserves(step, graph)
        assert check_history(load(dumps(grown.graph))).hash == grown.graph.hash


def test_an_edge_between_maps_is_a_convolution() -> None:
    done = AddEdge(source="x", target="down", stride=2).rewrite(convnet())
    edge = done.graph["edge_1"]
    assert edge.op == Conv2d(out_channels=4, kernel_size=3, stride=2, padding=1, bias=False)
    assert done.graph["sum_1"].inputs == ("down", "edge_1")
    assert done.created == ("edge_1", "sum_1")
    assert done.graph.history is not None
    assert done.graph.history.steps[0].fields["layer"] == "conv2d"
    assert done.graph.history.steps[0].fields["kernel_size"] == 3


def test_an_edge_with_a_pool_is_a_module() -> None:
    done = AddEdge(source="x", target="head", pool="global_avg").rewrite(convnet())
    assert done.created == ("edge_1.pool", "edge_1.flat", "edge_1.linear", "sum_1")
    assert done.graph["edge_1.linear"].inputs == ("edge_1.flat",)
    with pytest.raises(PassRefused, match=r"edge_1\.linear already leads from x to sum_1"):
        AddEdge(source="x", target="head", pool="global_avg").rewrite(done.graph)
    again = AddEdge(source="x", target="head", pool="flatten").rewrite(done.graph)
    assert again.created == ("edge_2.flat", "edge_2.linear")


def test_a_node_between_maps_changes_size_once() -> None:
    done = AddNode(source="x", target="down", width=5, stride=2, kernel_size=1).rewrite(convnet())
    shapes = shapes_of(done.graph)
    assert done.created == ("node_1.conv2d", "node_1.act", "edge_1", "sum_1")
    assert shapes["node_1.conv2d"].dims == ("N", 5, 4, 3)
    assert shapes["edge_1"].dims == ("N", 4, 4, 3)
    assert done.graph["edge_1"].op == Conv2d(out_channels=4, kernel_size=1, bias=False)


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_pools_round_down(pool: Any) -> None:
    graph = graph_of(
        (2, 7, 7),
        Node(name="small", op=Conv2d(out_channels=3, kernel_size=3, stride=2), inputs=("x",)),
        Node(name="head", op=Relu(), inputs=("small",)),
    )
    step = AddEdge(source="x", target="small", pool=pool, stride=2)
    assert step.rewrite(graph).created == ("edge_1.pool", "edge_1.conv2d", "sum_1")
    assert_preserves(step, graph)


@pytest.mark.parametrize(
    ("shape", "conv", "fields"),
    [
        ((2, 5), Conv1d(out_channels=3, kernel_size=1, stride=2), {"layer": "conv1d", "stride": 2}),
        ((2, 5), Conv1d(out_channels=3, kernel_size=2, stride=2), {"layer": "conv1d", "stride": 2, "pool": "max"}),
        ((2, 5), Conv1d(out_channels=3, kernel_size=2), {"layer": "conv1d", "pool": "adaptive_avg"}),
        ((2, 4, 3, 2), Conv3d(out_channels=3, kernel_size=1), {"kernel_size": (3, 1, 1)}),
        ((2, 4, 4, 2), Conv3d(out_channels=3, kernel_size=(2, 2, 1), stride=(2, 2, 1)),
         {"pool": "avg", "stride": (2, 2, 1)}),
    ],
)  # fmt: skip
def test_other_numbers_of_axes(shape: tuple[int, ...], conv: Op, fields: dict[str, Any]) -> None:
    graph = graph_of(shape, Node(name="a", op=conv, inputs=("x",)), Node(name="head", op=Relu(), inputs=("a",)))
    for step in (AddEdge(source="x", target="a", **fields), AddNode(source="x", target="a", width=2, **fields)):
        grown = assert_preserves(step, graph)
        assert check_history(load(dumps(grown.graph))).hash == grown.graph.hash


@pytest.mark.parametrize(
    ("source", "target", "fields", "says"),
    [
        ("x", "down", {}, r"gives \(N, 4, 7, 6\), but x is \(N, 2, 7, 6\) and down is \(N, 4, 4, 3\); try stride=2"),
        ("x", "down", {"stride": 3}, r"try stride=2"),
        ("x", "down", {"stride": 2, "pool": "max"}, r"gives \(N, 4, 3, 3\).*try stride=2"),
        ("x", "down", {"pool": "flatten"}, r"pool='flatten' makes a vector, not a map.*try stride=2"),
        ("x", "stem", {"kernel_size": 4}, r"kernel_size must be odd, to keep positions centred: 5 instead of 4"),
        ("x", "stem", {"kernel_size": (4, 2)}, r"5 or 3 instead of \(4, 2\)"),
        ("x", "stem", {"kernel_size": (3, 3, 5)}, "kernel_size has 3 numbers, but the convolution has 2 axes"),
        ("x", "down", {"stride": (2, 1, 1)}, "stride has 3 numbers, but a conv2d has 2 axes.*try stride=2"),
        ("x", "down", {"layer": "conv3d", "stride": 2}, "a conv3d leads from a value of 5 axes"),
        ("x", "down", {"pool": "avg", "stride": (2, 1, 1)}, "stride has 3 numbers"),
        ("x", "stem", {"pool": "adaptive_avg", "stride": 2}, "by itself, without stride.*try leaving the others out"),
        ("x", "head", {}, r"keeps all axes but the last, but x is \(N, 2, 7, 6\).*try pool='global_avg'"),
        ("x", "head", {"pool": "max"}, r"goes with a convolution between two maps.*try pool='global_avg'"),
        ("x", "head", {"pool": "flatten", "kernel_size": 3}, r"kernel_size goes with a convolution"),
        ("flat", "head", {"pool": "flatten"}, "leads from a value of more axes.*try leaving the others out"),
        ("flat", "head", {"layer": "conv2d"}, "a conv2d leads from a value of 4 axes"),
        ("x", "stem", {"layer": "linear", "stride": 2}, r"stride goes with a convolution"),
        ("x", "stem", {"kernel_size": 0}, r"kernel_size"),
        ("x", "stem", {"pool": "min"}, r"pool is \"min\""),
    ],
)
def test_refusals_name_what_fits(source: str, target: str, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(PassRefused, match=says):
        AddEdge(source=source, target=target, **fields).rewrite(convnet())


def test_no_edge_enlarges_a_map() -> None:
    graph = graph_of(
        (1, 4, 4),
        Node(name="small", op=Conv2d(out_channels=1, kernel_size=3), inputs=("x",)),
        Node(name="wide", op=Conv2d(out_channels=1, kernel_size=1, padding=1), inputs=("small",)),
        Node(name="head", op=Add(), inputs=("wide", "x")),
    )
    for pool in (None, "adaptive_avg"):
        with pytest.raises(PassRefused, match="no edge enlarges a map: choose a source of at least 4 x 4"):
            AddEdge(source="small", target="head", pool=pool).rewrite(graph)


def test_candidates_reach_maps_and_vectors() -> None:
    found = {(s.source, s.target): s for s in AddEdge.candidates(convnet())}
    assert found["x", "down"].stride == 2
    assert found["x", "head"].pool == "global_avg"
    assert ("x", "stem") not in found  # the stem itself is that edge
    assert ("stem", "act2") not in found  # an activation stands for its state


def test_the_first_version_had_linear_layers_between_maps() -> None:
    """A history that was recorded before there were convolutional edges means what it meant."""
    graph = graph_of(
        (1, 2, 3),
        Node(name="a", op=Relu(), inputs=("x",)),
        Node(name="head", op=Linear(out_features=4), inputs=("a",)),
    )
    grown = Network.init(graph).apply(AddEdge(source="x", target="head", layer="linear"))
    text = dumps(grown.graph)
    for new in ('"version": 2', '"kernel_size": null, ', '"stride": 1, ', '"pool": null, ', '"layer": "linear", '):
        assert new in text, new
        text = text.replace(new, '"version": 1' if "version" in new else "")
    old = check_history(load(text))
    assert old.hash == grown.graph.hash
    assert old.history is not None
    step = old.history.steps[0]
    assert step.version == 1
    assert pass_from_step(step, {}) == AddEdge(source="x", target="head", layer="linear")
    newer = step.model_copy(update={"version": 3})
    assert not replayable(newer)
    with pytest.raises(PassRefused, match="version 3 of this pass cannot be run here"):
        pass_from_step(newer, {})
