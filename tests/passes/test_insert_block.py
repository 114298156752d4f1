"""Fragments of graphs put into others: names, weights, what a residual needs at its end, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from growir.document import dumps, to_data
from growir.errors import PassRefused
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import (
    Add,
    Affine,
    BatchNorm,
    Bias,
    Concat,
    Conv2d,
    Dropout,
    Exp,
    Flatten,
    Gelu,
    Identity,
    LayerNorm,
    Linear,
    MatMul,
    Mul,
    Op,
    Parameter,
    Relu,
    Sigmoid,
    Slice,
    Softmax,
    Tanh,
)
from growir.passes import InsertBlock, Sequence, Widen, pass_from_data
from growir.replay import check_history
from growir.rewrite import Preserves
from growir.testing import assert_preserves, close, outputs, random_batch, random_network
from growir.verify import load, verify
from tests.samples import graph_of, mlp, residual_convnet


def node(name: str, op: Op, *inputs: str, **fields: Any) -> Node:
    return Node(name=name, op=op, inputs=inputs, **fields)


def block(*nodes: Node, shape: tuple[int, ...] = (4,), name: str = "x") -> Graph:
    entry = Input(name=name, shape=("N", *shape))
    return verify(Graph(inputs=(entry,), nodes=nodes, outputs=(nodes[-1].name,)))


PRE_NORM = block(
    node("norm1", LayerNorm(), "x"),
    node("attn", Linear(out_features=4), "norm1"),
    node("sum1", Add(), "x", "attn"),
    node("norm2", LayerNorm(), "sum1"),
    node("up", Linear(out_features=3), "norm2"),
    node("act", Gelu(), "up"),
    node("down", Linear(out_features=4), "act"),
    node("sum2", Add(), "sum1", "down"),
)


def test_a_whole_pre_norm_block_is_put_in_place_with_every_branch_at_zero() -> None:
    graph = mlp()
    grown = assert_preserves(InsertBlock(after="fc1", block=PRE_NORM), graph)
    zero = {key for key, array in grown.arrays.items() if key.startswith("block_1.") and not array.any()}
    biases = {"block_1.norm1.bias", "block_1.norm2.bias"}
    assert zero - biases == {f"block_1.{name}.{part}" for name in ("attn", "down") for part in ("weight", "bias")}
    assert not [entry.name for entry in grown.graph.nodes if entry.name.startswith("sum")]  # its own sums are enough
    assert grown.graph["act1"].inputs == ("block_1.sum2",)
    check_history(grown.graph)


WIDE, BACK = Linear(out_features=3), Linear(out_features=4)
TWO = block(node("one", WIDE, "x"), node("act", Gelu(), "one"), node("two", BACK, "act"))


@pytest.mark.parametrize(
    ("ends", "zeros"),
    [
        ([node("y", BACK, "a")], {"y.weight", "y.bias"}),
        ([node("b", BACK, "a"), node("y", BatchNorm(), "b")], {"y.weight", "y.bias"}),
        ([node("b", BACK, "a"), node("y", LayerNorm(bias=False), "b")], {"y.weight"}),
        ([node("b", BACK, "a"), node("c", Tanh(), "b"), node("y", Dropout(), "c")], {"b.weight", "b.bias"}),
        ([node("b", BACK, "a"), node("c", BACK, "a"), node("y", Add(), "b", "c")],
         {"b.weight", "b.bias", "c.weight", "c.bias"}),
        ([node("b", BACK, "a"), node("s", Sigmoid(), "b"), node("y", Mul(), "b", "s")], {"b.weight", "b.bias"}),
        ([node("b", BACK, "a"), node("c", BACK, "a"), node("y", Mul(), "b", "c")], {"c.weight", "c.bias"}),
        ([node("b", BACK, "a"), node("v", Bias(features=4), "a"), node("y", Add(), "b", "v")],
         {"b.weight", "b.bias", "v.bias"}),
        ([node("b", BACK, "a"), node("p", Slice(length=1), "b"), node("q", Slice(start=1, length=3), "b"),
          node("y", Concat(), "q", "p")], {"b.weight", "b.bias"}),
        ([node("b", BACK, "a"), node("y", Affine(scale=2.0), "b")], {"b.weight", "b.bias"}),
        ([node("w", Parameter(shape=(3, 4))), node("y", MatMul(), "a", "w")], {"w.weight"}),
        ([node("b", BACK, "a"), node("m", Parameter(shape=(4, 4), buffer=True)), node("y", MatMul(), "b", "m")],
         {"b.weight", "b.bias", "m.weight"}),  # a buffer starts at zero anyway, and that is no promise
    ],
)  # fmt: skip
def test_a_residual_ends_in_zero_parameters(ends: list[Node], zeros: set[str]) -> None:
    step = InsertBlock(after="act1", block=block(node("a", WIDE, "x"), *ends))
    assert step.rewrite(mlp()).preserves in (Preserves.EXACT, Preserves.EVAL)
    grown = assert_preserves(step, mlp())
    fresh = {key.removeprefix("block_1."): a for key, a in grown.arrays.items() if key.startswith("block_1.")}
    assert {key for key, array in fresh.items() if not array.any()} - {
        "y.running_mean",
        "y.num_batches_tracked",
    } == zeros


def test_names_weights_and_readers() -> None:
    step = InsertBlock(after="act1", block=TWO)
    done = step.rewrite(mlp())
    assert done.created == ("block_1.one", "block_1.act", "block_1.two", "sum_1")
    assert done.graph["block_1.one"].inputs == ("act1",)
    assert done.graph["sum_1"].inputs == ("act1", "block_1.two")
    assert done.graph["head"].inputs == ("sum_1",)
    assert step.creates(mlp()) == done.created
    again = InsertBlock(after="sum_1", block=TWO).rewrite(done.graph)
    assert again.created == ("block_2.one", "block_2.act", "block_2.two", "sum_2")


def test_a_later_pass_of_a_sequence_names_what_an_earlier_one_creates() -> None:
    first = InsertBlock(after="act1", block=TWO)
    *_, joined = first.creates(mlp())
    both = Sequence(passes=(first, InsertBlock(after=joined, block=TWO)))
    assert both.creates(mlp())[:4] == first.creates(mlp())
    assert both.rewrite(mlp()).graph["head"].inputs == (both.creates(mlp())[-1],)
    with pytest.raises(PassRefused, match="none"):
        InsertBlock(after="none", block=TWO).creates(mlp())


def test_modules_and_ties_inside_come_along() -> None:
    inner = block(
        node("deep.fc.0", Linear(out_features=4), "x", frozen=("bias",)),
        node("deep.fc.1", Linear(out_features=4), "deep.fc.0", tied={"weight": "deep.fc.0.weight"}),
        node("last", BACK, "deep.fc.1"),
    )
    done = InsertBlock(after="act1", block=inner).rewrite(mlp())
    assert done.graph["block_1.deep.fc.1"].tied == {"weight": "block_1.deep.fc.0.weight"}
    assert done.graph["block_1.deep.fc.0"].frozen == ("bias",)
    assert_preserves(InsertBlock(after="act1", block=inner), mlp())


def test_the_history_holds_the_block() -> None:
    network = Network.init(residual_convnet())
    conv = Conv2d(out_channels=3, kernel_size=3, padding=1)
    inner = block(node("c", conv, "img"), node("n", BatchNorm(), "c"), shape=(3, 5, 5), name="img")
    grown = network.apply(InsertBlock(after="act", block=inner, seed=3), verify=True)
    again = load(dumps(grown.graph))
    assert check_history(again).hash == grown.graph.hash
    replayed = grown.replayed(network.arrays)
    assert all(np.array_equal(replayed.arrays[key], array) for key, array in grown.arrays.items())
    data = {"pass": "insert_block", "after": "act", "block": to_data(inner), "seed": 3}
    assert pass_from_data(data) == InsertBlock(after="act", block=inner, seed=3)
    assert hash(pass_from_data(data)) == hash(InsertBlock(after="act", block=inner, seed=3))


def test_a_document_needs_no_version_and_its_history_stays_behind() -> None:
    data: Any = {key: value for key, value in to_data(TWO).items() if key not in ("schema", "name")}
    assert InsertBlock(after="act1", block=data).block == TWO
    grown = Widen(node="one", by=1).rewrite(TWO).graph
    assert InsertBlock(after="act1", block=grown).block.history is None


def test_in_sequence_the_function_changes() -> None:
    step = InsertBlock(after="act1", block=TWO, residual=False)
    done = step.rewrite(mlp())
    assert done.preserves is Preserves.NOTHING
    assert done.created == ("block_1.one", "block_1.act", "block_1.two")
    assert done.graph["head"].inputs == ("block_1.two",)
    before = random_network(mlp())
    after, batch = before.apply(step), random_batch(mlp())
    assert not close(outputs(before, batch)[0], outputs(after, batch)[0])
    assert after.arrays["block_1.two.weight"].any()
    idle = block(node("i", Identity(), "x"), node("d", Dropout(p=0.0), "i"))
    step = InsertBlock(after="act1", block=idle, residual=False)
    assert step.rewrite(mlp()).preserves is Preserves.EXACT
    assert_preserves(step, mlp())


def test_what_may_be_infinite_is_no_promise() -> None:
    inner = block(node("e", Exp(), "x"), node("y", BACK, "e"))
    assert InsertBlock(after="act1", block=inner).rewrite(mlp()).preserves is Preserves.NOTHING


@pytest.mark.parametrize(("key", "preserves"), [("two.bias", Preserves.NOTHING), ("one.bias", Preserves.EXACT)])
def test_given_numbers(key: str, preserves: Preserves) -> None:
    values = {f"block_1.{key}": np.ones(4 if key == "two.bias" else 3)}
    assert InsertBlock(after="act1", block=TWO, values=values).rewrite(mlp()).preserves is preserves


def many(inputs: int, outputs: int) -> Graph:
    entries = tuple(Input(name=f"x{k}", shape=("N", 4)) for k in range(inputs))
    nodes = tuple(node(f"y{k}", BACK, "x0") for k in range(outputs))
    return Graph(inputs=entries, nodes=nodes, outputs=tuple(n.name for n in nodes))


FROZEN = block(node("one", WIDE, "x"), node("two", BACK, "one", frozen=("weight",)))
SHARED = block(node("a", BACK, "x"), node("b", BACK, "a", tied={"weight": "a.weight"}))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"after": "act", "block": TWO}, "after 'act' does not exist. Did you mean 'act1'?"),
        ({"block": many(2, 1)}, "a block after act1 has one input, but this one has 2: x0, x1"),
        ({"block": many(1, 2)}, "a block after act1 has one output, but this one has 2: y0, y1"),
        ({"block": block(node("y", BACK, "x"), shape=(3,))},
         r"the value is \(N, 4\), but the block takes \(N, 3\) \(x\); it must take and give the value's shape"),
        ({"block": block(node("y", WIDE, "x"))}, r"the value is \(N, 4\), but the block gives \(N, 3\) \(y\)"),
        ({"block": block(node("y", BACK, "x"), shape=(2, 4))}, r"but the block takes \(N, 2, 4\)"),
        ({"block": block(node("b", BACK, "x"), node("y", Sigmoid(), "b"))},
         "cannot start at zero, as a residual does: y is sigmoid, which is not zero, or has no slope.*residual=False"),
        ({"block": block(node("b", BACK, "x"), node("y", Relu(), "b"))}, "y is relu, which is not zero, or has"),
        ({"block": block(node("b", BACK, "x"), node("y", BatchNorm(affine=False), "b"))}, "y is batch_norm, which is"),
        ({"block": block(node("b", BACK, "x"), node("y", Affine(shift=1.0), "b"))}, "y is affine, which is"),
        (
            {"block": block(node("b", BACK, "x"), node("y", Mul(), "b", "x"), node("z", Add(), "y", "x", "x"))},
            "its input x",
        ),
        ({"block": block(node("s", Softmax(), "x"), node("y", Mul(), "s", "s"))}, "s is softmax, which is"),
        ({"block": FROZEN}, "two would stay at zero, because its weight is frozen"),
        ({"block": SHARED}, "b shares its parameters with a"),
        ({"block": 3}, "block is 3: a block is a graph, or a graph document as JSON has it"),
        ({"block": {"inputs": [], "nodes": [], "outputs": []}}, "a graph has at least one input"),
        ({"block": {"schema": "growir/9", "inputs": []}}, "reads up to growir/1"),
        ({"block": block(node(".".join(["m" * 60] * 3 + ["n" * 14]), BACK, "x"))},
         "becomes block_1.m+…: the name has 205 characters; at most 200 are allowed"),
    ],
)  # fmt: skip
def test_refusals(fields: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"after": "act1", **fields}
    with pytest.raises(PassRefused, match=says):
        InsertBlock(**arguments).rewrite(mlp())


def test_integers_take_no_block() -> None:
    ids = Input(name="ids", shape=("N", 4), dtype="int64")
    graph = Graph(inputs=(ids,), nodes=(node("flat", Flatten(), "ids"),), outputs=("flat",))
    with pytest.raises(PassRefused, match=r"needs floats with a batch axis, but the value is \(N, 4\) of int64"):
        InsertBlock(after="flat", block=TWO).rewrite(graph)


def test_a_long_block_is_no_recursion() -> None:
    nodes = [node("first", BACK, "x")]
    nodes += [node(f"n{k}", Tanh(), nodes[-1].name if k == 0 else f"n{k - 1}") for k in range(3000)]
    done = InsertBlock(after="act1", block=block(*nodes)).rewrite(mlp())
    assert done.preserves is Preserves.EXACT
    assert graph_of((4,), *nodes, outputs=("n2999",)).hash != done.graph.hash
