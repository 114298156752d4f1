"""A graph as growth sees it: states, edges through carriers, which values reach which, and twins."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

import growir
from growir.errors import PassRefused
from growir.graph import Graph
from growir.growth.budget import Budget, BudgetConfig
from growir.growth.measure.section import constants_of
from growir.growth.policies.dag.additions import addition, twin_of
from growir.growth.policies.dag.moves import Moves
from growir.growth.policies.dag.settings import DagConfig
from growir.growth.policies.dag.states import Reach, StateView, fed_by, is_output, states_of, widenable
from growir.ops import Conv2d, Flatten, Linear, MaxPool2d
from growir.passes import AddEdge, AddNode, Widen
from growir.passes.state import descendants
from growir.rewrite import Pass

Nodes = list[dict[str, Any]]


def node(name: str, op: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "inputs": list(inputs), **attributes}


def conv(name: str, source: str, channels: int, kernel: int = 3) -> dict[str, Any]:
    return node(name, "conv2d", source, out_channels=channels, kernel_size=kernel, padding=kernel // 2)


def linear(name: str, source: str, width: int) -> dict[str, Any]:
    return node(name, "linear", source, out_features=width)


def graph_of(nodes: Nodes, output: str = "o", sample: Sequence[int] = (2, 8, 8)) -> Graph:
    inputs = [{"name": "x", "shape": ["N", *sample]}]
    return growir.load_graph({"schema": "growir/1", "inputs": inputs, "nodes": nodes, "outputs": [output]})


# Images into two maps, pooled in between, and into a vector.
MAPS: Nodes = [
    conv("a", "x", 3),
    node("ra", "relu", "a"),
    node("p", "max_pool2d", "ra", kernel_size=2),
    conv("b", "p", 4),
    node("rb", "tanh", "b"),
    node("q", "max_pool2d", "rb", kernel_size=2),
    node("f", "flatten", "q"),
    linear("o", "f", 2),
]
EMPTY: Nodes = [node("f", "flatten", "x"), node("o", "bias", "f", features=2)]


def states(graph: Graph) -> dict[str, StateView]:
    return {state.node: state for state in states_of(graph)}


# -- states and edges -------------------------------------------------------------------------------------------------


def test_edges_are_seen_through_what_carries_a_map_to_them() -> None:
    found = states(graph_of(MAPS))
    assert list(found) == ["a", "b", "o"]
    assert [(s.post, s.bias, s.width, s.shape.sizes[1:]) for s in found.values()] == [
        ("ra", "a.bias", 3, (8, 8)),
        ("rb", "b.bias", 4, (4, 4)),
        (None, "o.bias", 2, ()),
    ]
    (first,), (second,), (last,) = (state.edges for state in found.values())
    assert (first.source, first.value, first.carriers) == ("x", "x", ())
    assert (second.source, second.value, second.carriers) == ("p", "ra", (MaxPool2d(kernel_size=2),))
    assert (last.source, last.value, last.carriers) == ("f", "rb", (MaxPool2d(kernel_size=2), Flatten()))
    assert [edge.shape.sizes for edge in (first, second, last)] == [(2, 8, 8), (3, 8, 8), (4, 4, 4)]
    assert [type(edge.op) for edge in (first, second, last)] == [Conv2d, Conv2d, Linear]
    assert [(s.node, e.name) for s, e in fed_by(found.values(), "ra")] == [("b", "b")]


def test_map_states_between_edges_that_growth_knows_are_wider() -> None:
    graph = graph_of(MAPS)
    found = states_of(graph)
    assert [widenable(graph, found, state) for state in found] == [True, True, False]
    assert [is_output(graph, state) for state in found] == [False, False, True]


REFUSED: dict[str, Nodes] = {
    "something else reads it": [*MAPS[:2], node("p", "add", "ra", "x"), *MAPS[3:]],
    "nothing reads it": [*MAPS[:5], node("f", "flatten", "x"), linear("o", "f", 2)],
    "a depthwise layer reads it": [*MAPS[:2], node("p", "conv2d", "ra", depthwise=True, kernel_size=3), *MAPS[3:]],
    "a norm reads it": [*MAPS[:2], node("p", "batch_norm", "ra"), *MAPS[3:]],
    "half of it is read": [*MAPS[:2], node("p", "select", "ra", indices=[0, 1]), *MAPS[3:]],
}


@pytest.mark.parametrize("name", REFUSED)
def test_map_states_with_weights_elsewhere_are_not_wider(name: str) -> None:
    nodes = [conv("a", "x", 2), *REFUSED[name][1:]] if name == "something else reads it" else REFUSED[name]
    graph = graph_of(nodes)
    state = states(graph).get("a")
    assert state is None or not widenable(graph, states_of(graph), state)


def test_a_linear_layer_over_the_last_axis_of_a_map_is_no_edge() -> None:
    over = [linear("a", "x", 8), node("r", "relu", "a"), conv("b", "x", 2), node("s", "add", "r", "b")]
    end = [node("t", "relu", "s"), node("f", "flatten", "t"), linear("o", "f", 2)]
    found = states(graph_of([*over, *end]))
    assert list(found) == ["s", "o"]
    assert [edge.name for edge in found["s"].edges] == ["b"]
    assert found["s"].bias == "b.bias"


def test_constants_are_what_no_parameter_touches() -> None:
    nodes = [
        node("n", "standardise", "x", dims=0),
        node("d", "dropout", "n"),
        conv("a", "n", 3),
        node("m", "max_pool2d", "n", kernel_size=2),
        node("k", "relu", "a"),
        node("f", "flatten", "m"),
        node("g", "flatten", "k"),
        node("h", "flatten", "d"),
        node("c", "concat", "f", "g", "h", dim=1),
        linear("o", "c", 2),
    ]
    assert sorted(constants_of(graph_of(nodes))) == ["f", "m", "n", "x"]


# -- reach ------------------------------------------------------------------------------------------------------------


def growths(rng: random.Random, graph: Graph) -> Pass | None:
    """Any growth that the graph takes, or none if sixty draws found none."""
    names = [entry.name for entry in graph.inputs] + [n.name for n in graph.nodes]
    for _ in range(60):
        source, target = rng.choice(names), rng.choice(names)
        kernel: dict[str, Any] = rng.choice([{}, {"kernel_size": 3}, {"pool": "flatten"}])
        step: Pass = rng.choice(
            [
                AddEdge(source=source, target=target, **kernel),
                AddNode(source=source, target=target, width=rng.randint(1, 3), **kernel),
                Widen(node=source, by=1),
            ]
        )
        try:
            step.rewrite(graph)
        except PassRefused:
            continue
        return step
    return None


@pytest.mark.parametrize("nodes", [MAPS, EMPTY], ids=["maps", "empty"])
def test_reach_follows_every_growth(nodes: Nodes) -> None:
    wrapped = grown = 0
    for seed in range(12):
        rng, graph, reach = random.Random(seed), graph_of(nodes), Reach()
        reach.follow(graph)
        for _ in range(12):
            step = growths(rng, graph)
            if step is None:
                continue
            done = step.rewrite(graph)
            # A state that was one layer becomes a sum, and all that read it reads the sum.
            wrapped += any(name.startswith("sum_") for name in done.created)
            graph, grown = done.graph, grown + 1
            if rng.random() < 0.3:
                continue  # it may also take up several growths at once
            reach.follow(graph)
            behind = {name: descendants(graph, name) for name in [*graph.by_name, "x"]}
            assert all(reach.depends(a, b) == (a in behind[b]) for a in behind for b in behind)
    assert grown > 100
    assert wrapped > 10


# -- twins ------------------------------------------------------------------------------------------------------------


def twin(graph: Graph, step: AddNode) -> str | None:
    found = twin_of(addition(step, step.rewrite(graph), states_of(graph)), graph, states_of(graph))
    return None if found is None else found.post


def test_a_state_of_the_same_source_activation_and_target_is_a_twin() -> None:
    graph = AddNode(source="f", target="o", width=3).rewrite(graph_of(EMPTY)).graph
    assert twin(graph, AddNode(source="f", target="o", width=5)) == "node_1.act"
    assert twin(graph, AddNode(source="f", target="o", width=5, activation="tanh")) is None
    assert twin(graph, AddNode(source="node_1.act", target="o", width=5)) is None
    assert twin(graph, AddNode(source="f", target="node_1.act", width=5)) is None


def test_a_state_that_feeds_or_reads_more_is_no_twin() -> None:
    graph = AddNode(source="f", target="o", width=3).rewrite(graph_of(EMPTY)).graph
    graph = AddNode(source="node_1.act", target="o", width=3).rewrite(graph).graph
    assert twin(graph, AddNode(source="f", target="o", width=5)) is None  # node_1 feeds node_2 as well
    assert twin(graph, AddNode(source="node_1.act", target="o", width=5)) == "node_2.act"
    graph = AddEdge(source="f", target="node_2.act").rewrite(graph).graph
    assert twin(graph, AddNode(source="node_1.act", target="o", width=5)) is None


TO_VECTOR: dict[str, Any] = {"kernel_size": 3, "out_pool": "max", "out_stride": 2}


def test_a_map_of_the_same_kernel_and_pool_is_a_twin() -> None:
    def step(**fields: Any) -> AddNode:
        return AddNode.model_validate({"source": "x", "target": "o", "width": 3, **TO_VECTOR, **fields})

    graph = step().rewrite(graph_of(EMPTY)).graph
    assert twin(graph, step(width=5)) == "node_1.act"
    for other in (
        {"kernel_size": 5},
        {"out_stride": 4},
        {"out_pool": "flatten", "out_stride": 1},
        {"out_pool": "avg"},
        {"pool": "max", "stride": 2},
        {"activation": "gelu"},
    ):
        assert twin(graph, step(**other)) is None, other


def test_a_map_between_maps_has_a_twin_of_the_same_kernel() -> None:
    def step(kernel: int) -> AddNode:
        return AddNode(source="ra", target="a2", width=2, kernel_size=kernel)

    nodes = [*MAPS[:2], conv("a2", "ra", 3), node("rc", "relu", "a2"), *MAPS[2:]]
    nodes[4] = node("p", "max_pool2d", "rc", kernel_size=2)
    graph = step(3).rewrite(graph_of(nodes)).graph
    assert twin(graph, step(3)) == "node_1.act"
    assert twin(graph, step(5)) is None


def test_beside_a_state_that_cannot_be_wider_there_may_be_another() -> None:
    nodes = [linear("a", "x", 4), node("r", "relu", "a"), linear("o", "r", 4), node("s", "add", "o", "r")]
    graph = graph_of(nodes, "s", sample=(3,))
    moves = Moves(DagConfig(neurons=2)).moves(Budget(BudgetConfig(parameters=1000), graph))
    # What reads r beside o is a sum that has its width, so a new state is the only way to more neurons.
    step = AddNode(source="x", target="s", width=2)
    assert twin(graph, step) == "r"
    assert step in moves
    assert not any(isinstance(move, Widen) for move in moves)
