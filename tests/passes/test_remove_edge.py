"""Taking edges out of a sum: what goes with them, where the state's bias moves, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from growir.edits import NUMPY, Rename
from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.moments import carry_optimizer
from growir.ops import Add, BatchNorm, Bias, Conv2d, Dropout, LayerNorm, Linear, Relu
from growir.passes import AddEdge, AddNode, RemoveEdge
from growir.rewrite import Preserves
from growir.testing import close, outputs, random_batch, random_network
from tests.samples import empty, graph_of, mlp, residual_convnet


def state(*, bias: bool = False) -> Graph:
    """A sum of two edges, of which the first has the bias."""
    return graph_of(
        (3,),
        Node(name="act", op=Relu(), inputs=("x",)),
        Node(name="first", op=Linear(out_features=4), inputs=("act",)),
        Node(name="second", op=Linear(out_features=4, bias=bias), inputs=("x",)),
        Node(name="total", op=Add(), inputs=("first", "second")),
        Node(name="head", op=Linear(out_features=2), inputs=("total",)),
    )


@pytest.mark.parametrize(
    ("graph", "edge", "source"),
    [
        (mlp(), AddEdge(source="x", target="head"), "x"),
        (mlp(), AddNode(source="x", target="head", width=3), "node_1.act"),
        (residual_convnet(), AddEdge(source="x", target="act", kernel_size=1), "edge_1"),
        (residual_convnet(), AddNode(source="x", target="act", width=2), "node_1.act"),
        (residual_convnet(), AddEdge(source="x", target="head", pool="global_avg"), "x"),
    ],
)
def test_what_an_edge_adds_is_taken_out_whole(graph: Graph, edge: AddEdge | AddNode, source: str) -> None:
    before = random_network(graph)
    grown = before.apply(edge)
    removal = RemoveEdge(source=source, target=edge.target)
    assert all(change < 1e-9 for change in grown.measure(removal).values())
    after = grown.apply(removal)
    batch = random_batch(graph)
    assert all(close(a, b) for a, b in zip(outputs(before, batch), outputs(after, batch), strict=True))
    assert after.arrays.keys() == before.arrays.keys()
    sums = [node for node in after.graph.nodes if node.name not in graph]
    assert [node.inputs for node in sums] in ([], [("head",)])


def test_the_bias_moves_to_the_other_edge() -> None:
    graph = state()
    done = RemoveEdge(source="act", target="total").rewrite(graph)
    assert done.preserves is Preserves.APPROXIMATE
    assert done.created == ()
    assert [node.name for node in done.graph.nodes] == ["second", "total", "head"]
    assert Rename("first.bias", "second.bias") in done.edits
    assert done.graph["second"].tied == {}
    before = random_network(graph)
    before = before.with_arrays({"first.weight": np.zeros((4, 3))})
    after = before.apply(RemoveEdge(source="act", target="total"))
    batch = random_batch(graph)
    assert all(close(a, b) for a, b in zip(outputs(before, batch), outputs(after, batch), strict=True))
    moments = carry_optimizer(done.edits, {"first.bias": {"exp_avg": np.arange(4.0)}}, NUMPY)
    assert moments["second.bias"]["exp_avg"].tolist() == [0, 1, 2, 3]


def test_what_an_edge_adds_is_measured() -> None:
    network = random_network(state())
    step = RemoveEdge(source="first", target="total")
    assert network.measure(step)["head"] > 0.01
    with pytest.raises(
        PassRefused, match=r"remove_edge: output 'head' changed by .* although at most 0.001 is allowed"
    ):
        network.apply(step, verify=1e-3)


def test_a_bias_stays_with_the_edge_that_has_its_own() -> None:
    done = RemoveEdge(source="first", target="total").rewrite(state(bias=True))
    assert "second" in done.graph
    assert done.created == ()
    assert not any(isinstance(edit, Rename) for edit in done.edits)


def test_a_frozen_bias_stays_frozen() -> None:
    graph = state()
    nodes = [n.model_copy(update={"frozen": ("bias",)}) if n.name == "first" else n for n in graph.nodes]
    done = RemoveEdge(source="first", target="total").rewrite(graph.replace(nodes=nodes))
    assert done.graph["second"].frozen == ("bias",)


def test_a_bias_that_others_share_stays_shared() -> None:
    graph = state()
    other = Node(name="other", op=Linear(out_features=4), inputs=("x",), tied={"bias": "first.bias"})
    graph = graph.replace(nodes=[*graph.nodes, other], outputs=("head", "other"))
    done = RemoveEdge(source="first", target="total").rewrite(graph)
    assert done.graph["second"].tied == {}
    assert done.graph["other"].tied == {"bias": "second.bias"}
    keys = random_network(graph).apply(RemoveEdge(source="first", target="total")).arrays.keys()
    assert keys == {"second.weight", "second.bias", "other.weight", "head.weight", "head.bias"}


def test_a_bias_that_no_edge_can_take_becomes_a_node() -> None:
    graph = graph_of(
        (3, 4, 4),
        Node(name="first", op=Conv2d(out_channels=3, kernel_size=1), inputs=("x",)),
        Node(name="total", op=Add(), inputs=("x", "first")),
        Node(name="head", op=Relu(), inputs=("total",)),
    )
    before = random_network(graph)
    before = before.with_arrays({"first.weight": np.zeros((3, 3, 1, 1))})
    after = before.apply(RemoveEdge(source="first", target="head"))
    assert after.graph["bias_1"].op == Bias(features=3, dims=2)
    assert after.graph["total"].inputs == ("x", "bias_1")
    batch = random_batch(graph)
    assert all(close(a, b) for a, b in zip(outputs(before, batch), outputs(after, batch), strict=True))


def test_what_others_read_stays() -> None:
    done = RemoveEdge(source="stem", target="sum").rewrite(residual_convnet())
    assert "stem" in done.graph
    assert done.graph["sum"].inputs == ("block.norm",)
    assert done.created == ()
    done = RemoveEdge(source="block.norm", target="sum").rewrite(residual_convnet())
    assert not {"block.norm", "block.conv"} & set(done.graph.by_name)
    assert {edit.key for edit in done.edits} == {  # type: ignore[union-attr]
        "block.conv.weight", "block.norm.weight", "block.norm.bias", "block.norm.running_mean",
        "block.norm.running_var", "block.norm.num_batches_tracked",
    }  # fmt: skip


def test_what_a_dead_end_reads_stays() -> None:
    graph = state()
    dead = Node(name="dead", op=Relu(), inputs=("second",))
    done = RemoveEdge(source="second", target="total").rewrite(graph.replace(nodes=[*graph.nodes, dead]))
    assert "second" in done.graph


def test_one_of_two_equal_operands() -> None:
    graph = graph_of((3,), Node(name="head", op=Add(), inputs=("x", "x")))
    assert RemoveEdge(source="x", target="head").rewrite(graph).graph["head"].inputs == ("x",)


def test_a_dropout_that_goes_is_told() -> None:
    graph = graph_of(
        (3,),
        Node(name="drop", op=Dropout(), inputs=("x",)),
        Node(name="norm", op=LayerNorm(), inputs=("x",)),
        Node(name="head", op=Add(), inputs=("drop", "norm")),
    )
    assert RemoveEdge(source="drop", target="head").rewrite(graph).preserves is Preserves.APPROXIMATE


def wide() -> Graph:
    return graph_of(
        (3, 4, 4),
        Node(name="a", op=Conv2d(out_channels=3, kernel_size=1), inputs=("x",)),
        Node(name="b", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("x",)),
        Node(name="norm", op=BatchNorm(), inputs=("b",)),
        Node(name="vector", op=Bias(features=3, dims=2), inputs=("x",)),
        Node(name="total", op=Add(), inputs=("a", "b", "norm", "vector")),
        Node(name="head", op=Add(), inputs=("norm", "vector")),
        outputs=("head", "total"),
    )


@pytest.mark.parametrize(
    ("graph", "source", "target", "says"),
    [
        (mlp(), "act1", "head", "target 'head': head is no sum of edges"),
        (state(), "x", "nothing", "target 'nothing' does not exist"),
        (state(), "firts", "total", "no edge leads from firts to total; its edges are: first from act, second from x."
         " Did you mean 'first'"),
        (state(), "head", "total", "no edge leads from head to total; its edges are: first from act, second from x."),
        (wide(), "x", "total", "2 edges lead from x to total; name one as source: a from x, b from x, norm"),
        (wide(), "norm", "head", r"what remains would be of shape \(N, 3, 1, 1\), but the state is \(N, 3, 4, 4\)"),
    ],
)  # fmt: skip
def test_refusals(graph: Graph, source: str, target: str, says: str) -> None:
    with pytest.raises(PassRefused, match=says):
        RemoveEdge(source=source, target=target).rewrite(graph)


def test_the_last_edge_stays() -> None:
    graph = AddEdge(source="x", target="head").rewrite(empty()).graph
    graph = RemoveEdge(source="x", target="sum_1").rewrite(graph).graph
    assert graph["sum_1"].inputs == ("head",)
    with pytest.raises(PassRefused, match="head cannot be taken out of sum_1: it is the last edge"):
        RemoveEdge(source="head", target="sum_1").rewrite(graph)
    assert not list(RemoveEdge.candidates(graph))
