"""What can be chosen, in width and in depth: what grows is what was seen, with exactly what was chosen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from growir import live
from growir.channels import analyse
from growir.graph import Graph, Node
from growir.growth.budget import Budget, BudgetConfig, Cost
from growir.growth.measure.choice import Choice
from growir.growth.measure.gated import Unit
from growir.network import Network
from growir.ops import Linear, Relu
from growir.params import param_table
from growir.testing import graphs, random_batch, random_network
from tests.growth.test_gated import close, outputs, residual
from tests.samples import graph_of


def dense() -> Graph:
    return graph_of(
        (5,),
        Node(name="a", op=Linear(out_features=3), inputs=("x",)),
        Node(name="r", op=Relu(), inputs=("a",)),
        Node(name="head", op=Linear(out_features=2), inputs=("r",)),
    )


def named(choice: Choice, site: str, index: int) -> str:
    return choice.candidate(Unit(site, "fresh", index), Cost()).name


def idle_module(choice: Choice, network: Network) -> torch.nn.Module:
    """The network's module with all idle blocks in."""
    module = network.to_torch()
    return live.grow(module, choice.blocks.step)[0].eval() if choice.blocks.steps else module.eval()


@given(st.data())
@pytest.mark.slow
def test_what_grows_is_what_was_seen_with_blocks_too(data: st.DataObject) -> None:
    graph = data.draw(graphs(moves=4))
    choice = Choice(graph, width=data.draw(st.booleans()), depth=True)
    assume(choice.sites)
    network = random_network(graph)
    x = random_batch(graph, seed=data.draw(st.integers(0, 9)))
    module = idle_module(choice, network)
    before = outputs(network.to_torch().eval(), x)
    gated = choice.gated(
        module, choice.sites, split=data.draw(st.booleans()), fresh=2, key=(data.draw(st.integers(0, 9)),)
    )
    close(gated(gated.gates(), *x), before)
    offered = set(choice.units(split=True, fresh=2))
    places = [k for k, unit in enumerate(gated.units) if unit in offered]
    picked = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=6, unique=True))
    gates = gated.gates()
    gates[picked] = torch.linspace(0.5, 1.5, len(picked), dtype=gates.dtype)
    seen = gated(gates, *x)
    step = choice.built(gated, picked, gates)
    grown, _ = live.grow(network.to_torch().eval(), step)
    close(outputs(grown.eval(), x), seen)
    plan = choice.plan([gated.units[k] for k in picked]).rewrite(graph).graph
    assert {key: param.shape for key, param in param_table(plan).items()} == {
        key: param.shape for key, param in param_table(step.rewrite(graph).graph).items()
    }


def test_a_block_has_exactly_the_units_that_were_chosen() -> None:
    graph = residual()
    choice = Choice(graph, depth=True)
    inner = [site.name for site in choice.sites if named(choice, site.name, 0).startswith("block after")]
    assert [step.after for step in choice.blocks.steps] == ["x", "stem", "r1", "flat"]
    assert [named(choice, name, 1) for name in inner][1] == "block after stem fresh 1"
    grown = choice.plan([Unit(inner[1], "fresh", 0), Unit(inner[1], "fresh", 3), Unit("c1", "split", 2)]).rewrite(graph)
    widths = {space.name: space.units for space in analyse(grown.graph).spaces}
    assert widths["layer_1.first"] == 2
    assert widths["c1"] == 5
    assert not any(name.startswith("layer_2") for name in widths)


def test_only_depth_leaves_the_widths_there_are_alone() -> None:
    choice = Choice(residual(), width=False, depth=True)
    assert {unit.kind for unit in choice.units(split=True, fresh=2)} == {"fresh"}
    assert {site.name.partition(".")[0] for site in choice.sites} == set(choice.blocks.modules)


def test_a_unit_costs_what_it_costs_by_itself() -> None:
    graph = dense()
    choice, budget = Choice(graph, depth=True), Budget(BudgetConfig(per_growth={"units": 4, "layers": 4}), graph)  # type: ignore[arg-type]  # as run files say it
    assert choice.cost(Unit("a", "fresh", 0), budget).parameters == 5 + 1 + 2
    assert choice.cost(Unit("a", "split", 1), budget).parameters == 5 + 1 + 2
    block = choice.cost(Unit("layer_2.first", "fresh", 0), budget)
    assert (block.parameters, block.units, block.layers) == (3 + 1 + 3 + 3, 1, 2)
