"""Every rule of the table on the smallest graph that shows it, and what no rule may touch."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given

from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.ops import (
    Abs,
    AdaptiveMaxPool2d,
    Add,
    Affine,
    AvgPool2d,
    BatchNorm,
    Clamp,
    Concat,
    Dropout,
    Elu,
    Erf,
    Expand,
    Flatten,
    Gelu,
    Hardsigmoid,
    Hardswish,
    Identity,
    LeakyRelu,
    Linear,
    MaxPool2d,
    Mul,
    Op,
    Pad,
    Permute,
    Prelu,
    Relu,
    Relu6,
    Reshape,
    Select,
    Sigmoid,
    Silu,
    Slice,
    Squeeze,
    Tanh,
    Unsqueeze,
)
from growir.passes import AddEdge, Canonicalise, RemoveEdge
from growir.rewrite import Preserves
from growir.testing import assert_preserves, graphs
from tests.samples import empty, graph_of, mlp

IMAGE = (4, 3, 2)


def chain(*ops: Op, shape: tuple[int, ...] = IMAGE) -> Graph:
    nodes = [Node(name=f"n{k}", op=op, inputs=(f"n{k - 1}" if k else "x",)) for k, op in enumerate(ops)]
    return graph_of(shape, *nodes, outputs=(nodes[-1].name,))


def left(graph: Graph) -> list[Op]:
    """The operators of the canonical graph, which computes the same and has nothing left to do."""
    done = Canonicalise().rewrite(graph)
    assert done.preserves is Preserves.EXACT
    assert_preserves(Canonicalise(), graph)
    assert not list(Canonicalise.candidates(done.graph))
    return [node.op for node in done.graph.nodes]


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ((Identity(), Tanh()), [Tanh()]),
        ((Relu(), Relu()), [Relu()]),
        ((Sigmoid(), Relu(), Elu(), LeakyRelu(), Relu6(), Abs()), [Sigmoid()]),
        ((Relu6(), Clamp(min=-1.0, max=7.0)), [Relu6()]),
        ((Tanh(), Dropout(p=0.0)), [Tanh()]),
        ((Tanh(), Add()), [Tanh()]),
        ((Tanh(), Mul()), [Tanh()]),
        ((Tanh(), Concat(dim=2)), [Tanh()]),
        ((Tanh(), Reshape(shape=(4, 3, 2))), [Tanh()]),
        ((Tanh(), Reshape(shape=(-1, 3, 2))), [Tanh()]),
        ((Tanh(), Expand(shape=(4, -1, -1))), [Tanh()]),
        ((Tanh(), Pad(padding=(0, 0))), [Tanh()]),
        ((Tanh(), Slice(axis=-1, length=2)), [Tanh()]),
        ((Tanh(), Select(axis=2, indices=(0, 1, 2))), [Tanh()]),
        ((Tanh(), Permute(dims=(0, 1, 2, 3))), [Tanh()]),
        ((Tanh(), MaxPool2d(kernel_size=1)), [Tanh()]),
        ((Tanh(), AvgPool2d(kernel_size=1, divisor_override=1)), [Tanh()]),
        ((Tanh(), AdaptiveMaxPool2d(output_size=(3, 2))), [Tanh()]),
        ((Tanh(), Affine()), [Tanh()]),
        ((Flatten(), Flatten()), [Flatten()]),
        ((Tanh(), Reshape(shape=(12, 2)), Reshape(shape=(2, 3, 4))), [Tanh(), Reshape(shape=(2, 3, 4))]),
        ((Reshape(shape=(12, 2)), Flatten(start_dim=2), Flatten()), [Flatten()]),
        ((Reshape(shape=(-1,)),), [Flatten()]),
        ((Tanh(), Unsqueeze(dim=2), Squeeze(dim=2)), [Tanh()]),
        ((Tanh(), Permute(dims=(0, 2, 1, 3)), Permute(dims=(0, 2, 1, 3))), [Tanh()]),
        ((Permute(dims=(0, 2, 3, 1)), Permute(dims=(0, 3, 2, 1))), [Permute(dims=(0, 1, 3, 2))]),
        ((Slice(start=1, length=3), Slice(axis=-3, start=1, length=2)), [Slice(axis=-3, start=2, length=2)]),
        ((Select(indices=(1, 2)),), [Slice(start=1, length=2)]),
        ((Clamp(min=0.0),), [Relu()]),
        ((Clamp(min=0.0, max=6.0),), [Relu6()]),
        ((Affine(shift=3.0), Relu6(), Affine(scale=1 / 6)), [Hardsigmoid()]),
        ((Affine(shift=3.0), Clamp(min=0.0, max=6.0), Affine(scale=1 / 6)), [Hardsigmoid()]),
    ],
)
def test_rules(ops: tuple[Op, ...], expected: list[Op]) -> None:
    assert left(chain(*ops)) == expected


@pytest.mark.parametrize(
    "ops",
    [
        (Relu(), Tanh(), Relu()),
        (Relu(), Relu6()),
        (Relu(), Prelu()),  # its slope is a parameter
        (Tanh(), Dropout(p=0.1)),
        (Permute(dims=(0, 2, 3, 1)), Flatten()),
        (Slice(length=2), Slice(axis=2, length=2)),
        (Select(indices=(1, 0)),),
        (Select(indices=(0, 2)),),
        (MaxPool2d(kernel_size=3, stride=1, padding=1),),
        (AvgPool2d(kernel_size=1, divisor_override=2),),
        (Reshape(shape=(12, 2)),),
        (Affine(shift=3.0), Relu6(), Affine(scale=0.16)),
        (Affine(shift=2.0), Relu6(), Affine(scale=1 / 6)),
        (BatchNorm(), BatchNorm()),
    ],
)
def test_what_stays(ops: tuple[Op, ...]) -> None:
    with pytest.raises(PassRefused, match="canonical already; there is nothing to do"):
        Canonicalise().rewrite(chain(*ops))


def node(name: str, op: Op, *inputs: str) -> Node:
    return Node(name=name, op=op, inputs=inputs)


@pytest.mark.parametrize("kind", [Add, Mul])
def test_nested_operands_are_joined_where_nothing_else_reads_them(kind: Any) -> None:
    nodes = [node("a", Tanh(), "x"), node("b", kind(), "a", "x"), node("c", kind(), "x", "b"), node("d", Relu(), "c")]
    graph = graph_of(IMAGE, *nodes, outputs=("d",))
    done = Canonicalise().rewrite(graph)
    assert done.graph["c"].inputs == ("x", "a", "x")
    assert left(graph) == [Tanh(), kind(), Relu()]
    for twice in (
        graph.replace(outputs=("d", "b")),
        graph_of(IMAGE, *nodes[:2], node("d", kind(), "b", "b"), outputs=("d",)),
    ):
        assert not list(Canonicalise.candidates(twice))


def test_what_one_round_leaves_to_the_next() -> None:
    """The inner sum is read once only after the reshapes that led back to it are gone."""
    graph = graph_of(
        IMAGE,
        node("a", Add(), "x", "x"),
        node("there", Unsqueeze(dim=1), "a"),
        node("back", Squeeze(dim=1), "there"),
        node("b", Add(), "back", "x"),
        outputs=("b",),
    )
    assert left(graph) == [Add()]
    assert Canonicalise().rewrite(graph).graph["b"].inputs == ("x", "x", "x")


def test_nested_concatenations_along_one_axis() -> None:
    inner, other = node("a", Concat(dim=-3), "x", "x"), node("a", Concat(dim=2), "x", "x")
    outer = node("b", Concat(), "a", "x")
    assert Canonicalise().rewrite(graph_of(IMAGE, inner, outer, outputs=("b",))).graph["b"].inputs == ("x", "x", "x")
    with pytest.raises(PassRefused):
        Canonicalise().rewrite(graph_of(IMAGE, other, node("b", Concat(), "a", "a"), outputs=("b",)))


def test_slices_put_together_again() -> None:
    nodes = [
        node("a", Tanh(), "x"),
        node("p", Slice(length=1), "a"),
        node("q", Slice(start=1, length=3), "a"),
        node("b", Concat(), "p", "q"),
    ]
    assert left(graph_of(IMAGE, *nodes, outputs=("b",))) == [Tanh()]
    swapped = [*nodes[:3], node("b", Concat(), "q", "p")]
    assert not list(Canonicalise.candidates(graph_of(IMAGE, *swapped, outputs=("b",))))


@pytest.mark.parametrize("turned", [False, True])
def test_activations_spelled_out(turned: bool) -> None:
    def times(gate: str) -> tuple[str, str]:
        return (gate, "x") if turned else ("x", gate)

    silu = [node("s", Sigmoid(), "x"), node("y", Mul(), *times("s"))]
    assert left(graph_of(IMAGE, *silu, outputs=("y",))) == [Silu()]
    relu6 = [node("shift", Affine(shift=3.0), "x"), node("r", Clamp(min=0.0, max=6.0), "shift")]
    gate = [*relu6, node("g", Affine(scale=1 / 6), "r"), node("y", Mul(), *times("g"))]
    late = [*relu6, node("m", Mul(), *times("r")), node("y", Affine(scale=1 / 6), "m")]
    for nodes in (gate, late):
        assert left(graph_of(IMAGE, *nodes, outputs=("y",))) == [Hardswish()]
        read = graph_of(IMAGE, *nodes, outputs=("y", "r"))
        assert Hardswish() not in left(read)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("half", ["before", "after", "inside"])
def test_gelu_spelled_out(half: str, turned: bool) -> None:
    outer = Affine(scale=0.5, shift=0.5) if half == "inside" else Affine(shift=1.0)
    nodes = [node("r", Affine(scale=math.sqrt(0.5)), "x"), node("e", Erf(), "r"), node("g", outer, "e")]
    x = "h" if half == "before" else "x"
    nodes += [node("h", Affine(scale=0.5), "x")] if half == "before" else []
    nodes += [node("y", Mul(), *(("g", x) if turned else (x, "g")))]
    nodes += [node("z", Affine(scale=0.5), "y")] if half == "after" else []
    last = nodes[-1].name
    assert left(graph_of(IMAGE, *nodes, outputs=(last,))) == [Gelu()]
    assert not list(Canonicalise.candidates(graph_of(IMAGE, *nodes, outputs=(last, "e"))))
    wrong = [n.with_op(scale=0.7) if n.name == "r" else n for n in nodes]
    assert not list(Canonicalise.candidates(graph_of(IMAGE, *wrong, outputs=(last,))))


def test_an_output_may_become_an_input() -> None:
    graph = graph_of((3,), node("a", Identity(), "x"), outputs=("a",))
    done = Canonicalise().rewrite(graph)
    assert (done.graph.nodes, done.graph.outputs) == ((), ("x",))


def test_a_state_without_edges_is_its_bias_again() -> None:
    grown = AddEdge(source="x", target="head").rewrite(empty()).graph
    shrunk = RemoveEdge(source="x", target="head").rewrite(grown).graph
    assert Canonicalise().rewrite(shrunk).graph.hash == empty().hash


def test_dead_nodes_go_with_their_tensors() -> None:
    graph = mlp()
    dead = [Node(name="dead", op=Linear(out_features=2), inputs=("fc1",)), node("deader", Dropout(), "dead")]
    done = Canonicalise().rewrite(graph.replace(nodes=[*graph.nodes, *dead]))
    assert done.graph.hash == graph.hash
    assert done.preserves is Preserves.EVAL  # the dead dropout drew numbers
    assert {edit.key for edit in done.edits} == {"dead.weight", "dead.bias"}  # type: ignore[union-attr]


@given(graph=graphs())
def test_a_second_run_finds_nothing(graph: Graph) -> None:
    for step in Canonicalise.candidates(graph):
        again = step.rewrite(graph).graph
        assert not list(Canonicalise.candidates(again))
        with pytest.raises(PassRefused):
            step.check(again)
