"""Every architecture of the zoo: each free space widens, splits and shrinks, chains replay, and the files agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import growir
from growir.backends.agreement import check_agreement
from growir.backends.torch_fx import lower
from growir.lengths import bounds_of
from growir.network import Network
from growir.passes import Extend, Prune, Split, Widen
from growir.rewrite import Pass
from growir.testing import TOLERANCE, deviations, masked, worst
from growir.testing.laws import GRADIENT
from tests.sampling import thinned
from tests.zoo import ZOO
from tests.zoo.growing import assert_grows_again, free
from tests.zoo.imported import imported

FREE = Path(__file__).parent.parent / "golden" / "zoo_free.txt"
LONGER = FREE.with_name("zoo_longer.txt")


def network(name: str) -> Network:
    """The imported architecture, in float64."""
    return imported(name)[1]


def run(net: Network, batch: tuple[torch.Tensor, ...]) -> tuple[np.ndarray, ...]:
    with torch.no_grad():
        found = lower(net.graph, net.arrays).eval()(*batch)
    return tuple(value.numpy() for value in (found if isinstance(found, tuple) else (found,)))


def assert_same(wanted: tuple[np.ndarray, ...], found: tuple[np.ndarray, ...], what: object) -> None:
    for a, b in zip(wanted, found, strict=True):
        assert worst(a, b) <= TOLERANCE, f"{what}: {worst(a, b):.1e}"


@pytest.mark.parametrize("name", thinned(sorted(ZOO), 4, 0))
def test_every_free_space_widens(name: str) -> None:
    net = network(name)
    batch = ZOO[name].inputs(2)
    wanted = run(net, batch)
    for space in free(net.graph):
        step = Widen(node=space.name, by=space.stride, seed=1)
        assert_same(wanted, run(net.apply(step), batch), step)


@pytest.mark.parametrize("name", thinned(sorted(ZOO), 4, 1))
def test_every_free_space_splits(name: str) -> None:
    net = network(name)
    batch = ZOO[name].inputs(2)
    wanted = run(net, batch)
    for space in free(net.graph):
        if space.tied:
            continue
        units = space.units if space.uniform else space.growth[space.space]
        step = Split(node=space.name, channels=tuple(range(min(units, space.units))))
        assert_same(wanted, run(net.apply(step), batch), step)


@pytest.mark.parametrize("name", thinned(sorted(ZOO), 4, 2))
def test_every_free_space_shrinks(name: str) -> None:
    net = network(name)
    batch = ZOO[name].inputs(2)
    for space in free(net.graph):
        if any(other.size <= units for other, units in space.shrink.items()):
            continue
        step = Prune(node=space.name, channels=tuple(range(space.shrink[space.space])))
        found = run(net.apply(step), batch)
        if not (space.uniform or space.tied or space.partial):
            assert_same(run(masked(net, step), batch), found, step)


def test_what_callers_hold_can_become_longer(golden: Callable[[Path, str], None]) -> None:
    """Classes of every head, tokens of every embedding, features of every input that none averages or slides over."""
    lines: list[str] = []
    for name in sorted(ZOO):
        found = (f"{s.node}@{'entries' if s.axis is None else s.axis}" for s in longer(network(name)))
        lines.append(f"{name} {' '.join(found)}\n")
    golden(LONGER, "".join(lines))


def longer(net: Network) -> list[Extend]:
    """Everything that can be extended, by fresh entries."""
    return [step for step in Extend.candidates(net.graph) if not step.copies]


@pytest.mark.parametrize("name", thinned(sorted(ZOO), 4, 3))
def test_old_entries_stay_when_others_come(name: str) -> None:
    """Outputs in both modes, and the gradients of a loss that reads old entries only."""
    net = network(name)
    for step in longer(net):
        for found in deviations(step, net, ZOO[name].inputs(2)):
            assert found.error <= (GRADIENT if found.gradient else TOLERANCE), (step, found)
        grown = net.apply(step)
        assert grown.replayed(net.arrays).graph.hash == grown.graph.hash


def test_a_longer_context_is_the_model_imported_with_a_longer_example() -> None:
    """Rotary angles are there for more tokens than the example has, so that none are asked for."""
    entry = ZOO["decoder_rotary"]
    net = network("decoder_rotary")
    ids = torch.randint(entry.vocabulary, (2, 10), generator=torch.Generator().manual_seed(2))
    whole = growir.from_torch(entry.make(), (ids,))
    assert_same(run(whole, (ids,)), run(net, (ids,)), "all ten positions")
    assert bounds_of(net.graph)["ids", 1].most == 2048


def chain(net: Network, length: int) -> list[Pass]:
    """Rewrites chosen at random, each on what the one before left."""
    rng = np.random.default_rng(0)
    found: list[Pass] = []
    for _ in range(length):
        spaces = [s for s in free(net.graph) if s.width < 200]
        space = spaces[rng.integers(len(spaces))]
        kind = rng.integers(3)
        step: Pass
        if kind == 0 or space.tied:
            step = Widen(node=space.name, by=space.stride)
        elif kind == 1 or any(other.size <= units for other, units in space.shrink.items()):
            units = space.units if space.uniform else space.growth[space.space]
            step = Split(node=space.name, channels=tuple(range(units)))
        else:
            step = Prune(node=space.name, channels=tuple(range(space.shrink[space.space])))
        found.append(step)
        net = net.apply(step)
    return found


@pytest.mark.parametrize("name", thinned(sorted(ZOO), 6))
def test_a_chain_replays_exports_and_reloads(name: str, tmp_path: Path) -> None:
    net = network(name)
    grown = net
    batch = ZOO[name].inputs(2)
    for step in chain(net, 10):
        before = run(grown, batch)
        after = grown.apply(step)
        if not isinstance(step, Prune):
            assert_same(before, run(after, batch), step)
        grown = after
    assert grown.replayed(net.arrays).graph.hash == grown.graph.hash
    grown.save(tmp_path / "net")
    again = Network.load(tmp_path / "net")
    assert again.graph.hash == grown.graph.hash
    assert_same(run(grown, batch), run(again, batch), "reloaded")
    grown.to_onnx(tmp_path / "net.onnx")
    assert check_agreement(grown.graph, grown.arrays, tmp_path / "net.onnx") < 1e-4


def test_a_transformer_grows_by_heads_by_its_ffn_and_by_doubling_its_stream() -> None:
    """Whole heads of queries, keys and values; hidden units of the FFN; and the residual stream in whole multiples."""
    net = network("vit_packed")
    batch = ZOO["vit_packed"].inputs(2)
    wanted = run(net, batch)
    heads = next(s for s in free(net.graph) if s.name.endswith("attn.qkv"))
    ffn = next(s for s in free(net.graph) if s.name.endswith("mlp.0"))
    (stream,) = [s for s in free(net.graph) if s.uniform]
    assert (heads.width, heads.stride) == (24, 12)  # two heads of size 4, in q, k and v
    assert stream.stride == stream.width == 8
    grown = net
    for step in (
        Widen(node=heads.name, by=2 * heads.stride),
        Widen(node=ffn.name, by=3),
        Widen(node=stream.name, by=stream.stride),
        Split(node=heads.name, channels=(1,)),
    ):
        grown = grown.apply(step, verify=True)
    assert_same(wanted, run(grown, batch), "heads, FFN and stream")
    shapes = {key: array.shape for key, array in grown.arrays.items()}
    assert shapes[f"{heads.name}.weight"] == (60, 16)
    assert shapes[f"{ffn.name}.weight"] == (19, 16)
    assert shapes["pos_embed.weight"] == (1, 17, 16)


@pytest.mark.parametrize("name", thinned(sorted(ZOO), 4, 0))
def test_what_is_free_grows_again_and_shrinks_back(name: str) -> None:
    for space in free(network(name).graph):
        assert_grows_again(network(name), space)


# Last, when other tests have made most of the networks.
def test_how_many_spaces_are_free(golden: Callable[[Path, str], None]) -> None:
    """Without this a rule that pins everything would pass the laws below."""
    golden(FREE, "".join(f"{name} {len(free(network(name).graph))}\n" for name in sorted(ZOO)))
