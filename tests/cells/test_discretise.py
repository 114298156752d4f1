"""The pass that leaves one operation on each edge, and the strongest edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from growir import Graph, Network
from growir.cells import Template, cell, cells_of, genotype_of, network
from growir.errors import PassRefused
from growir.passes import Discretise, Sequence, Widen


def grown(graph: Graph, *, more: dict[str, int]) -> Graph:
    """The graph with so many more inner channels in these operations."""
    steps = [Widen(node=f"{module}.pointwise1", by=by) for module, by in more.items()]
    return Sequence(passes=tuple(steps)).rewrite(graph).graph if steps else graph


def stays(graph: Graph, **settings: object) -> list[tuple[int, int, str]]:
    """The edges that are left of the first cell."""
    left = Discretise.model_validate(settings).rewrite(graph).graph
    return [(each.source, each.target, each.operation) for each in cells_of(left)[0].edges]


PLAN = Template(nodes=2, operations=("skip_connect", "sep_conv_3x3", "dil_conv_3x3"), inner=2)


def test_the_largest_operation_wins_its_edge_and_the_identity_where_all_grew_little() -> None:
    graph = grown(
        cell(PLAN, "normal", (3, 8, 8)),
        more={
            "edge_0_2.dil_conv_3x3": 2,
            "edge_1_2.sep_conv_3x3": 1,
            "edge_2_3.sep_conv_3x3": 3,
            "edge_1_3.dil_conv_3x3": 2,
        },
    )
    assert stays(graph, threshold=3) == [
        (0, 2, "dil_conv_3x3"),
        (1, 2, "skip_connect"),
        (1, 3, "dil_conv_3x3"),
        (2, 3, "sep_conv_3x3"),
    ]
    assert stays(graph, threshold=2)[1] == (1, 2, "sep_conv_3x3")
    assert stays(graph, threshold=100) == [(k, n, "skip_connect") for k, n in ((0, 2), (1, 2), (1, 3), (2, 3))]
    assert stays(graph, threshold=3, inputs=1) == [(0, 2, "dil_conv_3x3"), (2, 3, "sep_conv_3x3")]


def test_of_equal_ones_the_first_stays() -> None:
    graph = cell(PLAN, "normal", (3, 8, 8))
    assert stays(graph) == [(k, n, "sep_conv_3x3") for k, n in ((0, 2), (1, 2), (0, 3), (1, 3))]


def test_an_edge_without_an_identity_keeps_its_largest_operation() -> None:
    plan = Template(nodes=1, operations=("sep_conv_3x3", "dil_conv_3x3"), inner=2)
    graph = grown(cell(plan, "normal", (3, 8, 8)), more={"edge_0_2.dil_conv_3x3": 1})
    assert stays(graph, threshold=50) == [(0, 2, "dil_conv_3x3"), (1, 2, "sep_conv_3x3")]


def test_the_identity_goes_before_a_pool() -> None:
    plan = Template(nodes=1, operations=("max_pool_3x3", "skip_connect", "sep_conv_3x3"), inner=2)
    assert stays(cell(plan, "normal", (3, 8, 8)), threshold=9) == [(0, 2, "skip_connect"), (1, 2, "skip_connect")]
    plan = Template(nodes=1, operations=("avg_pool_3x3", "sep_conv_3x3"), inner=2)
    assert stays(cell(plan, "normal", (3, 8, 8)), threshold=9) == [(0, 2, "avg_pool_3x3"), (1, 2, "avg_pool_3x3")]


def test_cells_of_a_kind_keep_what_is_largest_in_their_mean() -> None:
    graph = network(PLAN, (3, 8, 8), 2, cells=3, width=2, reductions=[1])
    graph = grown(
        graph,
        more={
            "normal.0.edge_0_2.dil_conv_3x3": 1,
            "normal.2.edge_0_2.sep_conv_3x3": 3,
            "reduce.1.edge_0_2.dil_conv_3x3": 1,
        },
    )
    left = Discretise().rewrite(graph).graph
    for at in cells_of(left):
        expected = "dil_conv_3x3" if at.kind == "reduce" else "sep_conv_3x3"
        assert next(each.operation for each in at.edges if (each.source, each.target) == (0, 2)) == expected
    assert genotype_of(left).normal[0] == ("sep_conv_3x3", 0)


@pytest.mark.slow
def test_what_stays_computes_what_it_did() -> None:
    network_ = Network.init(network(PLAN, (3, 8, 8), 2, cells=3, width=2), 0)
    left = network_.apply(Discretise(threshold=1))
    assert set(left.arrays) < set(network_.arrays)
    assert all(np.array_equal(left.arrays[key], network_.arrays[key]) for key in left.arrays)
    module = "normal.0.edge_0_2.sep_conv_3x3"
    x = torch.randn(2, 3, 8, 8)
    before, after = (n.graph.replace(outputs=(f"{module}.norm2",), history=None) for n in (network_, left))
    values = [
        Network(graph, {k: a for k, a in n.arrays.items() if k in Network.init(graph).arrays})
        for graph, n in ((before, network_), (after, left))
    ]
    torch.testing.assert_close(values[0].to_torch().eval()(x), values[1].to_torch().eval()(x))


def test_history_says_what_was_chosen_and_replays() -> None:
    network_ = Network.init(network(PLAN, (3, 8, 8), 2, cells=3, width=2), 0)
    left = network_.apply(Discretise(threshold=1))
    assert left.graph.history is not None
    (step,) = left.graph.history.steps
    assert "normal.0.edge_0_2.sep_conv_3x3" in step.fields["operations"]
    assert left.replayed().graph.hash == left.graph.hash


def test_operations_may_be_named() -> None:
    graph = cell(PLAN, "normal", (3, 8, 8))
    wanted = ("edge_0_2.skip_connect", "edge_1_3.dil_conv_3x3")
    assert stays(graph, operations=wanted) == [(0, 2, "skip_connect"), (1, 3, "dil_conv_3x3")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operations": ("edge_0_2.sep_conv_5x5",)}, r"no cell has 'edge_0_2.sep_conv_5x5'\. Did you mean"),
        ({"operations": ("edge_0_2.skip_connect",)}, "none of those of node_3 stays"),
    ],
)
def test_names_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PassRefused, match=message):
        stays(cell(PLAN, "normal", (3, 8, 8)), **settings)


def test_graphs_without_cells_and_cells_without_a_choice_are_refused() -> None:
    from growir.families import network as family

    plain = family("Plain3Net", (3, 8, 8), 2, width=2)
    with pytest.raises(PassRefused, match="the graph has no cells: sums called node_2"):
        Discretise().rewrite(plain)
    left = Discretise().rewrite(cell(PLAN, "normal", (3, 8, 8))).graph
    with pytest.raises(PassRefused, match="all operations of the cells stay"):
        Discretise().rewrite(left)
    assert list(Discretise.candidates(plain)) == list(Discretise.candidates(left)) == []
    assert len(list(Discretise.candidates(cell(PLAN, "normal", (3, 8, 8))))) == 1
