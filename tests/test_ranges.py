"""What operators are said to give and to keep, checked on numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from growir.backends.torch_fx import lower
from growir.graph import Graph, Input, Node
from growir.ops import OPS, Example, Shape
from growir.ops.ranges import ANY, Range, gives, keeps, through_zero
from growir.testing import random_network

CASES = [(op.kind(), example) for op in OPS for example in op.examples()]
LOW, HIGH = -9.0, 9.0


def value_of(example: Example, inputs: list[torch.Tensor], train: bool = False) -> torch.Tensor:
    """One operator on values without weights of its own at rest."""
    entries = [Input(name=f"x{k}", shape=("N", *x.shape[1:])) for k, x in enumerate(inputs)]
    node = Node(name="y", op=example.op, inputs=tuple(entry.name for entry in entries))
    graph = Graph(inputs=tuple(entries), nodes=(node,), outputs=("y",))
    module = lower(graph, random_network(graph).arrays, dtype=torch.float64)
    found = module.train(train)(*inputs)
    assert isinstance(found, torch.Tensor)
    return found


def run(example: Example, inputs: list[torch.Tensor], train: bool = False) -> torch.Tensor:
    return value_of(example, inputs, train).detach()


def numbers(shape: Shape, low: float, high: float) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(low, high, (4, *shape.sizes)))


def floats(example: Example) -> bool:
    return bool(example.inputs) and all(x.batched and x.dtype == "float32" for x in example.inputs)


@pytest.mark.parametrize(("kind", "example"), [case for case in CASES if floats(case[1])])
@pytest.mark.parametrize("least", [LOW, 0.0])
def test_numbers_lie_in_the_range_that_is_given(kind: str, example: Example, least: float) -> None:
    inputs = [numbers(shape, least, HIGH) for shape in example.inputs]
    within = gives(example.op, *(Range(least, HIGH) for _ in inputs))
    for train in (False, True):
        found = run(example, inputs, train)
        found = found[~found.isnan()]
        assert not len(found) or within.low <= float(found.min()) <= float(found.max()) <= within.high


@pytest.mark.parametrize(("kind", "example"), [case for case in CASES if keeps(case[1].op) is not None])
def test_numbers_that_are_kept_come_back(kind: str, example: Example) -> None:
    kept = keeps(example.op)
    assert kept is not None
    x = numbers(example.inputs[0], max(kept.low, LOW), min(kept.high, HIGH))
    assert torch.equal(run(example, [x]), x)


def test_ranges() -> None:
    assert Range(1, 2).within(Range(1, 2))
    assert not Range(1, 3).within(Range(1, 2))
    assert not ANY.within(Range(0, math.inf))
    assert ANY.cut(0.0, 6.0) == Range(0, 6)
    assert Range(7, 8).cut(0.0, 6.0) == Range(6, 6)
    assert Range(-2, -1).cut(0.0, None) == Range(0, 0)
    assert Range(0, 1).join(Range(3, 4)) == Range(0, 4)
    assert str(Range(0, math.inf)) == "0 to inf"


@pytest.mark.parametrize(("kind", "example"), [case for case in CASES if through_zero(case[1].op) and floats(case[1])])
def test_zero_goes_through_and_gradients_come_back(kind: str, example: Example) -> None:
    x = torch.zeros((4, *example.inputs[0].sizes), dtype=torch.float64, requires_grad=True)
    batch = [x, *(torch.zeros((4, *shape.sizes), dtype=torch.float64) for shape in example.inputs[1:])]
    for train in (False, True):
        found = value_of(example, batch, train)
        assert not found.any()
        torch.autograd.backward(found.sum())
        assert x.grad is not None
        assert x.grad.any()
