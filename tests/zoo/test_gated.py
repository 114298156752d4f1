"""Gated networks of every architecture: nothing at gates of 0, and what grows is what was seen behind the gates."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from growir import live
from growir.growth.measure.choice import Choice
from growir.network import Network
from tests.sampling import thinned
from tests.zoo import ZOO
from tests.zoo.attention import every, inputs
from tests.zoo.imported import imported
from tests.zoo.test_growing import network as heads

EXACT = 1e-9
ROUNDED = 1e-14  # of an output: what float64 leaves of a change, however small that is
HEADS = every()


def run(module: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    found = module.eval()(*batch)
    return found if isinstance(found, tuple) else (found,)


def largest(found: Sequence[torch.Tensor]) -> float:
    return max(float(each.abs().max()) for each in found)


def apart(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    return largest([a - b for a, b in zip(some, others, strict=True)])


def assert_grows_as_seen(net: Network, batch: tuple[torch.Tensor, ...], *, depth: bool = False) -> None:
    """Assert both laws in float64, of all that a policy may choose together, and of some of it alone."""
    choice = Choice(net.graph, depth=depth)
    assert choice.sites, choice.skipped
    module = net.to_torch().eval()
    if choice.blocks.steps:
        module = live.grow(module, choice.blocks.step)[0].eval()
    with torch.no_grad():
        gated = choice.gated(module, choice.sites, split=True, fresh=2, key=(3,))
        before = run(net.to_torch(), batch)
        size = largest(before)
        zeros = apart(gated(gated.gates(), *batch), before)
        assert zeros <= EXACT * size, f"gates of 0 move the outputs by {zeros:.1e}"
        offered = set(choice.units(split=True, fresh=2))
        units = [k for k, unit in enumerate(gated.units) if unit in offered]
        for picked, what in ((units, "all"), (units[1::3], "a third"), (units[-2:], "two")):
            gates = gated.gates()
            gates[picked] = torch.linspace(0.5, 1.5, len(picked), dtype=gates.dtype)
            seen = gated(gates, *batch)
            grown, _ = live.grow(net.to_torch().eval(), choice.built(gated, picked, gates))
            change, error = apart(seen, before), apart(run(grown, batch), seen)
            assert error <= EXACT * change + ROUNDED * size, f"{what}: off by {error:.1e} of a change of {change:.1e}"
            # A pair of fresh units may be dead; of all units some are not.
            assert change > 1e-6 * size or what != "all"


@pytest.mark.parametrize("name", thinned(sorted(ZOO), 6))
def test_every_architecture_grows_as_seen(name: str) -> None:
    assert_grows_as_seen(imported(name)[1], ZOO[name].inputs(2))


@pytest.mark.parametrize("name", thinned(sorted(ZOO), 11))
def test_layers_come_in_as_seen(name: str) -> None:
    assert_grows_as_seen(imported(name)[1], ZOO[name].inputs(2), depth=True)


@pytest.mark.parametrize("name", thinned(HEADS, 24))
def test_heads_grow_as_seen(name: str) -> None:
    assert_grows_as_seen(heads(name), inputs())
