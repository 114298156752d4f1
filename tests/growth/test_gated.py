"""Gated networks: nothing at gates of 0, and what grows is what was seen with the other gates at 0."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from growir import live
from growir.errors import GrowirError
from growir.graph import Graph, Node
from growir.growth.measure.gated import Gated, groups
from growir.growth.measure.sites import Site, sites
from growir.network import Network
from growir.ops import Add, BatchNorm, Conv2d, Flatten, Linear, Permute, Relu
from growir.testing import graphs, random_batch, random_network
from tests.samples import graph_of


def residual() -> Graph:
    """A stem, a residual block with batch norms, and what is flattened and read: three sites, one of three makers."""
    return graph_of(
        (2, 4, 4),
        Node(name="stem", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("x",)),
        Node(name="c1", op=Conv2d(out_channels=4, kernel_size=3, padding=1), inputs=("stem",)),
        Node(name="b1", op=BatchNorm(), inputs=("c1",)),
        Node(name="r1", op=Relu(), inputs=("b1",)),
        Node(name="c2", op=Conv2d(out_channels=3, kernel_size=3, padding=1), inputs=("r1",)),
        Node(name="sum", op=Add(), inputs=("stem", "c2")),
        Node(name="r2", op=Relu(), inputs=("sum",)),
        Node(name="flat", op=Flatten(), inputs=("r2",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )


def outputs(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    found = module(*inputs)
    return found if isinstance(found, tuple) else (found,)


def close(found: tuple[torch.Tensor, ...], wanted: tuple[torch.Tensor, ...]) -> None:
    for mine, right in zip(found, wanted, strict=True):
        size = max(float(right.detach().abs().max()), 1.0) if right.numel() else 1.0
        torch.testing.assert_close(mine / size, right / size, rtol=0, atol=1e-9)


@given(st.data())
def test_what_grows_is_what_was_seen(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    found = sites(graph).sites
    assume(found)
    module = random_network(graph).to_torch().eval()
    x = random_batch(graph, seed=data.draw(st.integers(0, 9)))
    gated = Gated(module, found, fresh=data.draw(st.integers(0, 2)), key=(data.draw(st.integers(0, 9)),))
    close(gated(gated.gates(), *x), outputs(module, x))
    picked = data.draw(st.lists(st.sampled_from(range(len(gated.units))), min_size=1, max_size=6, unique=True))
    gates = gated.gates()
    gates[picked] = torch.linspace(0.5, 1.5, len(picked), dtype=gates.dtype)
    seen = gated(gates, *x)
    grown, _ = live.grow(module, gated.chosen(picked, gates))
    close(outputs(grown.eval(), x), seen)


def test_a_site_knows_what_makes_carries_and_reads_its_units() -> None:
    found = {site.name: site for site in sites(residual()).sites}

    def keys(site: Site, role: str) -> set[str]:
        return {slot.parameter for slot in getattr(site, role)}

    assert keys(found["stem"], "makes") == {"stem.weight", "c2.weight"}
    assert keys(found["stem"], "carries") == {"stem.bias", "c2.bias"}
    assert keys(found["stem"], "reads") == {"c1.weight", "head.weight"}
    assert keys(found["c1"], "makes") == {"c1.weight"}
    assert {"b1.weight", "b1.bias", "b1.running_mean"} <= keys(found["c1"], "carries")
    assert found["c1"].cost(residual()).parameters == 3 * 9 + 1 + 2 + 3 * 9
    assert found["c1"].cost(residual()).units == 1


def test_spaces_that_are_no_sites_are_named_with_the_reason() -> None:
    found = sites(residual())
    assert set(found.skipped) == {"head"}
    assert "pinned" in found.skipped["head"]
    graph = residual()
    frozen = graph.replace(
        nodes=[node.model_copy(update={"frozen": ("weight",)}) if node.name == "c1" else node for node in graph.nodes]
    )
    assert sites(frozen).skipped["c1"] == "c1.weight is frozen, so new units of it would never learn"
    assert "c1.weight is frozen" in sites(frozen).skipped["stem"]


def test_of_units_within_units_the_outer_ones_are_a_site() -> None:
    """What is new within a unit that is new itself would have no place of its own."""
    graph = graph_of(
        (3, 4),
        Node(name="outer", op=Linear(out_features=5), inputs=("x",)),
        Node(name="turned", op=Permute(dims=(0, 2, 1)), inputs=("outer",)),
        Node(name="inner", op=Linear(out_features=6), inputs=("turned",)),
        Node(name="flat", op=Flatten(), inputs=("inner",)),
        Node(name="head", op=Linear(out_features=2), inputs=("flat",)),
    )
    found = sites(graph)
    assert [site.name for site in found.sites] == ["outer"]
    assert found.skipped["inner"] == "its units lie within those of outer, which is a site"
    gated = Gated(random_network(graph).to_torch(), found.sites, fresh=1)
    x = random_batch(graph)
    gates = gated.gates(0.5)
    grown, _ = live.grow(gated.over.module, gated.chosen(range(len(gated.units)), gates))
    close(outputs(grown, x), gated(gates, *x))


def test_slopes_reach_gates_and_directions_and_stay_away_from_weights() -> None:
    module = Network.init(residual(), seed=0).to_torch()
    gated = Gated(module, sites(residual()).sites, fresh=2)
    assert [str(unit) for unit in gated.units[:5]] == [f"stem split {k}" for k in range(3)] + [
        "stem fresh 0",
        "stem fresh 1",
    ]
    for direction in gated.directions.values():
        direction.requires_grad_()
    gates = gated.gates(0.3).requires_grad_()
    gated(gates, torch.randn(8, 2, 4, 4))[0].square().mean().backward()  # type: ignore[no-untyped-call]  # torch's own
    assert gates.grad is not None
    assert (gates.grad != 0).all()
    assert all(d.grad is not None and (d.grad != 0).any() for d in gated.directions.values())
    assert all(parameter.grad is None for parameter in module.parameters())
    # Directions are as large as a new layer's weights, whatever the present ones are.
    std = float(gated.directions[next(a for a in gated.directions if a.key == "c1.weight")].detach().std())
    assert 0.5 < std * (27 * 3) ** 0.5 < 1.5


def test_sites_come_in_groups_of_neighbours() -> None:
    found = sites(residual()).sites
    assert [len(group) for group in groups(found, 2)] == [1, 1]
    assert [len(group) for group in groups(found, 1)] == [2]
    assert [site for group in groups(found, 9) for site in group] == list(found)


def test_nothing_to_choose_from_is_refused() -> None:
    module = Network.init(residual(), seed=0).to_torch()
    with pytest.raises(GrowirError, match="needs sites, and splits or fresh units in them"):
        Gated(module, sites(residual()).sites, split=False)
