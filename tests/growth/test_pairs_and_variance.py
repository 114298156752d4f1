"""What fresh units start with: pairs keep the function, variances stay, and random growth with either obeys the law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from growir import live
from growir.graph import Graph, Node
from growir.growth.measure.sites import free_spaces, sites, wider
from growir.growth.measure.starts import even, started
from growir.growth.policies.random import RandomWidth
from growir.ops import Linear, Relu
from growir.params import param_table, spread
from growir.passes import Sequence, Update, Widen
from growir.rewrite import Preserves
from growir.testing import graphs, policy_law, random_batch, random_network
from tests.growth.test_gated import close, outputs
from tests.samples import graph_of

test_random_pairs = policy_law(RandomWidth, settings={"start": "pairs"})
test_random_variance = pytest.mark.slow(policy_law(RandomWidth, settings={"start": "variance"}))


def all_wider(graph: Graph) -> Sequence:
    return Sequence(passes=tuple(even(site.space, wider(site.space, 0.5)) for site in sites(graph).sites))


@given(st.data())
def test_pairs_keep_the_function_and_are_read(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    assume(sites(graph).sites)
    module, x = random_network(graph).to_torch().eval(), random_batch(graph)
    wanted = outputs(module, x)
    step = started(module, all_wider(graph), "pairs", data.draw(st.integers(0, 9)))
    assert isinstance(step, Sequence)
    grown, _ = live.grow(module, step)
    close(outputs(grown.eval(), x), wanted)
    read = {slot.parameter for site in sites(graph).sites for slot in site.reads}
    given = {key: block for key, block in step.values.items() if any(f"/{name}" in key for name in read)}
    assert any(np.abs(block).max(initial=0.0) > 0 for block in given.values())


def layers(*widths: int) -> Graph:
    nodes, last = list[Node](), "x"
    for k, width in enumerate(widths):
        nodes += [Node(name=f"fc{k}", op=Linear(out_features=width), inputs=(last,))]
        nodes += [Node(name=f"act{k}", op=Relu(), inputs=(f"fc{k}",))]
        last = f"act{k}"
    return graph_of((20,), *nodes, Node(name="head", op=Linear(out_features=400), inputs=(last,)))


def test_variances_stay() -> None:
    graph = layers(300, 400)
    module = random_network(graph, seed=1).to_torch()
    step = started(module, Sequence(passes=(Widen(node="fc0", by=600), Widen(node="fc1", by=300))), "variance", 0)
    assert step.preserves(graph) is Preserves.NOTHING
    assert isinstance(step, Sequence)
    assert step.passes[0] == Update(parameters=("fc1.weight", "head.weight"), values=step.passes[0].values)
    grown, _ = live.grow(module, step)
    old, new = module.state_dict(), grown.state_dict()
    for key, fan_in, more in (("fc1.weight", 300, 600), ("head.weight", 400, 300)):
        scale = (fan_in / (fan_in + more)) ** 0.5
        rows = old[key].shape[0]
        torch.testing.assert_close(new[key][:rows, :fan_in], scale * old[key])
        size = float(old[key].square().mean().sqrt())
        assert float(new[key][:rows, fan_in:].std()) == pytest.approx(scale * size, rel=0.02)
        assert float(new[key][:rows].square().sum(1).mean()) == pytest.approx(
            float(old[key].square().sum(1).mean()), rel=0.02
        )
    torch.testing.assert_close(new["fc0.weight"][:300], old["fc0.weight"])
    # Where both axes grow, what is new in one reads what is new in the other.
    corner = new["fc1.weight"][400:, 300:]
    assert float(corner.std()) == pytest.approx(float(new["fc1.weight"][:400, 300:].std()), rel=0.02)


def test_pairs_are_equal_on_one_side_and_opposite_on_the_other() -> None:
    graph = layers(6, 4)
    module = random_network(graph).to_torch()
    step = started(module, Sequence(passes=(Widen(node="fc0", by=4),)), "pairs", 3)
    grown, _ = live.grow(module, step)
    new = grown.state_dict()
    torch.testing.assert_close(new["fc0.weight"][6:8], new["fc0.weight"][8:])
    torch.testing.assert_close(new["fc0.bias"][6:8], new["fc0.bias"][8:])
    torch.testing.assert_close(new["fc1.weight"][:, 6:8], -new["fc1.weight"][:, 8:])
    assert not torch.equal(new["fc0.weight"][6], new["fc0.weight"][7])
    # Drawn as a new layer's, whose numbers are at most 1 / sqrt(6) and of that over sqrt(3) on average.
    assert float(new["fc1.weight"][:, 6:].std()) == pytest.approx(
        spread(param_table(graph)["fc1.weight"].init), rel=0.6
    )


def test_pairs_come_in_even_numbers() -> None:
    (space,) = (space for space in free_spaces(layers(5)) if space.name == "fc0")
    assert [even(space, Widen(node="fc0", by=by)).by for by in (1, 2, 3, 5, 8)] == [2, 2, 4, 4, 8]
