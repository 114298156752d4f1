"""Every operator on its examples, each input once with channels on its first axis, once on its last."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from growir.channels import analyse
from growir.edits import NUMPY, apply_edits
from growir.graph import Graph
from growir.network import Network
from growir.ops import OPS, Conv2d, Identity, Op
from growir.ops.spaces import Space
from growir.passes import Widen
from growir.resize import Plan, Units, resize
from growir.testing import (
    assert_example,
    assert_preserves,
    close,
    example_graph,
    graphs,
    outputs,
    random_batch,
    random_network,
    worst,
)
from growir.testing.operators import SIDES, Side
from growir.verify import verify

# Where no example leaves the axis free: operators that look at all of it, and windows that slide along it.
PINNED = {(kind, "first") for kind in ("softmax", "log_softmax", "local_response_norm")} | {
    (kind, "last")
    for kind in (
        *("pixel_shuffle", "pixel_unshuffle", "upsample", "instance_norm"),
        *(f"{pool}_pool{k}d" for pool in ("max", "avg", "adaptive_max", "adaptive_avg") for k in (1, 2, 3)),
    )
}


CASES = [(op, k, side) for op in OPS for k in range(len(op.examples())) for side in SIDES]
every_example = pytest.mark.parametrize(
    ("op", "k", "side"), CASES, ids=[f"{op.kind()}-{k}-{side}" for op, k, side in CASES]
)


@every_example
def test_free_spaces_grow(op: type[Op], k: int, side: Side) -> None:
    assert_example(op.examples()[k], side)


def test_only_the_listed_operators_pin_their_channels() -> None:
    """Without this an operator that pins everything would pass the law above."""
    held = {(op.kind(), side): False for op, _, side in CASES}
    for op, k, side in CASES:
        graph = example_graph(op.examples()[k], side)
        held[op.kind(), side] |= any(not space.pins for space in analyse(graph).spaces)
    assert {case for case, free in held.items() if not free} == PINNED


def test_wrong_shares_are_noticed() -> None:
    """The control: shares that do not add up to one change the function."""
    graph = example_graph(Identity.examples()[0], "first")
    (space,) = [space for space in analyse(graph).spaces if not space.pins]
    index = np.repeat(np.arange(space.units), 2)
    for total, kept in ((1.0, True), (1.7, False)):
        plan = {space.space: Units(index, np.full(len(index), total / 2))}
        before, after = _resized(graph, plan)
        batch = random_batch(graph)
        assert close(outputs(before, batch)[0], outputs(after, batch)[0]) is kept


def test_copies_at_the_end_of_the_axis_are_noticed() -> None:
    """The control of layout: in a space that lies in an axis more than once, new units do not go to its end."""
    example = next(e for e in Conv2d.examples() if isinstance(e.op, Conv2d) and e.op.groups == 2)
    graph = example_graph(example, "first")
    space = next(space for space in analyse(graph).spaces if space.name == "it")
    assert space.stride == 2
    (slot,) = [slot for slot in space.producers if slot.parameter == "it.bias"]
    assert slot.runs == ((0, 3, 1), (3, 3, 1))
    grown = assert_preserves(Widen(node="it", by=2, copies=(0,)), graph)
    bias = random_network(graph).arrays["it.bias"]
    assert np.array_equal(grown.arrays["it.bias"], bias[[0, 1, 2, 0, 3, 4, 5, 3]])


def _resized(graph: Graph, plan: Plan) -> tuple[Network, Network]:
    before = random_network(graph)
    done = resize(graph, plan, seed=0, step=0)
    grown = verify(graph.replace(nodes=done.nodes, history=None))
    return before, Network(grown, apply_edits(done.edits, before.arrays, NUMPY, np.dtype(np.float64)))


@given(st.data())
def test_all_spaces_change_at_once(data: st.DataObject) -> None:
    """Any order of units, with copies and fresh ones among them, in every free space of a graph together."""
    graph = data.draw(graphs())
    plan: dict[Space, Units] = {}
    whole: dict[Space, int] = {}  # how often every channel of spaces that are normalised together is copied
    for space in analyse(graph).spaces:
        if space.pins or (len(space.growth) > 1 and not space.uniform):
            continue
        old = list(range(space.units))
        if space.uniform:
            times = data.draw(st.integers(0, 2))
            for other in space.growth:
                times = whole.setdefault(other, times)
            extra = old * times
        elif space.tied:
            extra = [-1] * data.draw(st.integers(0, 2))
        else:
            extra = data.draw(st.lists(st.integers(-1, space.units - 1), max_size=3))
        index = np.array(data.draw(st.permutations(old + extra)))
        weight = np.random.default_rng(len(index)).uniform(0.5, 1.0, len(index))
        if space.uniform:
            weight = np.ones(len(index))
        total = np.bincount(index[index >= 0], weight[index >= 0], minlength=space.units)
        plan[space.space] = Units(index, np.where(index < 0, 1.0, weight / total[index.clip(0)]))
    assume(plan)
    before, after = _resized(graph, plan)
    batch = random_batch(graph)
    for wanted, found in zip(outputs(before, batch), outputs(after, batch), strict=True):
        assert close(wanted, found), worst(wanted, found)
