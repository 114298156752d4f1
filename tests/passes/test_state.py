"""Where an edge arrives: what a target stands for, and what is made for it."""

from __future__ import annotations

import pytest

from growir.errors import PassRefused
from growir.graph import Graph, Input, Node
from growir.ops import Add, Bias, Dropout, Flatten, Linear, Relu
from growir.passes import AddEdge, AddNode, EliminateDead
from growir.passes.link import connectable
from growir.passes.state import State, find_state
from growir.rewrite import Preserves
from growir.shapes import shapes_of
from growir.testing import assert_preserves
from growir.verify import verify
from tests.samples import empty, graph_of, mlp


def summed() -> Graph:
    return graph_of(
        (3,),
        Node(name="a", op=Linear(out_features=4), inputs=("x",)),
        Node(name="b", op=Linear(out_features=4), inputs=("x",)),
        Node(name="total", op=Add(), inputs=("a", "b")),
        Node(name="act", op=Relu(), inputs=("total",)),
        Node(name="head", op=Linear(out_features=2), inputs=("act",)),
    )


@pytest.mark.parametrize(("target", "state"), [("total", "total"), ("a", "total"), ("b", "total"), ("act", "total")])
def test_names_of_one_state(target: str, state: str) -> None:
    found = find_state(summed(), target)
    assert (found.node, found.add) == (state, True)


@pytest.mark.parametrize(("target", "state"), [("act1", "fc1"), ("fc1", "fc1"), ("head", "head")])
def test_anything_else_is_wrapped(target: str, state: str) -> None:
    found = find_state(mlp(), target)
    assert (found.node, found.add) == (state, False)


def test_wrapping_repoints_consumers_and_outputs() -> None:
    graph = graph_of(
        (3,),
        Node(name="start", op=Relu(), inputs=("x",)),
        Node(name="head", op=Linear(out_features=2), inputs=("start",)),
        outputs=("head", "start"),
    )
    done = AddEdge(source="x", target="start").rewrite(graph)
    assert done.graph.outputs == ("head", "sum_1")
    assert done.graph["head"].inputs == ("sum_1",)
    assert done.graph["sum_1"].inputs == ("start", "edge_1")


def test_the_empty_graph_gets_its_first_edge() -> None:
    done = AddEdge(source="x", target="head").rewrite(empty())
    assert done.created == ("edge_1", "sum_1")
    assert [node.name for node in done.graph.nodes] == ["head", "edge_1", "sum_1"]
    assert done.graph["sum_1"].inputs == ("head", "edge_1")
    assert done.graph.outputs == ("sum_1",)
    again = AddNode(source="x", target="head", width=2).rewrite(done.graph)
    assert again.created == ("node_1.linear", "node_1.act", "edge_2")
    assert again.graph["sum_1"].inputs == ("head", "edge_1", "edge_2")


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("x", "heed", "target 'heed' does not exist. Did you mean 'head'?"),
        ("y", "head", "source 'y' does not exist"),
        ("x", "x", "is a graph input and has no state to feed"),
        ("act1", "fc1", "would make a cycle: act1 depends on it"),
        ("x", "fc1", "fc1 already leads from x to fc1"),
    ],
)
def test_refusals(source: str, target: str, says: str) -> None:
    with pytest.raises(PassRefused) as error:
        AddEdge(source=source, target=target).rewrite(mlp())
    assert says in str(error.value)


def test_shapes_that_no_linear_layer_joins() -> None:
    graph = graph_of(
        (2, 3),
        Node(name="flat", op=Flatten(), inputs=("x",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )
    with pytest.raises(PassRefused, match=r"x is \(N, 2, 3\) and head is \(N, 2\)"):
        AddEdge(source="x", target="head").rewrite(graph)


def test_integers_take_no_part() -> None:
    ids = Input(name="ids", shape=("N", 3), dtype="int64")
    nodes = (Node(name="flat", op=Flatten(), inputs=("ids",)), Node(name="head", op=Bias(features=3), inputs=("flat",)))
    graph = verify(Graph(inputs=(ids, Input(name="x", shape=("N", 3))), nodes=nodes, outputs=("head",)))
    assert [(step.source, step.target) for step in AddEdge.candidates(graph)] == [("x", "head")]
    with pytest.raises(PassRefused, match="source 'ids' holds int64"):
        AddEdge(source="ids", target="head").rewrite(graph)
    with pytest.raises(PassRefused, match="target 'flat' holds int64"):
        AddEdge(source="x", target="flat").rewrite(graph)


def test_an_unknown_activation() -> None:
    with pytest.raises(PassRefused, match="Did you mean 'relu'"):
        AddNode(source="x", target="head", width=1, activation="rellu").rewrite(empty())


def test_a_tensor_moves_to_the_user_that_now_comes_first() -> None:
    """The new edge puts `late`, a user of `owner`'s weight, before `owner`."""
    graph = graph_of(
        (3,),
        Node(name="start", op=Relu(), inputs=("x",)),
        Node(name="owner", op=Linear(out_features=3), inputs=("start",)),
        Node(name="late", op=Linear(out_features=3), inputs=("x",), tied={"weight": "owner.weight"}),
        Node(name="head", op=Add(), inputs=("owner", "late")),
    )
    done = AddEdge(source="late", target="start").rewrite(graph)
    names = [node.name for node in done.graph.nodes]
    assert names.index("late") < names.index("owner")
    assert done.graph["late"].tied == {}
    assert done.graph["owner"].tied == {"weight": "late.weight"}
    assert shapes_of(done.graph)["head"].dims == ("N", 3)


def test_a_tensor_that_moves_stays_frozen() -> None:
    """The owner stays, behind a new first user, or goes; either way it is said at the new owner, and only there."""
    graph = graph_of(
        (3,),
        Node(name="start", op=Relu(), inputs=("x",)),
        Node(name="owner", op=Linear(out_features=3), inputs=("start",), frozen=("bias", "weight")),
        Node(name="late", op=Linear(out_features=3), inputs=("x",), tied={"weight": "owner.weight"}),
        Node(name="head", op=Add(), inputs=("owner", "late")),
    )
    done = AddEdge(source="late", target="start").rewrite(graph).graph
    assert (done["late"].frozen, done["owner"].frozen) == (("weight",), ("bias",))
    gone = EliminateDead().rewrite(graph.replace(outputs=("late",))).graph
    assert [node.frozen for node in gone.nodes] == [("weight",)]


def test_dropouts_that_change_places_are_told() -> None:
    """The new edge puts `second` before `first`, so in train mode they swap their random numbers."""
    graph = graph_of(
        (3,),
        Node(name="start", op=Relu(), inputs=("x",)),
        Node(name="first", op=Dropout(), inputs=("start",)),
        Node(name="second", op=Dropout(), inputs=("x",)),
        Node(name="head", op=Add(), inputs=("first", "second")),
    )
    step = AddEdge(source="second", target="start")
    assert step.rewrite(graph).preserves is Preserves.EVAL
    assert AddEdge(source="x", target="start").rewrite(graph).preserves is Preserves.EXACT
    assert_preserves(step, graph)


def test_connections_are_found_one_at_a_time() -> None:
    graph = summed()
    found = connectable(graph)
    assert next(found) == ("x", State("total", add=True), {})
    assert [value for value, state, _ in (next(found), next(found)) if state.node == "total"] == ["a", "b"]


def test_every_connection_is_found_that_makes_no_cycle() -> None:
    graph = graph_of(
        (3,),
        Node(name="flat", op=Flatten(), inputs=("x",)),
        Node(name="a", op=Linear(out_features=4), inputs=("flat",)),
        Node(name="head", op=Linear(out_features=2), inputs=("a",)),
    )
    found = [(value, state.node) for value, state, _ in connectable(graph)]
    assert found == [("x", "flat"), ("x", "a"), ("flat", "a"), ("x", "head"), ("flat", "head"), ("a", "head")]
