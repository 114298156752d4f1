"""Copies in spaces that are normalised as a whole: what is carried is right in sum, and each with equal shares."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from growir import live
from growir.channels import analyse
from growir.edits import Remap
from growir.errors import PassRefused
from growir.graph import Graph, Input, Node, Step
from growir.ops import Add, Affine, Embedding, Gelu, LayerNorm, Linear, Mul, Op, Parameter, Relu, RmsNorm
from growir.passes import Sequence, Split, Widen, pass_from_step
from growir.testing import assert_preserves, carried_pairs, close, random_batch, worst
from tests.live.training import module_of, one_step, params_of, twins
from tests.samples import graph_of, mlp

FEW = settings(max_examples=max(settings().max_examples // 4, 10))
EQUAL, UNEQUAL = (0.5,) * 4, (0.25,) * 4


def normed(op: Op) -> Graph:
    return graph_of(
        (5,),
        Node(name="a", op=Linear(out_features=4), inputs=("x",)),
        Node(name="n", op=op, inputs=("a",)),
        Node(name="head", op=Linear(out_features=2), inputs=("n",)),
    )


def gradients(op: Op, shares: tuple[float, ...], apart: float = 0.0) -> tuple[Any, Any, Any, tuple[str, ...]]:
    """The old gradient of the producing layer, what is carried of it, the true one of the grown network, the notes."""
    module, batch = module_of(normed(op)), random_batch(normed(op))
    module(*batch).square().sum().backward()
    old = module.get_parameter("a.weight").grad
    step = Widen(node="a", by=4, copies=(0, 1, 2, 3), shares=shares, apart=apart)
    grown, report = live.grow(module, step, verify=batch)
    weight = grown.get_parameter("a.weight")
    carried, weight.grad = weight.grad, None
    grown(*batch).square().sum().backward()
    return old, carried, weight.grad, report.notes


@pytest.mark.parametrize("op", [LayerNorm(), RmsNorm()], ids=lambda op: op.op)
def test_unequal_shares_are_right_in_sum_and_noted(op: Op) -> None:
    old, carried, true, notes = gradients(op, UNEQUAL)
    for found in (carried, true):
        torch.testing.assert_close(found[:4] + found[4:], old)
    # Each one is not: which the report says, in these words.
    assert float((carried - true).abs().max() / true.abs().max()) > 1e-3
    (note,) = notes
    assert note.startswith("a is normalised as a whole and its copies take unequal shares")
    assert "right in the sum over a unit's copies, not for each; with equal shares and apart=0 it is exact" in note


@pytest.mark.parametrize("op", [LayerNorm(), RmsNorm(), Relu()], ids=lambda op: op.op)
def test_copies_that_are_kept_apart_are_right_in_sum_and_noted(op: Op) -> None:
    old, carried, true, notes = gradients(op, EQUAL, apart=1.0)
    for found in (carried, true):
        torch.testing.assert_close(found[:4] + found[4:], old)
    assert float((true[:4] - true[4:]).abs().max() / true.abs().max()) > 0.1  # from the first step on
    (note,) = notes
    assert note.startswith("a has copies that are kept apart by the weights that read them: of the gradients")


def test_equal_copies_need_something_that_parts_them() -> None:
    graph = normed(LayerNorm())
    with pytest.raises(PassRefused, match=r"take the share 0\.5 of channel 0 would never differ; leave shares out"):
        Widen(node="a", by=4, copies=(0, 1, 2, 3), shares=EQUAL).rewrite(graph)
    shares = (0.3, 0.3, 0.3, 0.25, 0.2, 0.2, 0.2, 0.25)
    with pytest.raises(PassRefused, match=r"both take the share 0\.25 of channel 3"):
        Widen(node="a", by=8, copies=(0, 1, 2, 3) * 2, shares=shares).rewrite(graph)
    step = Widen(node="a", by=4).resolved(graph)
    assert (step.copies, step.shares, step.apart) == ((0, 1, 2, 3), EQUAL, 1.0)
    with pytest.raises(PassRefused, match="apart goes with copies"):
        Widen(node="fc1", by=4, apart=1.0).rewrite(mlp())


def test_a_step_of_version_1_replays_as_it_was() -> None:
    """It kept nothing apart, and equal shares were no reason to refuse."""
    fields = {"node": "a", "by": 4, "copies": [0, 1, 2, 3], "shares": [0.5] * 4, "seed": 0}
    again = pass_from_step(Step.model_validate({"pass": "widen", "version": 1, **fields, "created": []}), {})
    assert isinstance(again, Widen)
    done = again.rewrite(normed(LayerNorm()))
    assert all(part.apart is None for edit in done.edits if isinstance(edit, Remap) for part in edit.axes)
    history = Widen(node="fc1", by=4, copies=(0, 1, 2, 3)).rewrite(mlp()).graph.history
    assert history is not None
    assert history.steps[0].fields.keys() == {"node", "by", "copies", "shares", "seed"}


@pytest.mark.parametrize("op", [LayerNorm(), RmsNorm()], ids=lambda op: op.op)
def test_equal_shares_are_exact(op: Op) -> None:
    old, carried, true, notes = gradients(op, EQUAL)
    torch.testing.assert_close(true, carried)
    torch.testing.assert_close(true, torch.cat([old, old]) / 2)
    assert not notes


def test_other_spaces_are_exact_with_any_shares() -> None:
    _, carried, true, notes = gradients(Relu(), UNEQUAL)
    torch.testing.assert_close(true, carried)
    assert not notes


def test_without_anything_to_carry_there_is_no_note() -> None:
    step = Widen(node="a", by=4)
    module, batch = module_of(normed(LayerNorm())), random_batch(normed(LayerNorm()))
    assert not live.grow(module, step)[1].notes
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    one_step(module, optimizer, batch)
    optimizer.zero_grad()
    assert len(live.grow(module, step, optimizer)[1].notes) == 1
    assert not live.grow(module_of(mlp()), Widen(node="fc1", by=4, copies=(0, 1, 2, 3)), ema=[])[1].notes


def test_what_is_missing_is_what_the_norm_keeps_from_the_layer() -> None:
    """The formula of growir.live.normalised, with every term computed by hand."""
    rng = np.random.default_rng(0)
    u, g = rng.normal(size=(2, 4))
    shares = np.array([0.75, 0.25])
    sigma = np.sqrt(u.var() + 1e-5)
    y = (u - u.mean()) / sigma
    du = (g - g.mean() - y * (g * y).mean()) / sigma
    kept = (g.mean() + y * (g * y).mean()) / sigma
    wide = torch.tensor(np.concatenate([u, u]), requires_grad=True)
    out = torch.nn.functional.layer_norm(wide, (8,))
    torch.autograd.backward(out, torch.tensor(np.concatenate([share * g for share in shares])))
    wanted = np.concatenate([share * du + (share - 1 / 2) * kept for share in shares])
    assert wide.grad is not None
    assert close(wide.grad.numpy(), wanted, 1e-9)


def tied(op: Op, *, behind: Node | None = None) -> Graph:
    """Tokens through one residual block and a norm into a head that is the embedding; `behind` reads the norm too."""
    nodes = [
        Node(name="emb", op=Embedding(num_embeddings=7, embedding_dim=4), inputs=("ids",)),
        Node(name="norm0", op=op, inputs=("emb",)),
        Node(name="down", op=Linear(out_features=4), inputs=("norm0",)),
        Node(name="sum", op=Add(), inputs=("emb", "down")),
        Node(name="norm", op=op, inputs=("sum",)),
        Node(name="head", op=Linear(out_features=7, bias=False), inputs=("norm",), tied={"weight": "emb.weight"}),
    ]
    more = [] if behind is None else [behind]
    outputs = ("head", *(node.name for node in more))
    ids = Input(name="ids", shape=("N", 5), dtype="int64")
    return Graph(name="tied", inputs=(ids,), nodes=(*nodes, *more), outputs=outputs)


@pytest.mark.parametrize("op", [LayerNorm(), RmsNorm()], ids=lambda op: op.op)
@pytest.mark.parametrize("shares", [EQUAL, UNEQUAL, ()], ids=["equal", "unequal", "apart"])
def test_the_last_norm_takes_the_shares_that_a_tied_head_cannot(op: Op, shares: tuple[float, ...]) -> None:
    graph = tied(op)
    module, batch = module_of(graph), random_batch(graph)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    one_step(module, optimizer, batch)
    step = Widen(node="emb", by=4, copies=(0, 1, 2, 3) if shares else (), shares=shares, apart=0.0 if shares else None)
    grown, report = live.grow(module, step, optimizer, verify=batch)
    assert report.preserves == "exact"
    assert report.measured is not None
    assert report.measured < 1e-12
    assert grown.get_parameter("emb.weight").shape == (7, 8)
    assert_preserves(step, graph)


def written_out(factor: Op | None, *, behind: Node | None = None, buffer: bool = False) -> Graph:
    """The same with a last norm that is written out: a norm times a parameter, which goes through `factor` first."""
    graph = tied(RmsNorm())
    first = [Node(name="w", op=Parameter(shape=(4,), buffer=buffer))]
    if factor is not None:
        first.append(Node(name="factor", op=factor, inputs=("w",)))
    norm = Node(name="rms", op=RmsNorm(elementwise_affine=False), inputs=("sum",))
    written = [norm, *first, Node(name="norm", op=Mul(), inputs=(first[-1].name, "rms"))]
    parts = [written if node.name == "norm" else [node] for node in graph.nodes]
    more = [] if behind is None else [behind]
    outputs = ("head", *(node.name for node in more))
    return graph.replace(nodes=[*(node for part in parts for node in part), *more], outputs=outputs)


@pytest.mark.parametrize("factor", [None, Affine(shift=1.0), Affine(scale=2.0, shift=-0.5)], ids=["w", "1+w", "2w-1/2"])
@pytest.mark.parametrize("shares", [EQUAL, UNEQUAL, ()], ids=["equal", "unequal", "apart"])
def test_a_norm_that_is_written_out_takes_the_shares_too(factor: Op | None, shares: tuple[float, ...]) -> None:
    graph = written_out(factor)
    apart = 0.0 if shares else None
    step = Widen(node="emb", by=4, copies=(0, 1, 2, 3) if shares else (), shares=shares, apart=apart)
    grown = assert_preserves(step, graph)
    module, batch = module_of(graph), random_batch(graph)
    _, report = live.grow(module, step, verify=batch)
    assert report.measured is not None
    assert report.measured < 1e-12
    assert_preserves(Split(node="emb", channels=(0, 1, 2, 3)), graph)
    assert_preserves(Sequence(passes=(Widen(node="down", by=4), Widen(node="down", by=8))), graph)
    assert analyse(grown.graph).find("emb", grown.graph).width == 8


@pytest.mark.parametrize(
    "graph",
    [
        written_out(Affine(shift=1.0), behind=Node(name="seen", op=Gelu(), inputs=("factor",))),
        written_out(Affine(shift=1.0), behind=Node(name="seen", op=Gelu(), inputs=("norm",))),
        written_out(None, buffer=True),
        written_out(Gelu()),
    ],
    ids=["scale is an output", "norm is read", "a constant", "no multiple"],
)
def test_a_factor_that_something_else_sees_or_that_cannot_learn_takes_no_shares(graph: Graph) -> None:
    assert [pin for pin in analyse(graph).find("emb", graph).pins if "tied" in pin.reason]


def test_equal_copies_of_a_tied_stream_get_half_of_the_gradient_each() -> None:
    graph = tied(LayerNorm())
    module, batch = module_of(graph), random_batch(graph)
    module(*batch).square().sum().backward()
    old = {key: p.grad for key, p in module.named_parameters()}
    step = Widen(node="emb", by=4, copies=(0, 1, 2, 3), shares=EQUAL, apart=0.0)
    grown, _ = live.grow(module, step, verify=batch)
    carried = {key: p.grad for key, p in grown.named_parameters()}
    for p in grown.parameters():
        p.grad = None
    grown(*batch).square().sum().backward()
    for key, p in grown.named_parameters():
        torch.testing.assert_close(p.grad, carried[key])
    half = old["emb.weight"]
    assert half is not None
    torch.testing.assert_close(grown.get_parameter("emb.weight").grad, torch.cat([half, half], 1) / 2)
    # What takes the shares keeps its gradient, as weights do that are read.
    scale = old["norm.weight"]
    assert scale is not None
    torch.testing.assert_close(grown.get_parameter("norm.weight").grad, torch.cat([scale, scale]))


@pytest.mark.parametrize(
    "graph",
    [
        tied(LayerNorm(elementwise_affine=False)),  # no scale that could take shares
        tied(LayerNorm(), behind=Node(name="seen", op=Gelu(), inputs=("norm",))),  # which callers would see
        tied(LayerNorm(), behind=Node(name="other", op=Linear(out_features=3), inputs=("norm",))),
    ],
    ids=["no scale", "an output", "another reader"],
)
def test_where_something_else_would_see_the_shares_a_tied_stream_stays_pinned(graph: Graph) -> None:
    space = analyse(graph).find("emb", graph)
    assert [pin.reason for pin in space.pins if "tied" in pin.reason]
    with pytest.raises(PassRefused, match="is normalised and tied at once"):
        Widen(node="emb", by=4).rewrite(graph)


def residual(op: Op, blocks: int, width: int) -> Graph:
    """A residual stream that every block normalises before it reads it, and once more at the end."""
    nodes = [Node(name="stem", op=Linear(out_features=width), inputs=("x",))]
    last = "stem"
    for k in range(blocks):
        nodes += [
            Node(name=f"norm{k}", op=op, inputs=(last,)),
            Node(name=f"up{k}", op=Linear(out_features=3), inputs=(f"norm{k}",)),
            Node(name=f"act{k}", op=Gelu(), inputs=(f"up{k}",)),
            Node(name=f"down{k}", op=Linear(out_features=width), inputs=(f"act{k}",)),
            Node(name=f"sum{k}", op=Add(), inputs=(last, f"down{k}")),
        ]
        last = f"sum{k}"
    nodes += [
        Node(name="norm", op=op, inputs=(last,)),
        Node(name="head", op=Linear(out_features=2), inputs=("norm",)),
    ]
    return graph_of((5,), *nodes)


@FEW
@given(data=st.data())
def test_the_sum_over_copies_takes_the_old_step(data: st.DataObject) -> None:
    """SGD with momentum goes on in sum, whatever the shares; Adam in each of equal copies that nothing parts."""
    op = data.draw(st.sampled_from([LayerNorm(), RmsNorm()]))
    width, times = data.draw(st.integers(3, 5)), data.draw(st.integers(1, 2))
    graph = residual(op, data.draw(st.integers(0, 2)), width)
    kind = data.draw(st.sampled_from(["equal", "unequal", "apart"]))
    equal = kind == "equal"
    shares = (1 / (times + 1),) * (width * times)
    if kind == "unequal":
        shares = tuple(data.draw(st.lists(st.floats(0.05, 0.45), min_size=len(shares), max_size=len(shares))))
    step = Widen(node="stem", by=width * times, copies=tuple(range(width)) * times, shares=shares)
    step = step.model_copy(update={"apart": 0.7 if kind == "apart" else 0.0})
    module, batch = module_of(graph), random_batch(graph)
    params = list(params_of(graph, module).values())
    make = partial(torch.optim.Adam, eps=1e-12) if equal else partial(torch.optim.SGD, momentum=0.9)
    optimizer = make(params, lr=0.01)
    for _ in range(2):
        one_step(module, optimizer, batch)
    old, old_optimizer = twins(module, optimizer)
    grown, report = live.grow(module, step, optimizer)
    assert any("right in the sum over a unit's copies" in note for note in report.notes) != equal
    done = step.rewrite(graph)
    before = {key: p.detach().numpy().copy() for key, p in params_of(graph, old).items()}
    after = {key: p.detach().numpy().copy() for key, p in params_of(done.graph, grown).items()}
    one_step(old, old_optimizer, batch)
    one_step(grown, optimizer, batch)
    steps = {key: p.detach().numpy() - before[key] for key, p in params_of(graph, old).items()}
    found = {key: p.detach().numpy() - after[key] for key, p in params_of(done.graph, grown).items()}
    if equal:  # each copy makes the old unit's whole step
        for key, index in {"stem.weight": np.arange(width * (times + 1)) % width}.items():
            sure = params_of(graph, old)[key].grad.abs().numpy()[index] > 1e-5  # type: ignore[union-attr]
            assert close(np.where(sure, steps[key][index], 0), np.where(sure, found[key], 0), 1e-5)
        return
    for key, a, b in carried_pairs(done, graph, steps, found):
        assert close(a, b, 1e-5), (key, worst(a, b))
