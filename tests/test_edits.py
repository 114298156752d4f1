"""Edits by hand: where each number of a grown tensor comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from growir.edits import (
    NUMPY,
    AxisMap,
    Create,
    Drop,
    Fresh,
    Remap,
    Rename,
    Shift,
    apply_edits,
)
from growir.errors import GrowirError, PassRefused
from growir.graph import Node
from growir.moments import carry_moments
from growir.ops import Constant, Linear, Normal, Param, Relu
from growir.params import draw
from growir.passes import Widen
from growir.testing import assert_preserves, random_network
from tests.samples import graph_of, mlp


def test_copies_take_their_shares() -> None:
    network = random_network(mlp())
    old = network.arrays
    new = network.apply(Widen(node="fc1", by=2, copies=(1, 1), shares=(0.2, 0.3))).arrays
    assert np.array_equal(new["fc1.weight"], old["fc1.weight"][[0, 1, 2, 3, 1, 1]])
    assert np.array_equal(new["fc1.bias"], old["fc1.bias"][[0, 1, 2, 3, 1, 1]])
    shares = [1, 0.5, 1, 1, 0.2, 0.3]
    np.testing.assert_allclose(new["head.weight"], old["head.weight"][:, [0, 1, 2, 3, 1, 1]] * shares, rtol=1e-15)
    assert np.array_equal(new["head.bias"], old["head.bias"])


def test_fresh_numbers_have_the_digits_of_their_network() -> None:
    """What is drawn in float64 fills a float64 network as it is, and a float32 one rounded once."""
    rows, made = Fresh(Normal(1.0), seed=1, step=2), Fresh(Normal(1.0), seed=3, step=4)
    edits = (
        Remap("a", (AxisMap(0, np.array([0, -1, -1]), None, None, rows),)),
        Create("b", Param((4,), ("out",), Normal(1.0)), made),
    )
    wanted = {
        "a": draw(Normal(1.0), (2, 3), seed=1, step=2, key="a"),
        "b": draw(Normal(1.0), (4,), seed=3, step=4, key="b"),
    }
    for kind in (np.float64, np.float32):
        done = apply_edits(edits, {"a": np.zeros((1, 3), kind)}, NUMPY, np.dtype(kind))
        for key, numbers in wanted.items():
            assert done[key].dtype == kind
            assert np.array_equal(done[key][-len(numbers) :], numbers.astype(kind))
    assert not any(np.array_equal(numbers, numbers.astype(np.float32)) for numbers in wanted.values())


def test_shares_of_copies_are_unequal_by_default() -> None:
    old = random_network(mlp())
    new = old.apply(Widen(node="fc1", by=2, copies=(1, 1))).arrays["head.weight"]
    ratio = new[:, [1, 4, 5]] / old.arrays["head.weight"][:, [1]]
    assert len(set(np.round(ratio[0], 9))) == 3
    np.testing.assert_allclose(ratio.sum(1), 1)


def test_given_values_fill_the_fresh_block() -> None:
    block = np.arange(6.0).reshape(2, 3)
    new = random_network(mlp()).apply(Widen(node="fc1", by=2, values={"fc1.weight": block})).arrays
    assert np.array_equal(new["fc1.weight"][-2:], block)
    assert (new["head.weight"][:, -2:] == 0).all()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"fc1.weight": np.zeros((3, 3))}, r"has shape \(2, 3\), but values give \(3, 3\)"),
        ({"fc1.wieght": np.zeros((2, 3))}, "Did you mean 'fc1.weight'"),
        ({"head.bias": np.zeros(2)}, "head.bias has no fresh block"),
    ],
)
def test_values_that_do_not_fit(values: dict[str, Any], says: str) -> None:
    with pytest.raises(PassRefused, match=says):
        Widen(node="fc1", by=2, values=values).rewrite(mlp())


def test_values_must_be_numbers() -> None:
    with pytest.raises(PassRefused, match="NaN"):
        Widen(node="fc1", by=1, values={"fc1.weight": np.full((1, 3), np.nan)})


def test_the_zero_of_a_consuming_axis_wins_over_fresh_numbers() -> None:
    """A layer used twice produces and consumes its own channels: where a new row meets a new column stands zero."""
    graph = graph_of(
        (3,),
        Node(name="start", op=Linear(out_features=4), inputs=("x",)),
        Node(name="once", op=Linear(out_features=4), inputs=("start",)),
        Node(name="act", op=Relu(), inputs=("once",)),
        Node(
            name="twice",
            op=Linear(out_features=4),
            inputs=("act",),
            tied={"weight": "once.weight", "bias": "once.bias"},
        ),
        Node(name="head", op=Linear(out_features=2), inputs=("twice",)),
    )
    weight = assert_preserves(Widen(node="once", by=2), graph).arrays["once.weight"]
    assert weight.shape == (6, 6)
    assert (weight[:, 4:] == 0).all()
    assert (weight[4:, :4] != 0).all()
    assert_preserves(Widen(node="once", by=2, copies=(0, 3), shares=(0.3, 0.4)), graph)


def test_kinds_of_edits() -> None:
    arrays = {"a": np.arange(4.0), "b": np.ones(2), "c": np.zeros(1)}
    part = AxisMap(0, np.array([3, -1, 0]), np.array([0.5, 1, 1]), np.array([0.25, 1, 1]), Fresh(Constant(7.0)))
    edits = (
        Remap("a", (part,)),
        Drop("b"),
        Rename("c", "d"),
        Create("e", Param((2,), ("out",), Constant(1.0)), Fresh(Constant(1.0))),
    )
    done = apply_edits(edits, arrays, NUMPY, np.dtype(np.float32))
    assert {key: list(array) for key, array in done.items()} == {"a": [1.5, 7, 0], "d": [0], "e": [1, 1]}
    assert done["e"].dtype == np.float32
    assert list(arrays["a"]) == [0, 1, 2, 3]
    first = carry_moments(edits, {"a": np.arange(4.0), "b": np.ones(2)}, "gradient", NUMPY)
    assert {key: list(array) for key, array in first.items()} == {"a": [0.75, 0, 0]}
    second = carry_moments(edits, {"a": np.arange(4.0)}, "square", NUMPY, "mean")
    assert list(second["a"]) == [3 / 16, 1.5, 0]


def test_numbers_can_be_given_in_place_of_the_edits_own() -> None:
    part = AxisMap(0, np.array([0, -1]), None, None, Fresh(Constant(7.0)))
    create = Create("b", Param((2,), ("out",), Constant(1.0)), Fresh(Constant(1.0)))
    edits = (Remap("a", (part,)), create, Shift("c", np.ones(1)))
    arrays = {"a": np.zeros(1), "c": np.zeros(1)}
    given = {"a": np.full(1, 2.0), "b": np.full(2, 3.0), "c": np.full(1, 4.0)}
    done = apply_edits(edits, arrays, NUMPY, np.dtype(np.float64), given)
    assert {key: list(array) for key, array in done.items()} == {"a": [0, 2], "b": [3, 3], "c": [4]}
    with pytest.raises(GrowirError, match=r"a: its new numbers have shape \(1,\), but \(2,\) are given"):
        apply_edits(edits, arrays, NUMPY, np.dtype(np.float64), {"a": np.zeros(2)})
    with pytest.raises(GrowirError, match="z: no edit has new numbers"):
        apply_edits(edits, arrays, NUMPY, np.dtype(np.float64), {"z": np.zeros(2)})
