"""What pictures say of nodes that growth made, widened, split, pruned or made longer."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

import growir.replay
from growir.graph import Graph, Node
from growir.network import load_graph
from growir.ops import Add, Linear
from growir.passes import AddEdge, AddNode, Extend, Prune, Sequence, Split, Widen
from growir.render import MAX_BOXES, Mark, collapse, draw, growth_marks
from growir.render.marks import gathered
from growir.rewrite import Pass
from tests.cli.command import GOLDEN
from tests.samples import graph_of, mlp, residual_convnet


def after(graph: Graph, *steps: Pass) -> Graph:
    for step in steps:
        graph = step.rewrite(graph).graph
    return graph


def texts(graph: Graph) -> dict[str, str]:
    return {name: mark.text for name, mark in growth_marks(graph).items()}


def test_units_by_step_of_every_pass_that_changes_a_width() -> None:
    graph = after(
        mlp(),
        Widen(node="fc1", by=23),
        Split(node="fc1", channels=(0, 1)),
        Prune(node="fc1", channels=(4,)),
    )
    assert texts(graph) == {"fc1": "+23 in step 1, +2 in step 2, -1 in step 3"}
    assert {mark.kind for mark in growth_marks(graph).values()} == {"resized"}


def test_all_nodes_whose_width_it_was() -> None:
    graph = load_graph(GOLDEN / "inspect" / "residual.json")
    # The sum makes their widths one; the norm and the activation between follow and have no width of their own.
    assert set(texts(after(graph, Widen(node="stem", by=4)))) == {"stem", "block.conv", "mix", "again"}


def test_a_node_that_only_follows_is_not_resized() -> None:
    nodes = [
        {"name": "fc", "op": "linear", "inputs": ["x"], "out_features": 6},
        {"name": "fold", "op": "reshape", "inputs": ["fc"], "shape": [2, 3]},
        {"name": "flat", "op": "flatten", "inputs": ["fold"]},
        {"name": "head", "op": "linear", "inputs": ["flat"], "out_features": 2},
    ]
    inputs = [{"name": "x", "shape": ["N", 4]}]
    graph = load_graph({"schema": "growir/1", "inputs": inputs, "nodes": nodes, "outputs": ["head"]})
    wider = after(graph, Widen(node="fc", by=4))
    assert wider["fold"].op != graph["fold"].op
    assert texts(wider) == {"fc": "+4 in step 1"}


def test_outputs_that_became_longer_and_steps_within_a_step() -> None:
    graph = after(mlp(), Extend(node="head", by=2))
    assert texts(graph) == {"head": "+2 in step 1"}
    both = Sequence(passes=(Widen(node="fc1", by=2), Widen(node="fc1", by=3)))
    assert texts(after(mlp(), both)) == {"fc1": "+5 in step 1"}


def test_a_node_that_was_made_and_widened_says_both() -> None:
    graph = after(mlp(), AddNode(source="x", target="head", width=2), *[Widen(node="node_1.linear", by=3)] * 2)
    assert texts(graph)["node_1.linear"] == "new in step 1: add_node; +3 in step 2, +3 in step 3"
    assert growth_marks(graph)["node_1.linear"].kind == "new"
    assert texts(graph)["node_1.act"] == "new in step 1: add_node"
    shown = [element.text for element in ET.fromstring(draw(graph)).iter() if element.attrib.get("class") == "mark"]
    assert shown.count("new in step 1: add_node") == 4
    assert shown.count("+3 in step 2, +3 in step 3") == 1


def test_many_steps_are_wrapped_and_then_summed_up() -> None:
    graph = after(mlp(), *[Widen(node="fc1", by=10)] * 4)
    told = "+10 in step 1, +10 in step 2, +10 in step 3, +10 in step 4"
    assert texts(graph) == {"fc1": told}
    shown = [element.text for element in ET.fromstring(draw(graph)).iter() if element.attrib.get("class") == "mark"]
    assert shown == ["+10 in step 1, +10 in step 2,", "+10 in step 3, +10 in step 4"]
    graph = after(graph, Prune(node="fc1", channels=(0,)))
    assert texts(graph) == {"fc1": "+39 in 5 steps, 1 to 5"}


def test_nodes_that_are_gone_and_graphs_without_history_have_no_marks() -> None:
    assert growth_marks(mlp()) == {}
    grown = after(mlp(), Widen(node="fc1", by=2))
    assert growth_marks(grown.replace(history=None)) == {}


def test_a_history_that_would_take_long_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = after(mlp(), AddNode(source="x", target="head", width=2), Widen(node="fc1", by=2))
    assert "fc1" in growth_marks(graph)
    monkeypatch.setattr(growir.replay, "MAX_CHECKED", 0)
    assert set(growth_marks(graph)) == {"node_1.linear", "node_1.act", "edge_1", "sum_1"}


def test_the_box_of_a_module_says_what_was_done_to_few_nodes_and_counts_many() -> None:
    graph = after(residual_convnet(), Widen(node="stem", by=2))
    box = next(box for box in collapse(graph, 7, growth_marks(graph)).boxes if box.label == "block")
    assert box.mark == Mark("resized", "conv +2 in step 1")
    new, resized, removed = Mark("new", "new in step 1"), Mark("resized", "+4 in step 2"), Mark("removed", "removed")
    wider = Mark("new", "new in step 1; +4 in step 2")
    three = {"m.a": new, "m.b": resized, "m.c": wider}
    told = "a new in step 1; b +4 in step 2; c new in step 1, +4 in step 2"
    assert gathered(three, 5, "m") == Mark("new", told)
    assert gathered({**three, "m.d": resized}, 5) == Mark("new", "2 new, 2 resized, of 5 nodes")
    assert gathered({"a": resized, "b": resized}, 5) == Mark("resized", "a +4 in step 2; b +4 in step 2")
    assert gathered({"a": new, "b": new}, 2) == new
    assert gathered({"a": wider, "b": new}, 2) == wider
    assert gathered({"a": wider, "b": Mark("new", "new in step 3")}, 2) == Mark(
        "new", "a new in step 1, +4 in step 2; b new in step 3"
    )
    assert gathered({"a": new, "b": new}, 3) == Mark("new", "a new in step 1; b new in step 1")
    assert gathered({"a": removed, "b": removed}, 2) == removed
    assert gathered({"a": removed, "b": Mark("changed", "d")}, 2) == Mark("changed", "1 removed, 1 changed, of 2 nodes")
    assert gathered({"a": removed, "b": removed}, 3) == Mark("changed", "2 removed, of 3 nodes")
    assert gathered({}, 3) is None


def test_what_made_a_node_inside_a_sequence_is_named() -> None:
    node = AddNode(source="x", target="head", width=2)
    graph = after(mlp(), Widen(node="fc1", by=1), Sequence(passes=(node, Widen(node="fc1", by=2))))
    assert texts(graph)["node_1.act"] == "new in step 2: add_node"
    within = Sequence(passes=(Sequence(passes=(node,)), AddEdge(source="x", target="head")))
    found = texts(after(mlp(), within))
    assert set(found.values()) == {"new in step 1: add_node, add_edge"}


def test_no_two_boxes_have_one_title() -> None:
    """Of an input and a graph of one name, and of nodes whose names differ in the middle that is left out."""
    assert [box.label for box in collapse(mlp().replace(name="x"), 2).boxes] == ["x (1 of 2)", "x (2 of 2)"]
    names = [f"a_module_of_long_name.{k}.another_module_of_long_name.linear" for k in (17, 18)]
    layers = [Node(name=name, op=Linear(out_features=4), inputs=("x",)) for name in names]
    graph = graph_of((4,), *layers, Node(name="head", op=Add(), inputs=tuple(names)))
    shown = [element.text for element in ET.fromstring(draw(graph)).iter() if element.attrib.get("class") == "name"]
    assert [*shown[:1], *shown[-1:]] == ["x", "head"]
    assert len(set(shown)) == 4
    assert all(title is not None and "…" in title for title in shown[1:3])


def test_titles_that_differ_where_even_a_long_one_is_cut_are_numbered() -> None:
    far = [f"{'a' * 40}.m{k}.{'b' * 60}" for k in (1, 2)]
    layers = [Node(name=name, op=Linear(out_features=4), inputs=("x",)) for name in far]
    graph = graph_of((4,), *layers, Node(name="head", op=Add(), inputs=tuple(far)))
    shown = [element.text for element in ET.fromstring(draw(graph)).iter() if element.attrib.get("class") == "name"]
    assert shown[1:3] == [f"{'a' * 27}…{'b' * 56} ({k} of 2)" for k in (1, 2)]


def test_the_legend_explains_marks() -> None:
    graph = after(mlp(), AddNode(source="x", target="head", width=2), Widen(node="fc1", by=2))
    words = [element.text for element in ET.fromstring(draw(graph, limit=MAX_BOXES)).iter()]
    assert {"new", "resized"} <= set(words)
    assert "resized" not in [element.text for element in ET.fromstring(draw(mlp())).iter()]
