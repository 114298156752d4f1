"""Edits by hand: where each number of a grown tensor comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from growir.edits import (
    NUMPY,
    AxisMap,
    Create,
    Derive,
    Drop,
    Fresh,
    Remap,
    Rename,
    Shift,
    apply_edits,
    carry_masks,
    carry_moments,
    carry_optimizer,
)
from growir.errors import GrowirError, PassRefused
from growir.graph import Node
from growir.ops import Constant, Linear, Param, Relu
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
    first = carry_moments(edits, {"a": np.arange(4.0), "b": np.ones(2)}, 1, NUMPY)
    assert {key: list(array) for key, array in first.items()} == {"a": [0.75, 0, 0]}
    second = carry_moments(edits, {"a": np.arange(4.0)}, 2, NUMPY)
    assert list(second["a"]) == [3 / 16, 1.5, 0]


def test_optimizer_state_goes_by_name() -> None:
    edits = (Drop("b"), Rename("c", "d"))
    step = np.array(5.0)
    state: dict[str, dict[str, NDArray[Any]]] = {key: {"exp_avg": np.ones(2), "step": step} for key in ("a", "b", "c")}
    done = carry_optimizer(edits, state, NUMPY)
    assert done.keys() == {"a", "d"}
    assert done["d"]["step"] == step
    none: dict[str, dict[str, NDArray[Any]]] = {}
    assert carry_optimizer(edits, none, NUMPY) == {}


def test_an_unknown_optimizer_entry_is_refused_rather_than_left_in_the_old_shape() -> None:
    done = Widen(node="fc1", by=1).rewrite(mlp())
    state = {"fc1.weight": {"ax": np.ones((4, 3)), "step": np.ones(())}}
    with pytest.raises(GrowirError, match="'ax'"):
        carry_optimizer(done.edits, state, NUMPY)


def test_steps_and_their_lengths_do_not_follow_the_gradient() -> None:
    """Adadelta's, Rprop's, and RMSprop's momentum, which sums steps; SGD's sums gradients."""
    part = AxisMap(0, np.array([0, 0, -1]), None, np.array([0.25, 0.75, 1]), Fresh(Constant(0.0)))
    edits = (Remap("a", (part,)),)

    def carried(**slots: float) -> dict[str, list[float]]:
        state = {"a": {entry: np.full(1, value) for entry, value in slots.items()}}
        return {entry: list(array) for entry, array in carry_optimizer(edits, state, NUMPY)["a"].items()}

    assert carried(step_size=3.0, prev=-8.0) == {"step_size": [3, 3, 3], "prev": [-2, -6, 0]}
    assert carried(acc_delta=3.0, square_avg=16.0) == {"acc_delta": [3, 3, 3], "square_avg": [1, 9, 16]}
    assert carried(momentum_buffer=4.0, square_avg=16.0) == {"momentum_buffer": [4, 4, 0], "square_avg": [1, 9, 16]}
    assert carried(momentum_buffer=4.0) == {"momentum_buffer": [1, 3, 0]}
    assert carried(exp_inf=4.0, exp_avg=4.0) == {"exp_inf": [1, 3, 4], "exp_avg": [1, 3, 0]}


def test_a_copy_without_a_share_starts_anew() -> None:
    """It has had no gradient: a zero second moment would make its first step long, an old momentum would move it."""
    part = AxisMap(0, np.array([0, 0]), None, np.array([1.0, 0.0]), Fresh(Constant(0.0)))
    state = {"a": {entry: np.full(1, 4.0) for entry in ("exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg")}}
    done = carry_optimizer((Remap("a", (part,)),), state, NUMPY)["a"]
    assert {entry: list(array) for entry, array in done.items()} == {
        "exp_avg": [4, 0],
        "exp_avg_sq": [4, 4],
        "momentum_buffer": [4, 0],
        "square_avg": [4, 4],
    }


def test_masks_keep_their_entries_and_fresh_weights_count() -> None:
    part = AxisMap(0, np.array([1, 0, -1]), np.array([0.5, 1, 1]), np.array([0.5, 1, 1]), Fresh(Constant(0.0)))
    mask = np.array([True, False])
    assert list(carry_masks((Remap("a", (part,)), Drop("b")), {"a": mask, "b": mask}, NUMPY)["a"]) == [
        False,
        True,
        True,
    ]
    with pytest.raises(GrowirError, match="a: the rewrite works it out anew"):
        carry_masks((Derive("a", lambda backend, a: a, ("a",)),), {"a": mask}, NUMPY)


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
