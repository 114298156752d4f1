"""Every operator's channel rule: among layers, each space it leaves free grows and the function stays.

The rule is tested on the operator's examples, each input once with channels on its first axis, once on its last.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from growir.channels import analyse
from growir.edits import NUMPY, apply_edits
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import OPS, Bias, Conv2d, Example, Flatten, Identity, Linear, Mul, Op, Parameter, Softplus
from growir.ops.spaces import Space
from growir.passes import Widen
from growir.resize import Plan, Units, resize
from growir.testing import assert_preserves, close, graphs, outputs, random_batch, random_network, worst
from growir.verify import verify

# Where no example leaves the axis free: operators that look at all of it, and windows that slide along it.
PINNED = {(kind, "first") for kind in ("softmax", "log_softmax", "local_response_norm")} | {
    (kind, "last")
    for kind in (
        *("pixel_shuffle", "pixel_unshuffle", "upsample", "instance_norm"),
        *(f"{pool}_pool{k}d" for pool in ("max", "avg", "adaptive_max", "adaptive_avg") for k in (1, 2, 3)),
    )
}


def embedded(example: Example, side: str) -> Graph:
    """The example between layers that make channels and layers that use them."""
    inputs: list[Input] = []
    nodes: list[Node] = []
    names: list[str] = []
    for k, shape in enumerate(example.inputs):
        name = f"in{k}"
        if not shape.batched:
            nodes.append(Node(name=name, op=Parameter(shape=shape.sizes)))
        elif shape.dtype == "int64":
            inputs.append(Input(name=name, shape=shape.dims, dtype="int64"))
        else:
            entry, made = _producer(name, shape.sizes, side, f"x{k}")
            inputs.append(entry)
            nodes += made
            if example.positive:
                nodes.append(Node(name=f"{name}_positive", op=Softplus(), inputs=(name,)))
                name = f"{name}_positive"
        names.append(name)
    nodes.append(Node(name="it", op=example.op, inputs=tuple(names)))
    last = "it"
    if not inputs:  # a value without a batch meets one that has it
        entry, made = _producer("met", example.op.infer().sizes, side, "x0")
        inputs.append(entry)
        nodes += [*made, Node(name="used", op=Mul(), inputs=("met", "it"))]
        last = "used"
    nodes.append(Node(name="flat", op=Flatten(), inputs=(last,)))
    nodes.append(Node(name="head", op=Linear(out_features=2), inputs=("flat",)))
    return verify(Graph(inputs=tuple(inputs), nodes=tuple(nodes), outputs=("head",)))


def _producer(name: str, sizes: tuple[int, ...], side: str, x: str) -> tuple[Input, list[Node]]:
    if side == "last" or len(sizes) == 1:
        entry = Input(name=x, shape=("N", *sizes[:-1], 3))
        return entry, [Node(name=name, op=Linear(out_features=sizes[-1]), inputs=(x,))]
    if len(sizes) == 3:
        entry = Input(name=x, shape=("N", 2, *sizes[1:]))
        return entry, [Node(name=name, op=Conv2d(out_channels=sizes[0], kernel_size=1), inputs=(x,))]
    row = Node(name=f"{name}_row", op=Bias(features=sizes[0], dims=len(sizes) - 1), inputs=(x,))
    return Input(name=x, shape=("N", 1, *sizes[1:])), [row, Node(name=name, op=Mul(), inputs=(x, row.name))]


CASES = [(op, k, side) for op in OPS for k in range(len(op.examples())) for side in ("first", "last")]
every_example = pytest.mark.parametrize(
    ("op", "k", "side"), CASES, ids=[f"{op.kind()}-{k}-{side}" for op, k, side in CASES]
)


@every_example
def test_free_spaces_grow(op: type[Op], k: int, side: str) -> None:
    graph = embedded(op.examples()[k], side)
    free = [space for space in analyse(graph).spaces if not space.pins]
    for space in free:
        by = space.step
        assert_preserves(Widen(node=space.name, by=by), graph)
        if not (space.uniform or space.tied):
            copies = tuple(range(space.units)) * space.growth[space.space]
            shares = tuple((0.1 + 0.7 * (j + 1) / space.units) / space.growth[space.space] for j in copies)
            assert_preserves(Widen(node=space.name, by=by * space.units, copies=copies, shares=shares), graph)


def test_only_the_listed_operators_pin_their_channels() -> None:
    """Without this an operator that pins everything would pass the law above."""
    held = {(op.kind(), side): False for op, _, side in CASES}
    for op, k, side in CASES:
        graph = embedded(op.examples()[k], side)
        held[op.kind(), side] |= any(not space.pins for space in analyse(graph).spaces)
    assert {case for case, free in held.items() if not free} == PINNED


def test_wrong_shares_are_noticed() -> None:
    """The control: shares that do not add up to one change the function."""
    graph = embedded(Identity.examples()[0], "first")
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
    graph = embedded(example, "first")
    space = next(space for space in analyse(graph).spaces if space.name == "it")
    assert space.step == 2
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
