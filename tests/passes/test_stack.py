"""One block more or fewer: names, weights, what starts at zero, what an optimizer goes on with, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import growir
from growir import live
from growir.document import to_data
from growir.edits import Copy
from growir.errors import PassRefused
from growir.families import family_of, network
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import (
    Add,
    Affine,
    BatchNorm,
    Dropout,
    Exp,
    Gelu,
    LayerNorm,
    Linear,
    Log1p,
    MatMul,
    Mul,
    Op,
    Parameter,
    Pow,
    Relu,
    RmsNorm,
)
from growir.passes import InsertBlock, Sequence, Stack, Unstack, pass_from_data
from growir.replay import check_history
from growir.rewrite import Preserves
from growir.stages import repeat_of, stages_of
from growir.testing import assert_preserves, outputs, random_batch, random_network
from growir.verify import load, verify
from tests.zoo.registry import ZOO


def node(name: str, op: Op, *inputs: str, **fields: Any) -> Node:
    return Node(name=name, op=op, inputs=inputs, **fields)


def of(*nodes: Node, shape: tuple[int, ...] = (4,)) -> Graph:
    return verify(Graph(inputs=(Input(name="x", shape=("N", *shape)),), nodes=nodes, outputs=(nodes[-1].name,)))


def residual(module: str, x: str, *, last: Op | None = None) -> list[Node]:
    """x + down(gelu(up(norm(x)))), and an operator behind it."""
    found = [
        node(f"{module}.norm", LayerNorm(), x),
        node(f"{module}.up", Linear(out_features=6), f"{module}.norm"),
        node(f"{module}.act", Gelu(), f"{module}.up"),
        node(f"{module}.down", Linear(out_features=4), f"{module}.act"),
        node(f"{module}.sum", Add(), x, f"{module}.down"),
    ]
    return [*found, node(f"{module}.last", last, found[-1].name)] if last is not None else found


TWO = of(*residual("layers.0", "x"), *residual("layers.1", "layers.0.sum"))
RESNET = network("Basic3ResNet-2-1-1", (1, 6, 6), 3, width=2)
PLAIN = network("Plain3Net-2-1-1", (1, 6, 6), 3, width=2)


@pytest.mark.parametrize("copy_weights", [False, True])
@pytest.mark.parametrize("graph", [TWO, RESNET], ids=["rows", "maps"])
def test_an_exact_block_keeps_the_function_and_all_of_it_learns(graph: Graph, copy_weights: bool) -> None:
    module = stages_of(graph)[0].name
    step = Stack(block=f"{module}.1", copy_weights=copy_weights)
    grown = assert_preserves(step, graph)
    assert stages_of(grown.graph)[0].depth == 3
    fresh = {key for key in grown.arrays if key.startswith(f"{module}.2.")}
    assert fresh == {key.replace(".1.", ".2.") for key in grown.arrays if key.startswith(f"{module}.1.")}
    # After one step also what stands before the zeros has a gradient.
    net, batch = grown.to_torch(), random_batch(grown.graph)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (net(*batch) * torch.arange(1.0, 1.0 + net(*batch).shape[1])).square().sum().backward()
        optimizer.step()
    still = {key for key, p in net.named_parameters() if key in fresh and (p.grad is None or not p.grad.any())}
    assert not still


@pytest.mark.parametrize(
    ("op", "kept"),
    [
        (Pow(exponent=3.0), Preserves.EXACT),  # as in GPT-2's GELU
        (Pow(exponent=0.5), Preserves.NOTHING),
        (Log1p(), Preserves.NOTHING),
        (Exp(), Preserves.NOTHING),
    ],
)
def test_an_exact_block_is_exact_where_nothing_in_it_can_be_infinite(op: Op, kept: Preserves) -> None:
    graph = of(
        *residual("layers.0", "x"),
        node("layers.1.up", Linear(out_features=6), "layers.0.sum"),
        node("layers.1.act", op, "layers.1.up"),
        node("layers.1.down", Linear(out_features=4), "layers.1.act"),
        node("layers.1.sum", Add(), "layers.0.sum", "layers.1.down"),
    )
    step = Stack(block="layers.1")
    assert step.preserves(graph) is kept
    if kept is Preserves.EXACT:
        assert_preserves(step, graph)


def test_a_copy_is_the_block_but_for_what_starts_at_zero() -> None:
    before = random_network(RESNET)
    after = before.apply(Stack(block="stage1.0", after="stage1.1.act", copy_weights=True))
    for key, array in after.arrays.items():
        if not key.startswith("stage1.2."):
            assert np.array_equal(array, before.arrays[key])
        elif key in ("stage1.2.norm2.weight", "stage1.2.norm2.bias"):
            assert not array.any()
        else:
            assert np.array_equal(array, before.arrays[key.replace(".2.", ".0.")])


def test_a_copy_as_it_is_repeats_the_function() -> None:
    before = random_network(PLAIN)
    step = Stack(block="stage1.1", copy_weights=True, exact=False)
    done = step.rewrite(PLAIN)
    assert done.preserves is Preserves.NOTHING
    assert all(isinstance(edit, Copy) for edit in done.edits)
    after = before.apply(step)
    assert family_of(after.graph) == growir.families.family("Plain3Net-3-1-1")
    # The same as the block twice by hand.
    twice = {f"stage1.2.{key[9:]}": array for key, array in before.arrays.items() if key.startswith("stage1.1.")}
    by_hand = Network(network("Plain3Net-3-1-1", (1, 6, 6), 3, width=2), {**before.arrays, **twice})
    batch = random_batch(PLAIN)
    assert np.array_equal(outputs(after, batch)[0], outputs(by_hand, batch)[0])


def test_a_document_stands_where_only_a_head_was() -> None:
    head = stages_of(RESNET)[1].blocks[0]
    block = repeat_of(RESNET, head)
    assert isinstance(block, Graph)
    step = Stack(block=block, after=head.output, module="stage2.1")
    grown = assert_preserves(step, RESNET)
    assert str(family_of(grown.graph)) == "Basic3ResNet-2-2-1"
    assert grown.graph.replace(history=None).hash == network("Basic3ResNet-2-2-1", (1, 6, 6), 3, width=2).hash
    again = pass_from_data({"pass": "stack", "block": to_data(block), "after": head.output, "module": "stage2.1"})
    assert again == step


def test_names_go_on_where_they_never_were() -> None:
    step = Stack(block="layers.0")  # behind the first of two
    graph = step.rewrite(TWO).graph
    assert [block.output for block in stages_of(graph)[0].blocks] == ["layers.0.sum", "layers.2.sum", "layers.1.sum"]
    graph = Unstack(block="layers.2").rewrite(graph).graph
    assert [b.output for b in stages_of(Stack(block="layers.1").rewrite(graph).graph)[0].blocks][-1] == "layers.3.sum"
    nameless = of(node("a", Linear(out_features=4), "x"), node("s", Add(), "x", "a"))
    assert Stack(block=("a", "s")).rewrite(nameless).created == ("block_1.a", "block_1.s")


def test_blocks_go_between_all_others_in_one_rewrite() -> None:
    steps = tuple(Stack(block=f"layers.{k}", copy_weights=True) for k in (0, 1))
    grown = assert_preserves(Sequence(passes=steps), TWO)
    order = [block.output.split(".")[1] for block in stages_of(grown.graph)[0].blocks]
    assert order == ["0", "2", "1", "3"]


def test_a_history_says_the_nodes_and_is_replayed() -> None:
    before = random_network(TWO)
    after = before.apply(Stack(block="layers.1", copy_weights=True)).apply(Unstack(block="layers.0"))
    assert after.graph.history is not None
    stacked, removed = after.graph.history.steps
    assert stacked.fields["block"] == ["layers.1.norm", "layers.1.up", "layers.1.act", "layers.1.down", "layers.1.sum"]
    assert (stacked.fields["after"], stacked.fields["module"]) == ("layers.1.sum", "layers.2")
    assert removed.fields["input"] == "x"
    check_history(load(to_data(after.graph)))


@pytest.mark.parametrize("last", [Dropout(p=0.5), Relu(), LayerNorm()], ids=["dropout", "relu", "norm"])
def test_what_changes_the_sum_is_no_identity(last: Op) -> None:
    graph = of(*residual("layers.0", "x", last=last), *residual("layers.1", "layers.0.last", last=last))
    if isinstance(last, Relu):  # behind a relu another one changes nothing, but the input may be negative
        assert_preserves(Stack(block="layers.1"), graph)
        with pytest.raises(
            PassRefused, match="relu, which keeps numbers from 0 to inf, and the block reads -inf to inf"
        ):
            Stack(block="layers.0", after="x").rewrite(graph)
        return
    with pytest.raises(PassRefused, match=f"layers.1.last is {last.kind()}, which does not give back what it reads"):
        Stack(block="layers.1").rewrite(graph)


def test_a_block_that_draws_keeps_the_function_in_eval_mode() -> None:
    parts = residual("layers.0", "x")
    noisy = [*parts[:4], node("layers.0.drop", Dropout(p=0.5), parts[3].name)]
    graph = of(*noisy, parts[4].with_inputs(["x", "layers.0.drop"]))
    step = Stack(block="layers.0")
    assert step.preserves(graph) is Preserves.EVAL
    assert_preserves(step, graph)


def test_numbers_can_be_given_for_the_last_norm() -> None:
    keys = {"stage1.2.norm2.weight": np.array([0.5, 2.0])}
    step = Stack(block="stage1.1", values=keys)
    assert step.preserves(RESNET) is Preserves.NOTHING
    assert np.array_equal(random_network(RESNET).apply(step).arrays["stage1.2.norm2.weight"], [0.5, 2.0])
    with pytest.raises(PassRefused, match="has no fresh block that values could fill"):
        Stack(block="stage1.1", copy_weights=True, values={"stage1.1.norm2.weight": np.ones(2)}).rewrite(RESNET)


def test_what_a_block_shares_inside_it_shares_again_and_what_is_outside_stays_shared() -> None:
    parts = residual("layers.0", "x")
    twin = node("layers.0.twin", Linear(out_features=4), "layers.0.act", tied={"weight": "layers.0.down.weight"})
    shared = [*parts[:4], twin, node("layers.0.sum", Add(), "x", "layers.0.down", "layers.0.twin")]
    outer = node("stem", LayerNorm(), "x")
    norm = parts[0].with_inputs(["stem"]).model_copy(update={"tied": {"weight": "stem.weight", "bias": "stem.bias"}})
    graph = of(outer, norm, *shared[1:5], shared[5].with_inputs(["stem", "layers.0.down", "layers.0.twin"]))
    done = Stack(block="layers.0", exact=False, copy_weights=True).rewrite(graph)
    assert dict(done.graph["layers.1.twin"].tied) == {"weight": "layers.1.down.weight"}
    assert dict(done.graph["layers.1.norm"].tied) == {"weight": "stem.weight", "bias": "stem.bias"}
    with pytest.raises(PassRefused, match=r"shares its parameters with layers\.0\.twin"):
        Stack(block="layers.0").rewrite(graph)


def decoder(k: int, x: str) -> list[Node]:
    """A block that adds to x what it makes of it and of a memory that comes later in the document."""
    name = f"dec.{k}"
    return [
        node(f"{name}.query", Linear(out_features=4), x),
        node(f"{name}.key", Linear(out_features=4), "memory"),
        node(f"{name}.product", Mul(), f"{name}.query", f"{name}.key"),
        node(f"{name}.out", Linear(out_features=4), f"{name}.product"),
        node(f"{name}.sum", Add(), x, f"{name}.out"),
    ]


def test_what_a_block_adds_to_is_its_chain_whatever_it_reads_beside() -> None:
    stem = [node("stem", Linear(out_features=4), "x"), node("memory", Linear(out_features=4), "x")]
    graph = of(*stem, *decoder(0, "stem"), *decoder(1, "dec.0.sum"))
    (stage,) = stages_of(graph)
    assert [block.input for block in stage.blocks] == ["stem", "dec.0.sum"]
    assert not stage.headed
    done = Stack(block="dec.0", copy_weights=True).rewrite(graph)
    assert [done.graph[f"dec.2.{name}"].inputs[0] for name in ("query", "key")] == ["dec.0.sum", "memory"]
    assert_preserves(Stack(block="dec.0"), graph)
    assert Unstack(block="dec.0").rewrite(graph).graph["dec.1.query"].inputs == ("stem",)


def test_blocks_that_share_their_tensors_share_them_with_one_more() -> None:
    parts = [*residual("layers.0", "x"), *residual("layers.1", "layers.0.sum")]
    for k, each in enumerate(parts[5:], 5):
        owned = {"weight", "bias"} if each.op.kind() in ("linear", "layer_norm") else set()
        shared = {name: f"{parts[k - 5].name}.{name}" for name in owned}
        parts[k] = each.model_copy(update={"tied": shared})
    graph = of(*parts)
    (stage,) = stages_of(graph)
    assert (stage.depth, stage.headed) == (2, False)
    before = random_network(graph)
    for block in ("layers.0", "layers.1"):
        after = before.apply(Stack(block=block, exact=False, copy_weights=True))
        assert set(after.arrays) == set(before.arrays)
        assert stages_of(after.graph)[0].depth == 3


def test_a_product_of_what_is_zero_together_never_learns() -> None:
    graph = of(
        node("b.0.a", Linear(out_features=4), "x"),
        node("b.0.square", Mul(), "b.0.a", "b.0.a"),
        node("b.0.sum", Add(), "x", "b.0.square"),
    )
    with pytest.raises(PassRefused, match=r"b\.0\.square multiplies values that are zero together"):
        Stack(block="b.0").rewrite(graph)


def with_a_value(how: str) -> list[Node]:
    """W gelu(up(x)) + b + x, where W is a value: on the right of a product as in GPT-2, or the weight of a layer."""
    weight = node("b.0.w", Parameter(shape=(4, 4)))
    ends = {
        "product": [
            node("b.0.matmul", MatMul(), "b.0.act", "b.0.w"),
            node("b.0.b", Parameter(shape=(4,))),
            node("b.0.down", Add(), "b.0.b", "b.0.matmul"),
        ],
        "layer": [node("b.0.down", Linear(), "b.0.act", "b.0.w")],
    }[how]
    up = [node("b.0.up", Linear(out_features=4), "x"), node("b.0.act", Gelu(), "b.0.up")]
    return [*up, weight, *ends, node("b.0.sum", Add(), "b.0.down", "x")]


@pytest.mark.parametrize("how", ["product", "layer"])
def test_a_block_whose_last_weight_is_a_value_starts_as_the_identity(how: str) -> None:
    grown = assert_preserves(Stack(block="b.0", copy_weights=True), of(*with_a_value(how)))
    assert not grown.arrays["b.1.w.weight"].any()
    assert grown.arrays["b.1.up.weight"].any()


def test_a_norm_that_scales_by_one_more_than_its_weight_ends_in_minus_one() -> None:
    graph = of(
        node("b.0.down", Linear(out_features=4), "x"),
        node("b.0.rms", RmsNorm(elementwise_affine=False), "b.0.down"),
        node("b.0.w", Parameter(shape=(4,))),
        node("b.0.one_more", Affine(shift=1.0), "b.0.w"),
        node("b.0.mul", Mul(), "b.0.rms", "b.0.one_more"),
        node("b.0.sum", Add(), "x", "b.0.mul"),
    )
    grown = assert_preserves(Stack(block="b.0", copy_weights=True), graph)
    assert np.all(grown.arrays["b.1.w.weight"] == -1.0)
    assert_preserves(InsertBlock(after="x", block=graph), graph)
    other = graph.replace(nodes=[n.with_op(shift=0.1) if n.name == "b.0.one_more" else n for n in graph.nodes])
    with pytest.raises(PassRefused, match=r"b\.0\.one_more is affine, which is not zero where its input is zero"):
        Stack(block="b.0").rewrite(other)
    given = Stack(block="b.0", values={"b.1.w.weight": np.zeros(4)})
    assert given.preserves(graph) is Preserves.NOTHING


def test_a_constant_is_not_zero() -> None:
    graph = of(
        node("b.0.mask", Parameter(shape=(4,), buffer=True)),
        node("b.0.down", Linear(out_features=4), "x"),
        node("b.0.kept", Mul(), "b.0.down", "b.0.mask"),
        node("b.0.sum", Add(), "x", "b.0.kept"),
    )
    grown = assert_preserves(Stack(block="b.0", copy_weights=True), graph)
    assert not grown.arrays["b.1.down.weight"].any()
    added = of(graph.nodes[0], node("b.0.sum", Add(), "x", "b.0.mask"))
    with pytest.raises(PassRefused, match=r"b\.0\.mask is parameter, which is not zero"):
        Stack(block="b.0").rewrite(added)


def test_why_an_inner_sum_is_no_identity_is_told() -> None:
    graph = of(
        node("b.0.scaled", Affine(scale=0.5), "x"),
        node("b.0.down", Linear(out_features=4), "x"),
        node("b.0.inner", Add(), "b.0.scaled", "b.0.down"),
        node("b.0.up", Linear(out_features=4), "b.0.inner"),
        node("b.0.sum", Add(), "b.0.inner", "b.0.up"),
    )
    with pytest.raises(PassRefused, match=r"no operand of b\.0\.inner is what the block reads"):
        Stack(block="b.0").rewrite(graph)


def test_what_is_frozen_stays_so_in_a_copy_and_learns_where_it_is_fresh() -> None:
    held = [n.model_copy(update={"frozen": ("weight",)}) if n.name.endswith("up") else n for n in TWO.nodes]
    graph = TWO.replace(nodes=held)
    assert Stack(block="layers.1", copy_weights=True).rewrite(graph).graph["layers.2.up"].frozen == ("weight",)
    assert Stack(block="layers.1").rewrite(graph).graph["layers.2.up"].frozen == ()
    last = [n.model_copy(update={"frozen": ("bias",)}) if n.name.endswith("down") else n for n in TWO.nodes]
    graph = TWO.replace(nodes=last)
    assert_preserves(Stack(block="layers.1"), graph)
    with pytest.raises(PassRefused, match=r"layers\.1\.down would stay at zero, because its bias is frozen"):
        Stack(block="layers.1", copy_weights=True).rewrite(graph)


@pytest.mark.parametrize("name", ["resnet", "decoder_rotary", "encoder_rms_swiglu", "vit_packed", "convnext"])
@pytest.mark.parametrize("copy_weights", [False, True])
def test_imported_networks_get_a_block_more(name: str, copy_weights: bool) -> None:
    entry = ZOO[name]
    net = growir.from_torch(entry.make().eval(), *entry.inputs())
    stage = stages_of(net.graph)[0]
    step = Stack(block=stage.blocks[-1].nodes, copy_weights=copy_weights)
    grown = net.apply(step)
    batch = entry.inputs()
    with torch.no_grad():
        old, new = (each.to_torch().eval()(*batch) for each in (net, grown))
    assert torch.allclose(old, new, rtol=0, atol=1e-9 * float(old.abs().max()))
    assert stages_of(grown.graph)[0].depth == stage.depth + 1
    removed = grown.apply(Unstack(block=stages_of(grown.graph)[0].blocks[-1].nodes))
    assert removed.graph.replace(history=None).hash == net.graph.replace(history=None).hash


def test_without_a_block_its_readers_read_what_it_read() -> None:
    before = random_network(TWO)
    after = before.apply(Unstack(block="layers.1"))
    assert after.graph.outputs == ("layers.0.sum",)
    assert set(after.arrays) == {key for key in before.arrays if key.startswith("layers.0.")}
    assert Unstack(block="layers.1").rewrite(TWO).preserves is Preserves.APPROXIMATE


def test_a_tensor_that_a_removed_block_owned_goes_to_its_next_user() -> None:
    nodes = [*residual("layers.0", "x"), *residual("layers.1", "layers.0.sum")]
    nodes[6] = nodes[6].model_copy(update={"tied": {"weight": "layers.0.up.weight"}})
    graph = of(*nodes)
    before = random_network(graph)
    after = before.apply(Unstack(block="layers.0"))
    assert np.array_equal(after.arrays["layers.1.up.weight"], before.arrays["layers.0.up.weight"])


# -- in training ------------------------------------------------------------------------------------------------------


MADE: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.01),
    "momentum": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9),
    "plain": lambda groups: torch.optim.SGD(groups, lr=0.01),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize("copies", ["carried", "fresh"])
def test_a_copy_goes_on_with_the_state_of_its_source(make: Any, copies: Any) -> None:
    module = random_network(TWO).to_torch()
    optimizer = make([{"params": [p], "weight_decay": 0.1 * k} for k, p in enumerate(module.parameters())])
    (batch,) = random_batch(TWO, 8)
    for _ in range(3):
        optimizer.zero_grad()
        module(batch).square().sum().backward()
        optimizer.step()
    step = Stack(block="layers.1", copy_weights=True)
    grown, report = live.grow(module, step, optimizer, verify=batch, copies=copies)
    assert not report.untrained
    params = dict(grown.named_parameters())
    groups = {id(p): k for k, group in enumerate(optimizer.param_groups) for p in group["params"]}
    for key, p in params.items():
        if not key.startswith("layers.2.") or key.startswith("layers.2.down"):
            continue
        source = params[key.replace(".2.", ".1.")]
        assert p.data_ptr() != source.data_ptr()
        assert torch.equal(p, source)
        assert p.grad is None
        assert groups[id(p)] == groups[id(source)]
        mine, theirs = optimizer.state.get(p, {}), optimizer.state.get(source, {})
        if copies == "fresh":
            assert not any(isinstance(value, torch.Tensor) for value in mine.values())
            continue
        assert mine.keys() == theirs.keys()
        for entry, value in theirs.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(mine[entry], value)
                assert mine[entry] is not value
    saved = optimizer.state_dict()
    optimizer.zero_grad()
    grown(batch).square().sum().backward()
    optimizer.step()
    optimizer.load_state_dict(saved)


def test_averages_and_masks_are_copied() -> None:
    module = random_network(TWO).to_torch()
    average = torch.optim.swa_utils.AveragedModel(module)
    mask = torch.zeros(6, 4)
    step = Stack(block="layers.1", copy_weights=True)
    _, report = live.grow(module, step, ema=[average], masks={"layers.1.up.weight": mask})
    state = average.module.state_dict()
    assert torch.equal(state["layers.2.up.weight"], state["layers.1.up.weight"])
    assert torch.equal(report.masks["layers.2.up.weight"], mask)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": "layers.7"}, "there is no module 'layers.7' in the graph. Did you mean 'layers.0' or 'layers.1'?"),
        ({"block": "layers.0", "after": "none"}, "after 'none' does not exist."),
        ({"block": ["layers.0.up", "layers.2"]}, "block: there is no node 'layers.2'."),
        ({"block": ["layers.0.up", "layers.1.up"]},
         "the nodes layers.0.up to layers.1.up are no block: a block has one output, but of these nodes others read "
         "layers.0.up, layers.1.up"),
        ({"block": ["layers.0.up"]}, "the value is (N, 6), but the block takes (N, 4) (layers.0.norm); it must"),
        ({"block": "layers.0", "input": "layers.1.sum"}, "the block does not read layers.1.sum; it reads x"),
        ({"block": "layers.0", "module": "layers.1"}, "the name layers.1.norm has been used; give another module"),
        ({"block": "layers.0", "module": "x" * 64 + ".1" * 67}, "a node would be called xxxx"),
        ({"block": 3}, "stack: block is 3: a block is a module by its path, or a list of the names of its nodes, or a"),
        ({"block": []}, "a block is a module by its path, or a list of the names of its nodes, or a graph document"),
        ({"block": TWO}, "stack: a document needs a place; give after, the value that it is put behind"),
        ({"block": TWO, "after": "x", "input": "x"}, "a document says itself what it reads; leave input out"),
        ({"block": "layers.0", "module": "layers.0.up"}, "module 'layers.0.up' cannot be one, since 'layers.0.up' is"),
        ({"block": TWO, "after": "x", "copy_weights": True}, "a document has no weights to copy; name a block of the"),
    ],
)  # fmt: skip
def test_what_is_no_block_or_fits_nowhere_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PassRefused) as refused:
        Stack(**fields).rewrite(TWO)
    assert message in str(refused.value)


def test_a_document_has_one_input_and_one_output() -> None:
    two = TWO.replace(outputs=["layers.0.sum", "layers.1.sum"])
    with pytest.raises(PassRefused, match=r"has one output, but this one has 2: layers\.0\.sum, layers\.1\.sum"):
        Stack(block=two, after="x").rewrite(TWO)


def test_a_plain_block_cannot_be_exact() -> None:
    with pytest.raises(PassRefused) as refused:
        Stack(block="stage1.1").rewrite(PLAIN)
    assert str(refused.value) == (
        "a block after stage1.1.act cannot start as the identity, as an exact one does: stage1.1.norm2 is batch_norm, "
        "which does not give back what it reads; with exact=False the function changes"
    )


def test_a_block_is_not_put_before_what_it_reads_beside() -> None:
    late = [*residual("layers.0", "x"), node("mask", Relu(), "layers.0.sum"), *residual("layers.1", "layers.0.sum")]
    late[-1] = late[-1].with_inputs(["layers.0.sum", "layers.1.down", "mask"])
    graph = of(*late)
    with pytest.raises(PassRefused, match=r"layers\.0\.sum: the block reads mask too, which would then read the"):
        Stack(block="layers.1", input="layers.0.sum", after="layers.0.sum", exact=False).rewrite(graph)


def test_a_block_that_changes_the_shape_cannot_go() -> None:
    with pytest.raises(PassRefused) as refused:
        Unstack(block="stage2.0").rewrite(RESNET)
    assert str(refused.value) == (
        "the block up to stage2.0.act cannot go: it reads (N, 2, 6, 6) and gives (N, 4, 3, 3), and what follows needs "
        "that shape"
    )


def test_batch_norms_statistics_are_copied() -> None:
    assert any(isinstance(n.op, BatchNorm) for n in RESNET.nodes)
    before = random_network(RESNET)
    after = before.apply(Stack(block="stage1.1", copy_weights=True))
    assert np.array_equal(after.arrays["stage1.2.norm1.running_var"], before.arrays["stage1.1.norm1.running_var"])
