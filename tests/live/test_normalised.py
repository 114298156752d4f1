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
from growir.graph import Graph, Node
from growir.ops import Add, Gelu, LayerNorm, Linear, Op, Relu, RmsNorm
from growir.passes import Widen
from growir.testing import carried_pairs, close, random_batch, worst
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


def gradients(op: Op, shares: tuple[float, ...]) -> tuple[Any, Any, Any, tuple[str, ...]]:
    """The old gradient of the producing layer, what is carried of it, the true one of the grown network, the notes."""
    module, batch = module_of(normed(op)), random_batch(normed(op))
    module(*batch).square().sum().backward()
    old = module.get_parameter("a.weight").grad
    grown, report = live.grow(module, Widen(node="a", by=4, copies=(0, 1, 2, 3), shares=shares))
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
    assert "right in the sum over a unit's copies, not for each; equal shares are exact" in note


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
    """SGD with momentum goes on in sum, whatever the shares; with equal ones Adam goes on, copy by copy."""
    op = data.draw(st.sampled_from([LayerNorm(), RmsNorm()]))
    width, times = data.draw(st.integers(3, 5)), data.draw(st.integers(1, 2))
    graph = residual(op, data.draw(st.integers(0, 2)), width)
    equal = data.draw(st.booleans())
    shares = (1 / (times + 1),) * (width * times)
    if not equal:
        shares = tuple(data.draw(st.lists(st.floats(0.05, 0.45), min_size=len(shares), max_size=len(shares))))
    step = Widen(node="stem", by=width * times, copies=tuple(range(width)) * times, shares=shares)
    module, batch = module_of(graph), random_batch(graph)
    params = list(params_of(graph, module).values())
    make = partial(torch.optim.Adam, eps=1e-12) if equal else partial(torch.optim.SGD, momentum=0.9)
    optimizer = make(params, lr=0.01)
    for _ in range(2):
        one_step(module, optimizer, batch)
    old, old_optimizer = twins(module, optimizer)
    grown, report = live.grow(module, step, optimizer)
    assert any("normalised as a whole" in note for note in report.notes) != equal
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
