"""A cell more is the network that was written with it, wherever it is put, and goes on learning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from growir import live
from growir.cells import Genotype, Template, block, cells_of, genotype, genotype_of, network
from growir.document import dumps, to_data
from growir.errors import GraphError, PassRefused
from growir.graph import Graph
from growir.network import Network
from growir.passes import Discretise, Stack, Widen, pass_from_data
from growir.passes import Sequence as Steps
from growir.replay import check_history
from growir.shapes import shapes_of
from growir.testing import outputs, random_batch, random_network
from growir.verify import load
from tests.wiring import unnamed, with_weights_of

SMALL = Genotype(
    (("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 2), ("dil_conv_3x3", 0)),
    (2, 3),
    (("max_pool_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 2), ("avg_pool_3x3", 1)),
    (2, 3),
)
FEW = settings(max_examples=max(settings().max_examples // 10, 5))


def of(cells: int, *reductions: int, plan: Genotype = SMALL) -> Graph:
    return network(plan, (3, 8, 8), 3, cells=cells, width=2, reductions=reductions)


def cell_behind(graph: Graph, before: str, after: str, plan: Genotype = SMALL) -> Graph:
    """A normal cell, as wide as the one that gave `after`."""
    shapes = shapes_of(graph)
    shape = shapes[after].sizes
    return block(plan, "normal", shapes[before].sizes, shape, shape[0] // len(plan.normal_concat))


def last_two(graph: Graph) -> tuple[str, str]:
    before, after = [at.output for at in cells_of(graph)][-2:]
    return before, after


@pytest.mark.parametrize("copy_weights", [False, True])
@pytest.mark.parametrize("reductions", [(), (1,), (0, 2)], ids=str)
def test_a_cell_more_is_the_network_that_has_it(reductions: Sequence[int], copy_weights: bool) -> None:
    graph, longer = of(5, *reductions), of(6, *reductions)
    step = Stack(block="normal.4", after="normal.4.out", before="normal.3.out", copy_weights=copy_weights, exact=False)
    before = random_network(graph)
    after = before.apply(step)
    assert unnamed(after.graph).hash == unnamed(longer).hash
    assert [(at.kind, at.edges) for at in cells_of(after.graph)] == [(at.kind, at.edges) for at in cells_of(longer)]
    batch = random_batch(graph)
    assert np.array_equal(outputs(after, batch)[0], outputs(with_weights_of(longer, after), batch)[0])
    if copy_weights:
        for key, array in after.arrays.items():
            source = key.replace("normal.5.", "normal.4.")
            assert np.array_equal(array, before.arrays[source]), key


def test_a_cell_behind_another_moves_those_behind_it() -> None:
    graph = of(5, 3)  # normal.2 is the last cell of the large maps, and two cells read it: reduce.3 and normal.4
    done = Stack(block="normal.2", before="normal.1.out", exact=False).rewrite(graph).graph
    assert unnamed(done).hash == unnamed(of(6, 4)).hash
    for cell, read in {
        "normal.5": ["normal.1.out", "normal.2.out"],
        "reduce.3": ["normal.2.out", "normal.5.out"],
        "normal.4": ["normal.5.out", "reduce.3.out"],
    }.items():
        assert [done[f"{cell}.preprocess{k}.relu"].inputs[0] for k in (0, 1)] == read


def test_a_cell_behind_a_reduction_that_is_last_reads_maps_of_two_sizes() -> None:
    graph = of(3, 2)
    found = cell_behind(graph, "normal.1.out", "reduce.2.out")
    step = Stack(block=found, after="reduce.2.out", before="normal.1.out", exact=False, module="normal.3")
    assert unnamed(step.rewrite(graph).graph).hash == unnamed(of(4, 2)).hash


@st.composite
def genotypes(draw: st.DrawFn) -> Genotype:
    nodes = draw(st.integers(1, 2))
    kinds: list[tuple[tuple[str, int], ...]] = []
    for _ in range(2):
        names = st.sampled_from(["skip_connect", "max_pool_3x3", "sep_conv_3x3"])
        kinds.append(tuple((draw(names), draw(st.integers(0, 1 + k // 2))) for k in range(2 * nodes)))
    states = tuple(range(2, 2 + nodes))
    return Genotype(kinds[0], states, kinds[1], states)


@FEW
@given(genotypes(), st.integers(2, 5), st.sets(st.integers(0, 4), max_size=2), st.data())
def test_a_cell_goes_behind_any_two_of_one_size(plan: Genotype, cells: int, halved: set[int], data: Any) -> None:
    reductions = {k for k in halved if k < cells}
    graph = of(cells, *reductions, plan=plan)
    k = data.draw(st.integers(1, cells - 1))
    before, after = (at.output for at in cells_of(graph)[k - 1 : k + 1])
    step = Stack(
        block=cell_behind(graph, before, after, plan), after=after, before=before, exact=False, module="normal.9"
    )
    try:
        done = step.rewrite(graph).graph
    except PassRefused as error:
        why = str(error)
    else:
        why = ""
    if why:
        # A cell behind reads maps of another size in another way, so it cannot read those of this one.
        assert shapes_of(graph)[before] != shapes_of(graph)[after]
        assert f".{k + 1}.preprocess0.relu reads {before}, which is" in why
        return
    longer = of(cells + 1, *(at + (at > k) for at in reductions), plan=plan)
    assert unnamed(done).hash == unnamed(longer).hash
    # And what is recorded leads there again.
    check_history(load(to_data(done)))


def test_a_found_cell_becomes_the_network_that_papers_evaluate() -> None:
    search = network(Template(nodes=2, inner=1), (3, 8, 8), 3, cells=3, width=2, reductions=(1,))
    for at in [each for each in cells_of(search) if each.kind == "normal"]:
        search = Widen(node=f"{at.module}.edge_0_2.dil_conv_3x3.pointwise1", by=3).rewrite(search).graph
    found = genotype_of(Discretise(threshold=2).rewrite(search).graph)
    assert ("dil_conv_3x3", 0) in found.normal
    graph = of(3, 1, plan=found)
    before, after = last_two(graph)
    saved = dumps(cell_behind(graph, before, after, found))
    for k in range(3, 6):
        before, after = last_two(graph)
        data = {"pass": "stack", "block": json.loads(saved), "after": after, "before": before, "exact": False}
        graph = pass_from_data({**data, "module": f"normal.{k}"}).rewrite(graph).graph
    assert unnamed(graph).hash == unnamed(of(6, 1, plan=found)).hash
    assert genotype_of(graph) == found
    check_history(load(to_data(graph)))


def test_two_in_one_sequence_are_two_behind_each_other() -> None:
    graph = of(4, 1)
    steps = [
        Stack(block="normal.3", after=f"normal.{k}.out", before=f"normal.{k - 1}.out", exact=False, copy_weights=True)
        for k in (3, 4)
    ]
    # The first one is called normal.4, behind which the second one goes.
    done = Steps(passes=tuple(steps)).rewrite(graph).graph
    assert unnamed(done).hash == unnamed(of(6, 1)).hash


@pytest.mark.parametrize("copies", ["carried", "fresh"])
def test_a_copied_cell_goes_on_with_the_state_of_its_source_and_nothing_else_moves(copies: Any) -> None:
    graph = of(3)
    module = random_network(graph).to_torch()
    optimizer = torch.optim.Adam([{"params": [p], "lr": 0.01 + 0.001 * k} for k, p in enumerate(module.parameters())])
    (batch,) = random_batch(graph, 4)
    for _ in range(3):
        optimizer.zero_grad()
        module(batch).square().sum().backward()
        optimizer.step()
    old = {key: (p, p.detach().clone()) for key, p in module.named_parameters()}
    moments = {key: optimizer.state[p]["exp_avg"].clone() for key, (p, _) in old.items()}
    step = Stack(block="normal.2", before="normal.1.out", copy_weights=True, exact=False)
    grown, report = live.grow(module, step, optimizer, copies=copies)
    assert not report.untrained
    params = dict(grown.named_parameters())
    groups = {id(p): k for k, group in enumerate(optimizer.param_groups) for p in group["params"]}
    assert len({key for key in params if key.startswith("normal.3.")}) > 5
    for key, p in params.items():
        if not key.startswith("normal.3."):
            assert torch.equal(p, old[key][1])
            assert torch.equal(optimizer.state[p]["exp_avg"], moments[key])
            continue
        source = key.replace("normal.3.", "normal.2.")
        assert torch.equal(p, params[source])
        assert groups[id(p)] == groups[id(params[source])]
        state = optimizer.state.get(p, {})
        assert torch.equal(state["exp_avg"], moments[source]) if copies == "carried" else "exp_avg" not in state
    before = {key: p.detach().clone() for key, p in params.items()}
    optimizer.zero_grad()
    (grown(batch) * torch.arange(1.0, 4.0)).square().sum().backward()
    optimizer.step()
    still = {key for key, p in params.items() if torch.equal(p, before[key])}
    assert not still


# -- a cell as a document ---------------------------------------------------------------------------------------------


def test_a_block_is_a_cell_of_a_network_as_it_stands_there() -> None:
    graph = of(3, 1)
    shapes = shapes_of(graph)
    for module, before, after, width in (
        ("reduce.1", "stem.norm", "normal.0.out", 4),
        ("normal.2", "normal.0.out", "reduce.1.out", 4),
    ):
        kind = cells_of(graph)[int(module[-1])].kind
        made = block(SMALL, kind, shapes[before].sizes, shapes[after].sizes, width)
        called = {"s0": before, "s1": after} | {node.name: f"{module}.{node.name}" for node in made.nodes}
        for node in made.nodes:
            there = graph[called[node.name]]
            assert (there.op, there.inputs) == (node.op, tuple(called[name] for name in node.inputs))
        assert len(made.nodes) == sum(node.name.startswith(f"{module}.") for node in graph.nodes)
        assert [(at.kind, at.edges) for at in cells_of(made)] == [(kind, SMALL.edges(kind))]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("normal", (4, 8), (4, 8, 8), 2), "s0 is (4, 8), but a cell reads maps, (C, H, W)"),
        (
            ("normal", (4, 9, 8), (4, 4, 4), 2),
            "s0 is (N, 4, 9, 8) and s1 is (N, 4, 4, 4); the maps of s0 are as large as those of s1, or twice as large",
        ),
        (("reduce", (4, 2, 2), (4, 1, 1), 2), "the cell cannot halve maps of (N, 4, 1, 1); give fewer reductions, or"),
        (("normal", (4, 8, 8), (4, 8, 8), 0), "out_channels is 0"),
    ],
)
def test_what_a_cell_cannot_read_is_said(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(GraphError) as refused:
        block(SMALL, *given)
    assert message in str(refused.value)


def test_odd_maps_are_halved_as_a_network_does() -> None:
    graph = network(SMALL, (3, 7, 7), 3, cells=2, width=2, reductions=(1,))
    before, after = last_two(graph)
    step = Stack(block=cell_behind(graph, before, after), after=after, before=before, exact=False, module="normal.2")
    longer = network(SMALL, (3, 7, 7), 3, cells=3, width=2, reductions=(1,))
    assert unnamed(Network.init(graph).apply(step).graph).hash == unnamed(longer).hash


def test_published_cells_are_stacked() -> None:
    found = genotype("DARTS_V2")
    graph = network(found, (3, 8, 8), 10, cells=3, width=4)
    step = Stack(block="reduce.2", before="reduce.1.out", exact=False)
    with pytest.raises(PassRefused, match=r"the block takes \(N, 32, 4, 4\) \(reduce\.1\.out\)"):
        step.rewrite(graph)
    graph = network(found, (3, 8, 8), 10, cells=3, width=4, reductions=())
    done = Stack(block="normal.2", before="normal.1.out", exact=False).rewrite(graph).graph
    assert unnamed(done).hash == unnamed(network(found, (3, 8, 8), 10, cells=4, width=4, reductions=())).hash
