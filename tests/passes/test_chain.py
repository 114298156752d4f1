"""Blocks that read the value before the one they are put behind: who reads what afterwards, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from growir.document import to_data
from growir.edits import Copy
from growir.errors import PassRefused
from growir.graph import Graph, Input, Node
from growir.ops import Add, Gelu, LayerNorm, Linear, Op, Relu
from growir.passes import Stack, pass_from_data
from growir.replay import check_history
from growir.rewrite import Preserves
from growir.testing import assert_preserves, outputs, random_batch, random_network
from growir.verify import load, verify
from tests.wiring import unnamed, with_weights_of


def node(name: str, op: Op, *inputs: str, **fields: Any) -> Node:
    return Node(name=name, op=op, inputs=inputs, **fields)


def pair(module: str, before: str, after: str, width: int = 4) -> list[Node]:
    """left(before) + right(after)."""
    return [
        node(f"{module}.left", Linear(out_features=width), before),
        node(f"{module}.right", Linear(out_features=width), after),
        node(f"{module}.sum", Add(), f"{module}.left", f"{module}.right"),
    ]


def of(*nodes: Node, outputs: tuple[str, ...] = ()) -> Graph:
    entry = Input(name="x", shape=("N", 4))
    return verify(Graph(inputs=(entry,), nodes=nodes, outputs=outputs or (nodes[-1].name,)))


def chain(count: int, *extra: Node, outputs: tuple[str, ...] = ()) -> Graph:
    """Blocks that each read what the last two gave, x being there twice before them."""
    nodes: list[Node] = []
    s0, s1 = "x", "x"
    for k in range(count):
        nodes += pair(f"b.{k}", s0, s1)
        s0, s1 = s1, f"b.{k}.sum"
    return of(*nodes, node("head", Linear(out_features=2), s1), *extra, outputs=outputs or ("head",))


def document(width: int = 4, *inputs: str) -> Graph:
    """A pair as a document, with two inputs or those named."""
    names = inputs or ("old", "new")
    entries = tuple(Input(name=name, shape=("N", width)) for name in names)
    nodes = [Node(name=n.name[2:], op=n.op, inputs=n.inputs) for n in pair("p", names[0], names[-1])[:2]]
    total = node("sum", Add(), "left", "right")
    return verify(Graph(inputs=entries, nodes=(*nodes, total), outputs=("sum",)))


def reads(graph: Graph, module: str) -> tuple[str, str]:
    return graph[f"{module}.left"].inputs[0], graph[f"{module}.right"].inputs[0]


@pytest.mark.parametrize("copy_weights", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_blocks_behind_read_one_further_and_those_before_what_they_did(k: int, copy_weights: bool) -> None:
    graph = chain(4)
    step = Stack(block=f"b.{k}", before=f"b.{k - 1}.sum", copy_weights=copy_weights, exact=False)
    done = step.rewrite(graph)
    assert done.preserves is Preserves.NOTHING
    # The values in order, with the new block behind b.k: every block reads the two before it.
    values = ["x", "x", *(f"b.{j}.sum" for j in range(k + 1)), "b.4.sum", *(f"b.{j}.sum" for j in range(k + 1, 4))]
    for at, value in enumerate(values[2:]):
        assert reads(done.graph, value[:3]) == (values[at], values[at + 1])
    assert done.graph["head"].inputs == (values[-1],)
    kinds = {type(edit) is Copy for edit in done.edits}
    assert kinds == {copy_weights}
    check_history(load(to_data(done.graph)))


def test_the_function_is_that_of_the_longer_chain() -> None:
    before, longer = random_network(chain(3)), chain(4)
    after = before.apply(Stack(block="b.1", before="b.0.sum", copy_weights=True, exact=False))
    assert unnamed(after.graph).hash == unnamed(longer).hash
    batch = random_batch(longer)
    assert np.array_equal(outputs(after, batch)[0], outputs(with_weights_of(longer, after), batch)[0])


def test_a_document_reads_what_lies_before_and_the_value_in_this_order() -> None:
    graph = chain(3)
    step = Stack(block=document(), after="b.1.sum", before="b.0.sum", exact=False, module="b.3")
    done = step.rewrite(graph).graph
    assert reads(done, "b.3") == ("b.0.sum", "b.1.sum")
    same = Stack(block="b.1", before="b.0.sum", exact=False).rewrite(graph).graph
    assert done.replace(history=None).hash == same.replace(history=None).hash
    fields = {"after": "b.1.sum", "before": "b.0.sum", "exact": False, "module": "b.3"}
    assert pass_from_data({"pass": "stack", "block": to_data(document()), **fields}) == step


def test_what_reads_the_value_before_at_the_side_goes_along_and_what_the_value_needs_stays() -> None:
    graph = chain(3, node("aside", Gelu(), "b.0.sum"), outputs=("head", "aside", "b.0.sum"))
    done = Stack(block="b.1", before="b.0.sum", exact=False).rewrite(graph).graph
    assert done["aside"].inputs == ("b.1.sum",)
    assert done.outputs == ("head", "aside", "b.1.sum")
    assert reads(done, "b.1") == ("x", "b.0.sum")


def test_what_no_output_depends_on_stays_and_stands_in_nobodys_way() -> None:
    graph = of(
        *pair("b.0", "x", "x"), *pair("b.1", "x", "b.0.sum", 6), node("unused", Relu(), "b.0.sum"), outputs=("b.1.sum",)
    )
    done = Stack(block=wide(4, 6), after="b.1.sum", before="b.0.sum", exact=False).rewrite(graph).graph
    assert done["unused"].inputs == ("b.0.sum",)


def test_a_value_may_come_from_the_input_of_the_graph() -> None:
    done = Stack(block=document(), after="b.0.sum", before="x", exact=False).rewrite(chain(2)).graph
    assert (reads(done, "block_1"), reads(done, "b.1")) == (("x", "b.0.sum"), ("b.0.sum", "block_1.sum"))


def test_which_value_is_the_one_before_follows_from_input() -> None:
    graph = chain(3)
    step = Stack(
        block="b.2", input="b.0.sum", before="b.1.sum", exact=False
    )  # the other way round than it stands there
    done = step.rewrite(graph).graph
    assert reads(done, "b.3") == ("b.2.sum", "b.1.sum")
    assert done.history is not None
    assert (done.history.steps[0].fields["input"], done.history.steps[0].fields["before"]) == ("b.0.sum", "b.1.sum")


def test_a_step_without_it_is_recorded_as_before_there_was_one() -> None:
    graph = chain(1)
    step = Stack(block=document(4, "x"), after="b.0.sum", exact=False)
    history = step.rewrite(graph).graph.history
    assert history is not None
    assert set(history.steps[0].fields) == {"block", "after", "input", "copy_weights", "exact", "module", "seed"}
    assert "before" not in step.model_dump_json()


# -- exact ------------------------------------------------------------------------------------------------------------


def residual(module: str, before: str, after: str) -> list[Node]:
    """after + down(act(up(before) + over(after)))."""
    return [
        node(f"{module}.up", Linear(out_features=6), before),
        node(f"{module}.over", Linear(out_features=6), after),
        node(f"{module}.inner", Add(), f"{module}.up", f"{module}.over"),
        node(f"{module}.act", Gelu(), f"{module}.inner"),
        node(f"{module}.down", Linear(out_features=4), f"{module}.act"),
        node(f"{module}.sum", Add(), after, f"{module}.down"),
    ]


RESIDUAL = of(*residual("r.0", "x", "x"), *residual("r.1", "x", "r.0.sum"), *residual("r.2", "r.0.sum", "r.1.sum"))


@pytest.mark.parametrize("copy_weights", [False, True])
def test_an_exact_one_keeps_the_function_where_nothing_reads_the_value_before(copy_weights: bool) -> None:
    step = Stack(block="r.2", before="r.1.sum", copy_weights=copy_weights)
    grown = assert_preserves(step, RESIDUAL)
    assert grown.graph["r.3.up"].inputs == ("r.1.sum",)
    assert grown.graph.outputs == ("r.3.sum",)


def test_an_exact_one_is_refused_where_readers_go_along() -> None:
    with pytest.raises(PassRefused) as refused:
        Stack(block="r.1", before="r.0.sum").rewrite(RESIDUAL)
    assert str(refused.value) == (
        "a block after r.1.sum cannot keep the function, as an exact one does: r.2.up would read r.1.sum in place of "
        "r.0.sum; with exact=False the function changes"
    )
    aside = RESIDUAL.replace(outputs=("r.2.sum", "r.1.sum"))
    with pytest.raises(PassRefused, match=r"does: an output would read r\.2\.sum in place of r\.1\.sum"):
        Stack(block="r.2", before="r.1.sum").rewrite(aside)


def test_a_block_that_is_not_residual_is_refused_as_without_it() -> None:
    with pytest.raises(
        PassRefused, match=r"a block after b\.1\.sum cannot start as the identity, as an exact one does"
    ):
        Stack(block="b.1", before="b.0.sum").rewrite(chain(3))


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"before": "none"}, "before 'none' does not exist."),
        ({"before": "b.1.sum"}, "a block after b.1.sum: before is the value itself; it names the value one step before "
         "b.1.sum"),
        ({"before": "b.2.sum"}, "a block after b.1.sum: before is b.2.sum, which is computed from it; it names the"),
        ({"block": "b.0"}, "the block up to b.0.sum reads nothing beside x, but with before it must read one value "
         "beside it, the one that lies before"),
        ({"block": document(), "before": None}, "a block has one input, but this one has 2: old, new; give before, the "
         "value that the first of them stands for"),
        ({"block": document(4, "x")}, "with before a block has two inputs, what lies before and the value itself, but "
         "this one has 1: x"),
        ({"block": document(4, "x", "y", "z")}, "with before a block has two inputs, what lies before and the value "
         "itself, but this one has 3: x, y, z"),
        ({"before": "b.1.act"}, "a block after b.1.sum: the value before it, b.1.act, is (N, 6), but there the block "
         "takes (N, 4) (b.0.sum); it must take that value's shape too"),
        ({"block": 3}, "a block is a module by its path, or a list of the names of its nodes, or a graph document with "
         "one input, or two with before"),
    ],
)  # fmt: skip
def test_what_fits_nowhere_is_refused(fields: dict[str, Any], message: str) -> None:
    graph = of(
        *pair("b.0", "x", "x"),
        node("b.1.act", Linear(out_features=6), "x"),
        *pair("b.1", "x", "b.0.sum"),
        *pair("b.2", "b.0.sum", "b.1.sum"),
        node("c", Linear(out_features=4), "b.1.act"),
        node("last", Add(), "b.2.sum", "c"),
    )
    given: dict[str, Any] = {"block": "b.2", "after": "b.1.sum", "before": "b.0.sum", "exact": False, **fields}
    with pytest.raises(PassRefused) as refused:
        Stack(**given).rewrite(graph)
    assert message in str(refused.value)


def wide(before: int, after: int) -> Graph:
    """A pair as a document that reads values of two widths, and gives one of the second."""
    entries = (Input(name="old", shape=("N", before)), Input(name="new", shape=("N", after)))
    return verify(Graph(inputs=entries, nodes=tuple(pair("p", "old", "new", after)), outputs=("p.sum",)))


def test_what_could_not_read_the_value_is_named() -> None:
    graph = of(*pair("b.0", "x", "x"), *pair("b.1", "x", "b.0.sum", 6), *pair("b.2", "b.0.sum", "b.1.sum", 6))
    step = Stack(block=wide(4, 6), after="b.1.sum", before="b.0.sum", exact=False)
    with pytest.raises(PassRefused) as refused:
        step.rewrite(graph)
    assert str(refused.value) == (
        "a block after b.1.sum: b.2.left reads b.0.sum, which is (N, 4), and would read b.1.sum, which is (N, 6); put "
        "the block where both values have one shape, or where nothing later reads b.0.sum"
    )
    aside = graph.replace(outputs=("b.1.sum", "b.0.sum"), nodes=graph.nodes[:6])
    with pytest.raises(PassRefused, match=r"b\.1\.sum: an output reads b\.0\.sum, which is"):
        step.rewrite(aside)
    alone = aside.replace(outputs=("b.1.sum",))
    assert reads(step.rewrite(alone).graph, "block_1.p") == ("b.0.sum", "b.1.sum")


def test_a_block_reads_no_more_than_two() -> None:
    parts = residual("r.0", "x", "x")
    memory = [node("mask", Relu(), "x"), node("norm", LayerNorm(), "x")]
    parts = [*memory, parts[0].with_inputs(["mask"]), parts[1].with_inputs(["norm"]), *parts[2:]]
    with pytest.raises(
        PassRefused, match=r"the block up to r\.0\.sum reads mask, norm beside x, but with before it must"
    ):
        Stack(block="r.0", before="mask").rewrite(of(*parts))
