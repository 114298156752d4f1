"""The semantic difference of graphs and networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from growir.difference import Difference, Edges, diff
from growir.graph import Graph
from growir.network import Network
from growir.ops import Elu
from growir.passes import AddEdge, AddNode, Widen
from growir.verify import load

DOCUMENT: dict[str, Any] = {
    "schema": "growir/1",
    "inputs": [{"name": "x", "shape": ["N", 4]}],
    "nodes": [
        {"name": "fc1", "op": "linear", "inputs": ["x"], "out_features": 8},
        {"name": "act1", "op": "relu", "inputs": ["fc1"]},
        {"name": "fc2", "op": "linear", "inputs": ["x"], "out_features": 8},
        {"name": "cat", "op": "concat", "inputs": ["act1", "fc2", "fc1"]},
        {"name": "head", "op": "linear", "inputs": ["cat"], "out_features": 3},
    ],
    "outputs": ["head"],
}


def edited(change: Callable[[dict[str, Any]], object]) -> Graph:
    """The document after a change of its JSON."""
    data = json.loads(json.dumps(DOCUMENT))
    change(data)
    return load(data)


@pytest.fixture
def graph() -> Graph:
    return load(DOCUMENT)


def test_nothing(graph: Graph) -> None:
    found = diff(graph, load(DOCUMENT))
    assert found.same
    assert str(found).endswith("no difference")
    assert (found.added, found.removed, found.changed, found.passes) == ((), (), (), ())


def test_name_source_and_history_are_not_the_network(graph: Graph) -> None:
    def change(data: dict[str, Any]) -> None:
        data["name"] = "other"
        data["nodes"][0]["source"] = "model.layer1"

    found = diff(graph, edited(change))
    assert found.same
    assert "name graph -> other" in str(found)


def test_attributes_show_defaults_and_mark_widths(graph: Graph) -> None:
    found = diff(graph, edited(lambda d: d["nodes"][0].update(out_features=10, bias=False)))
    (change,) = found.changed
    assert [(f.name, f.before, f.after, f.width) for f in change.attributes] == [
        ("out_features", 8, 10, True),
        ("bias", True, False, False),
    ]
    assert "fc1  out_features 8 -> 10 (+2)" in str(found)


def test_attribute_set_to_none() -> None:
    def norm(**attributes: object) -> Graph:
        nodes = [{"name": "norm", "op": "batch_norm", "inputs": ["x"], **attributes}]
        return load({**DOCUMENT, "nodes": nodes, "outputs": ["norm"]})

    found = diff(norm(), norm(momentum=None))
    assert not found.same
    assert "norm  momentum 0.1 -> none" in str(found)


def test_kind(graph: Graph) -> None:
    found = diff(
        graph,
        graph.replace(
            nodes=[n.model_copy(update={"op": Elu(alpha=0.5)}) if n.name == "act1" else n for n in graph.nodes]
        ),
    )
    (change,) = found.changed
    assert change.kind is not None
    assert (change.kind.before, change.kind.after) == ("relu", "elu")
    assert [(f.name, f.before, f.after) for f in change.attributes] == [("alpha", None, 0.5)]


@pytest.mark.parametrize(
    ("inputs", "edges", "text"),
    [
        (["act1", "fc2"], Edges(removed=("fc1",)), "- fc1"),
        (["act1", "fc2", "fc1", "x"], Edges(added=("x",)), "+ x"),
        (["act1", "x", "fc1"], Edges(repointed=(("fc2", "x"),)), "fc2 -> x"),
        (["fc2", "act1", "fc1"], Edges(reordered=True), "in another order"),
        (["fc1", "act1"], Edges(removed=("fc2",), reordered=True), "- fc2, in another order"),
        (["act1", "fc2", "fc1", "fc1"], Edges(added=("fc1",)), "+ fc1"),
        (["act1", "act1", "fc1"], Edges(repointed=(("fc2", "act1"),)), "fc2 -> act1"),
        (["fc1", "act1", "x"], Edges(added=("x",), removed=("fc2",), reordered=True), "+ x, - fc2, in another order"),
    ],
)
def test_edges(graph: Graph, inputs: list[str], edges: Edges, text: str) -> None:
    found = diff(graph, edited(lambda d: d["nodes"][3].update(inputs=inputs)))
    (change,) = found.changed
    assert change.edges == edges
    assert f"  ~ cat  inputs {text}" in str(found).splitlines()


def test_tied(graph: Graph) -> None:
    found = diff(graph, edited(lambda d: d["nodes"][2].update(tied={"weight": "fc1.weight"})))
    (change,) = found.changed
    assert [(f.name, f.before, f.after) for f in change.tied] == [("weight", None, "fc1.weight")]
    assert 'fc2  tied weight none -> "fc1.weight"' in str(found)


def test_inputs_and_outputs(graph: Graph) -> None:
    found = diff(graph, edited(lambda d: d.update(outputs=["head", "act1"], inputs=[{"name": "x", "shape": ["N", 5]}])))
    assert found.outputs == (("head",), ("head", "act1"))
    assert "inputs x (N, 4) -> x (N, 5)" in str(found)


def test_order_alone(graph: Graph) -> None:
    def change(data: dict[str, Any]) -> None:
        data["nodes"][1], data["nodes"][2] = data["nodes"][2], data["nodes"][1]

    found = diff(graph, edited(change))
    assert found.reordered
    assert not found.same
    assert not found.changed
    assert "stand in another order" in str(found)


def test_nodes_come_and_go(graph: Graph) -> None:
    def change(data: dict[str, Any]) -> None:
        data["nodes"][1]["name"] = "act2"
        data["nodes"][3]["inputs"][0] = "act2"

    found = diff(graph, edited(change))
    assert [n.name for n in found.removed] == ["act1"]
    assert [n.name for n in found.added] == ["act2"]
    assert "  - act1  relu  <- fc1\n  + act2  relu  <- fc1\n" in str(found)


def test_passes_between(graph: Graph) -> None:
    steps = [Widen(node="fc2", by=2), AddEdge(source="x", target="head"), AddNode(source="x", target="head", width=2)]
    graphs = [graph]
    for step in steps:
        graphs.append(step.rewrite(graphs[-1]).graph)
    for i, a in enumerate(graphs):
        for j, b in enumerate(graphs):
            names = [step.kind for step in diff(a, b).passes]
            assert names == [step.name for step in steps[i:j]]
    # What a step says it created is what appeared.
    for a, b in pairwise(graphs):
        found = diff(a, b)
        assert {n.name for n in found.added} == set(found.passes[0].created)


def test_no_passes_from_elsewhere(graph: Graph) -> None:
    other = edited(lambda d: d["nodes"][1].update(op="tanh"))
    grown = AddEdge(source="x", target="head").rewrite(graph).graph
    assert diff(other, grown).passes == ()


def test_no_passes_between_branches(graph: Graph) -> None:
    wide = Widen(node="fc2", by=2).rewrite(graph).graph
    linked = AddEdge(source="x", target="head").rewrite(graph).graph
    both = Widen(node="fc2", by=2).rewrite(linked).graph
    assert diff(wide, both).passes == ()
    assert [step.kind for step in diff(linked, both).passes] == ["widen"]


class TestWeights:
    """Tensors are compared by sha256 where both sides have them."""

    @dataclass(frozen=True)
    class Anything:
        """Not a Network: whatever has a graph and arrays."""

        graph: Graph
        arrays: Mapping[str, NDArray[Any]]

    def difference(self, graph: Graph, **changes: NDArray[Any] | None) -> Difference:
        arrays = dict(Network.init(graph).arrays)
        other = {**arrays, **{key.replace("__", "."): value for key, value in changes.items()}}
        present = {key: value for key, value in other.items() if value is not None}
        return diff(self.Anything(graph, arrays), self.Anything(graph, present))

    def test_same(self, graph: Graph) -> None:
        found = self.difference(graph)
        assert found.same
        assert found.weights is not None
        assert found.weights.same == 6

    def test_numbers(self, graph: Graph) -> None:
        found = self.difference(graph, fc1__bias=np.ones(8, np.float32))
        assert not found.same
        assert found.weights is not None
        assert list(found.weights.changed) == ["fc1.bias"]
        assert "  ~ fc1.bias  [8]  sha256 " in str(found)

    def test_one_bit(self, graph: Graph) -> None:
        bias = np.array(Network.init(graph).arrays["fc1.bias"])
        bias[0] = np.nextafter(bias[0], np.float32(9))
        assert not self.difference(graph, fc1__bias=bias).same

    def test_shape(self, graph: Graph) -> None:
        assert "  ~ fc1.bias  [8] -> [9]  sha256 " in str(self.difference(graph, fc1__bias=np.ones(9, np.float32)))

    def test_dtype(self, graph: Graph) -> None:
        weights = Network.init(graph).arrays["fc1.bias"].astype(np.float64)
        assert not self.difference(graph, fc1__bias=weights).same

    def test_only_in_one(self, graph: Graph) -> None:
        found = self.difference(graph, fc1__bias=None, extra__bias=np.ones(2, np.float32))
        assert found.weights is not None
        assert (list(found.weights.removed), list(found.weights.added)) == (["fc1.bias"], ["extra.bias"])
        assert found.weights.same == 5

    def test_layout_in_memory_is_no_difference(self, graph: Graph) -> None:
        weight = np.asfortranarray(Network.init(graph).arrays["fc1.weight"])
        assert self.difference(graph, fc1__weight=weight).same

    def test_document_against_network(self, graph: Graph) -> None:
        found = diff(graph, Network.init(graph))
        assert found.same
        assert "not compared: only the second has any" in str(found)


def test_as_json(graph: Graph) -> None:
    other = edited(lambda d: d["nodes"][0].update(out_features=10))
    data = json.loads(json.dumps(diff(Network.init(graph), Network.init(other)).to_json()))
    assert data["changed"] == [{"name": "fc1", "attributes": {"out_features": [8, 10]}, "widths": ["out_features"]}]
    assert data["weights"]["changed"]["fc1.weight"][1]["shape"] == [10, 4]
    assert data["before"]["costs"]["parameters"] < data["after"]["costs"]["parameters"]
