"""What is free stays free when it grows, whatever the sizes are, and what was added can be taken away again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import growir
from growir.passes import Prune
from tests.sampling import thinned
from tests.zoo.attention import every, inputs
from tests.zoo.growing import assert_grows_again, free, freedom
from tests.zoo.imported import once

MODELS = every()
FREE = Path(__file__).parent.parent / "golden" / "heads_free.txt"


@cache
def network(name: str) -> growir.Network:
    return once(f"heads {name}", lambda: growir.from_torch(MODELS[name]().double(), *inputs()))


@pytest.mark.parametrize("name", thinned(MODELS, 6))
def test_heads_grow_again_and_shrink_back(name: str) -> None:
    net = network(name)
    assert free(net.graph)
    for space in free(net.graph):
        assert_grows_again(net, space)


@pytest.mark.parametrize("name", thinned(MODELS, 6))
def test_heads_stay_free_as_long_as_there_is_more_than_one(name: str) -> None:
    net = network(name)
    for space in free(net.graph):
        if all(other.size > 1 + units for other, units in space.shrink.items()):
            less = net.apply(Prune(node=space.name, channels=tuple(range(space.shrink[space.space]))))
            assert not freedom(net.graph) - freedom(less.graph)


def _free_line(name: str) -> str:
    return f"{name}: {', '.join(f'{s.name} {s.width} by {s.stride}' for s in free(network(name).graph)) or 'nothing'}\n"


@pytest.mark.parametrize("name", thinned(MODELS, 6))
def test_heads_are_free(name: str) -> None:
    assert _free_line(name) in FREE.read_text(encoding="utf-8").splitlines(keepends=True)


# Last, when other tests have made most of the networks.
@pytest.mark.slow
def test_heads_of_every_number_and_size_are_free(golden: Callable[[Path, str], None]) -> None:
    """Heads, whole groups of them, and the heads of each group: nothing here may become less."""
    golden(FREE, "".join(map(_free_line, MODELS)))
