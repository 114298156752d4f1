"""Objectives: the numbers of the named ones, what a function may give, and every way in which one does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from growir.errors import RunError
from growir.growth.loss import mean_and_error
from growir.growth.objective import (
    Called,
    CrossEntropy,
    SquaredError,
    as_objective,
    check_first,
    full_precision,
    means,
)
from tests.growth.before import Loss


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def classes(*shape: int, most: int = 3) -> torch.Tensor:
    return torch.randint(0, most, shape, generator=torch.Generator().manual_seed(1))


def same(one: Any, other: Any) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


# -- the bits of before ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 300])
def test_cross_entropy_is_what_it_was(count: int) -> None:
    logits, target = drawn(count, 3), classes(count)
    before, now = Loss("classification", torch.ones(1)), CrossEntropy()
    assert same(now.each((logits,), target), before.each(logits, target))
    assert same(now.total((logits,), target), before.total(logits, target))
    assert means(now, (logits,), target) == before.metrics(logits, target)


@pytest.mark.parametrize("outputs", [1, 3, 7])
def test_squared_error_is_what_it_was(outputs: int) -> None:
    prediction, target, scale = drawn(101, outputs), drawn(101, outputs, seed=1), drawn(outputs, seed=2).abs()
    before, now = Loss("regression", scale), SquaredError(scale)
    assert same(now.each((prediction,), target), before.each(prediction, target))
    assert same(now.total((prediction,), target), before.total(prediction, target))
    assert means(now, (prediction,), target) == before.metrics(prediction, target)


@pytest.mark.parametrize(
    ("objective", "outputs", "target"),
    [
        (CrossEntropy(), drawn(40, 3), classes(40)),
        (CrossEntropy(), drawn(40, 3, 5), classes(40, 5)),
        (SquaredError(torch.tensor([1.0, 2.0])), drawn(40, 2), drawn(40, 2, seed=1)),
        (SquaredError(), drawn(40, 2, 3, 3), drawn(40, 2, 3, 3, seed=1)),
    ],
)
def test_sums_add_up_over_batches(objective: Any, outputs: torch.Tensor, target: torch.Tensor) -> None:
    whole = objective.metrics((outputs,), target) | {"loss": objective.total((outputs,), target)}
    parts = [
        objective.metrics((o,), t) | {"loss": objective.total((o,), t)}
        for o, t in zip(torch.split(outputs, 13), torch.split(target, 13), strict=True)
    ]
    for name, value in whole.items():
        assert float(sum(part[name] for part in parts)) == pytest.approx(float(value), rel=1e-5)
    found = means(objective, (outputs,), target)
    assert found == pytest.approx({name: float(value) / 40 for name, value in whole.items()})
    assert float(objective.each((outputs,), target).sum()) == pytest.approx(float(whole["loss"]), rel=1e-5)


# -- dense targets -----------------------------------------------------------------------------------------------------


def test_dense_classes_are_means_over_positions_whichever_axis_has_the_classes() -> None:
    logits, target = drawn(4, 3, 5), classes(4, 5)
    expected = F.cross_entropy(logits, target, reduction="none").mean(1)
    assert torch.allclose(CrossEntropy().each((logits,), target), expected)
    assert same(CrossEntropy().each((logits.movedim(1, -1),), target), CrossEntropy().each((logits,), target))
    right = (logits.argmax(1) == target).double().mean(1).sum()
    assert float(CrossEntropy().metrics((logits.movedim(1, -1),), target)["accuracy"]) == pytest.approx(float(right))


def test_positions_that_do_not_count_are_left_out() -> None:
    logits, target = drawn(3, 4, 6), classes(3, 6)
    target[0, 2:] = -100
    target[1] = -100
    found = CrossEntropy().each((logits,), target)
    assert torch.allclose(found[0], CrossEntropy().each((logits[:1, :, :2],), target[:1, :2])[0])
    assert float(found[1]) == 0
    assert float(CrossEntropy().metrics((logits,), target)["accuracy"]) <= 2


def test_logits_that_can_be_read_in_two_ways_need_their_axis() -> None:
    logits, target = drawn(2, 3, 3), classes(2, 3)
    with pytest.raises(RunError, match=r"classes on axis 1 or on the last one; say which"):
        CrossEntropy().each((logits,), target)
    first = as_objective({"name": "cross_entropy", "axis": 1}).each((logits,), target)
    last = as_objective({"name": "cross_entropy", "axis": -1}).each((logits,), target)
    assert torch.allclose(first, F.cross_entropy(logits, target, reduction="none").mean(1))
    assert torch.allclose(last, F.cross_entropy(logits.movedim(-1, 1), target, reduction="none").mean(1))


def test_a_single_output_needs_no_axis_in_the_target() -> None:
    prediction, target = drawn(5, 1), drawn(5, seed=1)
    assert torch.allclose(SquaredError().each((prediction,), target), 0.5 * (prediction[:, 0] - target) ** 2)
    assert torch.allclose(SquaredError().each((prediction[:, 0],), target), 0.5 * (prediction[:, 0] - target) ** 2)


# -- functions ---------------------------------------------------------------------------------------------------------


def l1(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(outputs, target, reduction="none").mean(dim=1)


def test_a_function_gets_the_output_or_the_tuple_of_several() -> None:
    one, two, target = drawn(5, 2), drawn(5, 3), drawn(5, 2, seed=1)
    assert same(as_objective(l1).each((one,), target), l1(one, target))
    both = as_objective(lambda outputs, target: outputs[0].sum(1) + outputs[1].sum(1))
    assert same(both.each((one, two), target), one.sum(1) + two.sum(1))
    assert both.metrics((one, two), target) == {}
    assert same(both.total((one, two), target), (one.sum(1) + two.sum(1)).sum())
    own = Called(l1)
    assert as_objective(own) is own


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda o, t: F.mse_loss(o, t), r"^objective <lambda>: it gives a scalar, but the losses of the 5 samples, of"),
        (lambda o, t: (o - t) ** 2, r"it gives shape \(5, 2\), but the losses of the 5 samples.*\.flatten\(1\)"),
        (lambda o, t: float(o.sum()), r"it gives float, but the losses"),
        (lambda o, t: o.argmax(1), r"it gives int64, but losses are floats"),
    ],
)
def test_a_function_that_gives_no_losses(function: Any, words: str) -> None:
    with pytest.raises(RunError, match=words):
        as_objective(function).total((drawn(5, 2),), drawn(5, 2, seed=1))


def test_the_first_batch_is_looked_at() -> None:
    outputs, target = drawn(5, 2).requires_grad_(), drawn(5, 2, seed=1)
    check_first(as_objective(l1), (outputs,), target)
    check_first(as_objective(l1), (outputs.detach(),), target)  # nothing learns, so that no gradient is needed
    with pytest.raises(RunError, match=r"objective <lambda>: the loss of sample 0 of the first batch is nan, though"):
        check_first(as_objective(lambda o, t: (o - t).sum(1) * float("nan")), (outputs,), target)
    with pytest.raises(RunError, match=r"objective l1: the loss of sample 3 of the first batch is inf"):
        check_first(as_objective(l1), (outputs,), target.index_fill(0, torch.tensor([3]), float("inf")))
    with pytest.raises(RunError, match=r"objective <lambda>: no gradient comes back from its losses"):
        check_first(as_objective(lambda o, t: l1(o.detach(), t)), (outputs,), target)
    with pytest.raises(RunError, match=r"^the network's output 0 is not finite in the first batch"):
        check_first(as_objective("mse"), (outputs * float("inf"),), target)


# -- what does not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "outputs", "target", "words"),
    [
        ("cross_entropy", (drawn(5, 3),), drawn(5), r"class indices is needed, of integers, but this one is float32"),
        ("cross_entropy", (drawn(5, 3),), classes(4), r"the target has shape \(4,\), but .* \(5, 3\) belongs \(5,\)"),
        ("cross_entropy", (drawn(5, 3, 7),), classes(5), r"belongs \(5, 7\) or \(5, 3\); reshape"),
        ("cross_entropy", (drawn(5, 3),), classes(5) + 1, r"classes from 1 to 3, but .* counts 3, from 0 to 2"),
        ("cross_entropy", (drawn(5, 3), drawn(5, 3)), classes(5), r"one output, but this one has 2; give a function"),
        ("cross_entropy", (drawn(5, 3),), [1, 2], r"a target tensor is needed, but this one is of type list|of list"),
        ("mse", (drawn(5, 3),), drawn(5), r"objective mse: the target has shape \(5,\), but .* output \(5, 3\)"),
        ("mse", (drawn(5, 1),), drawn(5) > 0, r"a target of numbers is needed, but this one is bool"),
    ],
)
def test_a_target_that_does_not_fit(name: str, outputs: Any, target: Any, words: str) -> None:
    objective = as_objective(name)
    for part in (objective.each, objective.total, objective.metrics):
        if "counts 3" in words and part == objective.metrics:
            continue  # a class that cannot be is not the likeliest, and that is all that a metric asks
        with pytest.raises(RunError, match=words):
            part(outputs, target)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("cross_entrpy", r"there is no objective 'cross_entrpy'\. Did you mean 'cross_entropy'\?"),
        ({"name": "mse", "axis": 1}, r'objective mse: it takes "axis", 1 or -1, of cross_entropy only'),
        ({"name": "cross_entropy", "axis": 2}, r'it takes "axis", 1 or -1'),
        ({"axis": 1}, r"there is no objective None\. There are cross_entropy, mse\."),
        (3, r"an objective is a name .* but this is of int"),
    ],
)
def test_what_is_no_objective(given: Any, words: str) -> None:
    with pytest.raises(RunError, match=words):
        as_objective(given)


def test_half_precision_is_raised_and_other_numbers_stay() -> None:
    double, half = drawn(2, 2, dtype=torch.float64), drawn(2, 2).bfloat16()
    raised = full_precision((double, half, classes(2)))
    assert [value.dtype for value in raised] == [torch.float64, torch.float32, torch.int64]
    assert full_precision(half)[0].dtype == torch.float32
    assert CrossEntropy().total((drawn(5, 3, dtype=torch.float64),), classes(5)).dtype == torch.float64
    assert SquaredError().total((double,), double.float()).dtype == torch.float64


def test_the_standard_error_of_a_mean() -> None:
    assert mean_and_error(torch.tensor([1.0, 3.0])) == (2.0, 1.0 / 2**0.5)
