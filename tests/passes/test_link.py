"""Edges and nodes between maps, and from maps to vectors: which arguments fit, and what is said where none do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from growir.document import dumps
from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.network import Network
from growir.ops import (
    AdaptiveAvgPool2d,
    Add,
    BatchNorm,
    Conv1d,
    Conv2d,
    Conv3d,
    Flatten,
    Linear,
    MaxPool2d,
    Op,
    Relu,
    Reshape,
)
from growir.params import param_table
from growir.passes import AddEdge, AddNode, Widen, pass_from_step
from growir.replay import check_history, replayable
from growir.rewrite import Preserves
from growir.shapes import shapes_of
from growir.testing import assert_preserves, close, outputs, random_batch, random_network
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
    ("x", "head", {"pool": "max", "stride": 2}),
    ("x", "head", {"pool": "avg", "stride": (3, 6)}),
    ("act2", "head", {"pool": "max", "stride": (1, 3)}),
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
        ("x", "head", {"pool": "max"}, r"pool='max' over windows of 1 would only flatten.*try pool='flatten'$"),
        ("x", "head", {"pool": "max", "stride": (9, 2)},
         r"over windows of stride=\(9, 2\) needs a larger map.*try stride=\(7, 2\), pool='max'$"),
        ("x", "head", {"pool": "max", "stride": (2, 1, 1)}, "stride has 3 numbers, but the map has 2 axes"),
        ("x", "head", {"pool": "flatten", "stride": 2}, "stride goes with .* or with a pool over windows"),
        ("x", "head", {"pool": "avg", "stride": 2, "kernel_size": 3}, r"kernel_size goes .*try stride=2, pool='avg'$"),
        ("x", "head", {"pool": "adaptive_avg"}, "goes with a convolution between two maps.*try pool='global_avg'"),
        ("x", "down", {"pool": "avg", "stride": 8}, "needs a larger map.*try stride=2"),
        ("flat", "head", {"pool": "max", "stride": 2}, r"leads from a map \(N, C, H, W\) to a vector.*try leaving"),
        ("x", "head", {"pool": "flatten", "kernel_size": 3}, r"kernel_size goes with a convolution"),
        ("flat", "head", {"pool": "flatten"}, "leads from a value of more axes.*try leaving the others out"),
        ("flat", "head", {"layer": "conv2d"}, "a conv2d leads from a value of 4 axes"),
        ("x", "stem", {"layer": "linear", "stride": 2}, r"stride goes with a convolution"),
        ("x", "stem", {"kernel_size": 0}, r"kernel_size"),
        ("x", "stem", {"pool": "min"}, r"pool is \"min\""),
    ],
)  # fmt: skip
def test_refusals_name_what_fits(source: str, target: str, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(PassRefused, match=says):
        AddEdge(source=source, target=target, **fields).rewrite(convnet())


def images() -> Graph:
    """28 x 28 maps and ten classes that read them as vectors."""
    return graph_of(
        (1, 28, 28),
        Node(name="flat", op=Flatten(), inputs=("x",)),
        Node(name="head", op=Linear(out_features=10), inputs=("flat",)),
    )


OUT_WAYS: list[tuple[Graph, str, dict[str, Any]]] = [
    (convnet(), "head", {"out_pool": "max", "out_stride": 2}),
    (convnet(), "head", {"out_pool": "avg", "out_stride": (7, 1), "kernel_size": (1, 5)}),
    (convnet(), "head", {"out_pool": "flatten", "stride": 2}),
    (convnet(), "head", {"out_pool": "global_avg", "pool": "max", "stride": 3}),
    (convnet(), "head", {"out_pool": "max", "out_stride": 2, "pool": "avg", "stride": 2}),
    (convnet(), "down", {"out_pool": "adaptive_avg"}),
    (convnet(), "down", {"out_pool": "max", "stride": 2}),
    (graph_of((2, 7), Node(name="flat", op=Flatten(), inputs=("x",)), Node(name="head", op=Relu(), inputs=("flat",))),
     "head", {"out_pool": "max", "out_stride": 2, "layer": "conv1d"}),
    (graph_of((2, 7), Node(name="head", op=Conv1d(out_channels=3, kernel_size=3, stride=2), inputs=("x",))),
     "head", {"out_pool": "avg", "out_stride": 2, "layer": "conv1d"}),
    (graph_of((2, 4, 4, 2), Node(name="head", op=Conv3d(out_channels=3, kernel_size=(2, 2, 1), stride=(2, 2, 1)),
                                 inputs=("x",))),
     "head", {"out_pool": "max", "out_stride": (2, 2, 1)}),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "target", "fields"), OUT_WAYS)
def test_a_map_state_keeps_the_function(graph: Graph, target: str, fields: dict[str, Any]) -> None:
    step = AddNode(source="x", target=target, width=3, activation="tanh", **fields)
    done = step.rewrite(graph)
    assert done.preserves is Preserves.EXACT
    assert set(done.created) == set(done.graph.by_name) - set(graph.by_name)
    grown = assert_preserves(step, graph)
    again = check_history(load(dumps(grown.graph)))
    assert again.hash == grown.graph.hash
    assert again.history is not None
    recorded = pass_from_step(again.history.steps[0], {})
    assert isinstance(recorded, AddNode)
    assert recorded == step.resolved(graph)
    assert recorded.rewrite(graph).created == done.created
    blocks = step.blocks(done.graph, done.edits)
    (key,) = (key for key in blocks if key.startswith("edge_1."))
    block = np.ones(blocks[key])
    assert step.model_copy(update={"values": {key: block}}).rewrite(graph).preserves is Preserves.NOTHING
    assert step.model_copy(update={"values": {key: 0 * block}}).rewrite(graph).preserves is Preserves.EXACT


@pytest.mark.parametrize(
    ("fields", "size", "reads"),
    [
        ({}, 28, 12 * 7 * 7),
        ({"stride": 2}, 14, 12 * 3 * 3),
        ({"pool": "max", "stride": 2}, 14, 12 * 3 * 3),
    ],
)
def test_a_map_feeds_a_vector(fields: dict[str, Any], size: int, reads: int) -> None:
    graph = images()
    step = AddNode(source="x", target="head", width=12, kernel_size=5, out_pool="max", out_stride=4, **fields)
    done = step.rewrite(graph)
    shapes = shapes_of(done.graph)
    lead = ("node_1.pool",) if "pool" in fields else ()
    behind = ("edge_1.pool", "edge_1.flat", "edge_1.linear", "sum_1")
    assert done.created == (*lead, "node_1.conv2d", "node_1.act", *behind)
    assert shapes["node_1.act"].dims == ("N", 12, size, size)
    assert shapes["edge_1.flat"].dims == ("N", reads)
    assert done.graph["edge_1.pool"].op == MaxPool2d(kernel_size=4)
    assert done.graph["edge_1.linear"].op == Linear(out_features=10, bias=False)
    assert done.graph["sum_1"].inputs == ("head", "edge_1.linear")
    assert done.graph.history is not None
    recorded = done.graph.history.steps[0].fields
    assert (recorded["layer"], recorded["kernel_size"]) == ("conv2d", 5)
    assert (recorded["out_pool"], recorded["out_stride"]) == ("max", 4)


@pytest.mark.parametrize("fields", [{"out_pool": "max", "out_stride": 2}, {"out_pool": "flatten"}, {"pool": "flatten"}])
def test_a_norm_stands_in_front_of_the_activation(fields: dict[str, Any]) -> None:
    graph = convnet()
    step = AddNode(source="x", target="head", width=3, activation="tanh", norm="batch_norm", **fields)
    done = step.rewrite(graph).graph
    (layer,) = done["node_1.norm"].inputs
    assert done["node_1.act"].inputs == ("node_1.norm",)
    assert done["node_1.norm"].op == BatchNorm()
    assert f"{layer}.bias" not in param_table(done)
    assert param_table(done)["node_1.norm.running_var"].shape == (3,)
    assert done.history is not None
    assert done.history.steps[0].fields["norm"] == "batch_norm"
    assert_preserves(step, graph)
    assert_preserves(Widen(node="node_1.act", by=2), done)


def test_a_batch_norm_needs_channels_on_axis_1() -> None:
    rows = graph_of((5, 4), Node(name="head", op=Linear(out_features=3), inputs=("x",)))
    words = r"norm='batch_norm' is over axis 1, .*as head is \(N, 5, 3\); leave norm out"
    with pytest.raises(PassRefused, match=words):
        AddNode(source="x", target="head", width=2, norm="batch_norm").rewrite(rows)


def test_a_node_without_an_out_pool_is_recorded_as_it_always_was() -> None:
    """Growth keys random numbers by this text."""
    step = AddNode(source="x", target="head", width=2, pool="flatten")
    assert step.model_dump_json() == (
        '{"seed":0,"source":"x","target":"head","kernel_size":null,"stride":1,"pool":"flatten","layer":null,'
        '"width":2,"activation":"relu"}'
    )
    assert step == AddNode(source="x", target="head", width=2, pool="flatten", out_pool=None, out_stride=1, norm=None)
    assert step != AddNode(source="x", target="head", width=2, out_pool="flatten")
    done = step.rewrite(convnet())
    assert done.created == ("node_1.flat", "node_1.linear", "node_1.act", "edge_1", "sum_1")
    assert done.graph.history is not None
    assert not [name for name in done.graph.history.steps[0].fields if name.startswith("out_")]


@pytest.mark.parametrize(
    "fields",
    [
        {"out_pool": "max", "out_stride": 2, "stride": 2},
        {"out_pool": "avg", "out_stride": 3},
        {"out_pool": "flatten", "stride": 2},
        {"out_pool": "global_avg"},
    ],
)
def test_a_map_state_widens_with_the_vector_that_reads_it(fields: dict[str, Any]) -> None:
    network = random_network(convnet())
    grown = network.apply(AddNode(source="x", target="head", width=3, activation="tanh", **fields))
    rng = np.random.default_rng(0)
    last = grown.arrays["edge_1.linear.weight"]
    grown = grown.with_arrays({"edge_1.linear.weight": rng.normal(size=last.shape)})
    columns = last.shape[1] // 3
    blocks = {
        "node_1.conv2d.weight": rng.normal(size=(2, 2, 3, 3)),
        "node_1.conv2d.bias": rng.normal(size=(2,)),
        "edge_1.linear.weight": np.zeros((2, 2 * columns)),
    }
    assert_preserves(Widen(node="node_1.act", by=2), grown.graph)
    step = Widen(node="node_1.act", by=2, values=blocks)
    done = step.rewrite(grown.graph)
    assert done.preserves is Preserves.EXACT
    assert {key: array.shape for key, array in blocks.items()} == dict(step.blocks(done.graph, done.edits))
    wider = grown.apply(step)
    batch = random_batch(grown.graph)
    for old, new in zip(outputs(grown, batch), outputs(wider, batch), strict=True):
        assert close(old, new)
    blocks["edge_1.linear.weight"] = rng.normal(size=(2, 2 * columns))
    changed = Widen(node="node_1.act", by=2, values=blocks)
    assert changed.rewrite(grown.graph).preserves is Preserves.NOTHING
    wider = grown.apply(changed)
    # What is given lies behind what was there: channel by channel, each with all its positions.
    for key, block in blocks.items():
        array, axis = wider.arrays[key], 1 if "linear" in key else 0
        kept, new = np.split(array, [grown.arrays[key].shape[axis]], axis=axis)
        assert np.array_equal(kept, grown.arrays[key]), key
        assert np.array_equal(new, block), key


@pytest.mark.parametrize(
    ("source", "target", "fields", "says"),
    [
        ("x", "head", {"out_stride": 2}, r"out_stride=2 is that of out_pool, which is missing; try out_pool='max'"),
        ("x", "head", {"out_pool": "min"}, r"out_pool is \"min\""),
        ("x", "head", {"out_pool": "max"}, r"out_pool='max' over windows of 1 would only .*try out_pool='flatten'$"),
        ("x", "head", {"out_pool": "avg", "out_stride": 7, "stride": 2},
         r"windows of out_stride=7 needs a larger map, but the new map is \(N, 2, 4, 3\) and head is \(N, 2\); "
         r"try out_stride=\(4, 3\), out_pool='avg'$"),
        ("x", "head", {"out_pool": "max", "out_stride": (2, 1, 1)}, "out_stride has 3 numbers, but the map has 2 axes"),
        ("x", "head", {"out_pool": "flatten", "out_stride": 2}, "out_stride goes with.*or with a pool over windows"),
        ("x", "head", {"out_pool": "adaptive_avg"}, "goes with a convolution between.*try out_pool='global_avg'$"),
        ("x", "head", {"out_pool": "max", "pool": "flatten"},
         r"pool='flatten' leaves no map for out_pool, but x is .*try pool='max' with a stride, or leave pool out$"),
        ("x", "head", {"out_pool": "flatten", "pool": "avg"}, "pool='avg' over windows of 1 does nothing.*its stride"),
        ("x", "head", {"out_pool": "flatten", "pool": "avg", "stride": 9},
         r"needs a larger map, but x is .*try stride=\(7, 6\), pool='avg'$"),
        ("x", "head", {"out_pool": "flatten", "kernel_size": 4}, "5 instead of 4.*try leaving kernel_size, stride"),
        ("x", "head", {"out_pool": "flatten", "stride": (1, 2, 3)}, "stride has 3 numbers, but a conv2d has 2 axes"),
        ("x", "head", {"out_pool": "flatten", "layer": "linear"}, "a linear layer makes none.*try layer='conv2d'$"),
        ("x", "head", {"out_pool": "flatten", "layer": "conv1d"}, "a conv1d layer makes none.*try layer='conv2d'$"),
        ("flat", "head", {"out_pool": "flatten"}, r"stands behind a map, but flat is \(N, 4\); choose a source"),
        ("x", "down", {"out_pool": "flatten"}, r"out_pool='flatten' makes a vector.*try out_pool='adaptive_avg'$"),
        ("x", "down", {"out_pool": "max", "out_stride": 2}, r"gives \(N, 4, 3, 3\), but the new map is \(N, 2, 7, 6\)"),
        ("x", "down", {"out_pool": "max", "out_stride": 2, "stride": 2}, "leave out_pool and out_stride out$"),
        ("x", "down", {"out_pool": "adaptive_avg", "stride": 3},
         "makes a map smaller.*no pool enlarges a map: choose a stride that leaves at least 4 x 3$"),
    ],
)  # fmt: skip
def test_refusals_of_map_states_name_what_fits(source: str, target: str, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(PassRefused, match=says):
        AddNode(source=source, target=target, width=2, **fields).rewrite(convnet())


def test_a_map_state_feeds_maps_and_vectors_only() -> None:
    rows = graph_of((2, 4, 4), Node(name="head", op=Reshape(shape=(4, -1)), inputs=("x",)))
    with pytest.raises(PassRefused, match=r"choose a target that is a vector .* or a map, or leave out_pool out$"):
        AddNode(source="x", target="head", width=2, out_pool="flatten").rewrite(rows)


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
    states = [s for s in AddNode.candidates(convnet()) if (s.source, s.target) == ("x", "head")]
    assert [(s.pool, s.out_pool) for s in states] == [("global_avg", None), (None, "global_avg")]


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
