"""What lies beside weights: how entries follow the gradient, and what fresh ones start with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from growir.edits import NUMPY, AxisMap, Create, Derive, Drop, Fresh, Remap, Rename, Shift
from growir.errors import GrowirError
from growir.moments import Entries, FreshState, carry_masks, carry_moments, carry_optimizer
from growir.ops import Constant, Param
from growir.passes import Widen
from tests.samples import mlp


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
    with pytest.raises(GrowirError, match=r"'ax' of fc1\.weight is no scalar.*known are exp_avg, exp_avg_sq"):
        carry_optimizer(done.edits, state, NUMPY)


def test_steps_and_their_lengths_do_not_follow_the_gradient() -> None:
    """Adadelta's, Rprop's, and RMSprop's momentum, which sums steps; SGD's sums gradients."""
    part = AxisMap(0, np.array([0, 0, -1]), None, np.array([0.25, -0.75, 1]), Fresh(Constant(0.0)))
    entries: Entries = {
        "gradient": "gradient",
        "square": "square",
        "magnitude": "magnitude",
        "update": "update",
        "length": "length",
    }
    state = {"a": {entry: np.full(1, 16.0) for entry in entries}}
    done = carry_optimizer((Remap("a", (part,)),), state, NUMPY, entries, "mean")["a"]
    assert {entry: list(array) for entry, array in done.items()} == {
        "gradient": [4, -12, 0],
        "square": [1, 9, 16],
        "magnitude": [4, 12, 16],
        "update": [16, 16, 0],
        "length": [16, 16, 16],
    }


def test_a_second_set_of_weights_is_made_as_the_weights_are() -> None:
    """Slow weights and averages: scaled as weights, with the same fresh numbers and shifts, under the new names."""
    part = AxisMap(0, np.array([0, -1]), np.array([0.5, 1]), np.array([0.25, 1]), Fresh(Constant(7.0)))
    create = Create("c", Param((2,), ("out",), Constant(1.0)), Fresh(Constant(1.0)))
    edits = (
        Remap("a", (part,)),
        Shift("a", np.array([1.0, 2.0])),
        Rename("a", "z"),
        Drop("b"),
        create,
        Derive("d", lambda backend, z: z, ("z",)),
        Shift("absent", np.ones(1)),
    )
    state = {key: {"slow": np.full(1, 4.0)} for key in ("a", "b", "d", "e")}
    done = carry_optimizer(edits, state, NUMPY, {"slow": "weight"})
    assert {key: list(slots["slow"]) for key, slots in done.items()} == {"z": [3, 9], "e": [4]}


@pytest.mark.parametrize(("fresh", "row", "column"), [("mean", (4, 3), (6, 1)), ("zero", (0, 0), (0, 0))])
def test_fresh_sizes_go_by_the_mean_along_the_axis_that_grows(
    fresh: FreshState, row: tuple[float, ...], column: tuple[float, ...]
) -> None:
    second = {"a": np.array([[4.0, 8.0], [2.0, 0.0], [6.0, 1.0]])}
    rows = AxisMap(0, np.array([0, 1, 2, -1]), None, None, Fresh(Constant(0.0)))
    found = carry_moments((Remap("a", (rows,)),), second, "square", NUMPY, fresh)["a"]
    assert np.array_equal(found, np.vstack([second["a"], row]))
    columns = AxisMap(1, np.array([0, -1, 1]), None, None, Fresh(Constant(0.0)))
    found = carry_moments((Remap("a", (columns,)),), second, "square", NUMPY, fresh)["a"]
    assert found[0, 1] == column[0]
    assert found[1, 1] == column[1]
    assert np.array_equal(found[:, [0, 2]], second["a"])


def test_small_is_a_ten_thousandth_of_the_mean() -> None:
    second = {"a": np.array([[4.0, 8.0], [2.0, 0.0]])}
    rows = AxisMap(0, np.array([0, 1, -1]), None, None, Fresh(Constant(0.0)))
    found = carry_moments((Remap("a", (rows,)),), second, "square", NUMPY)["a"]
    assert np.allclose(found, np.array([[4, 8], [2, 0], [3e-4, 4e-4]]))


def test_groups_have_means_of_their_own() -> None:
    """A grouped weight whose groups take different channels has a map for each, and no group's mean is another's."""
    second = {"a": np.array([[2.0, 4.0], [10.0, 30.0]])}
    part = AxisMap(1, np.array([[0, 1, -1], [0, 1, -1]]), None, None, Fresh(Constant(0.0)))
    found = carry_moments((Remap("a", (part,)),), second, "square", NUMPY, "mean")["a"]
    assert found.tolist() == [[2, 4, 3], [10, 30, 20]]


def test_a_copy_without_a_share_starts_anew() -> None:
    """It has had no gradient: an old momentum would move it, and an old second moment hold it."""
    part = AxisMap(0, np.array([0, 0]), None, np.array([1.0, 0.0]), Fresh(Constant(0.0)))
    entries: Entries = {"m": "gradient", "v": "square", "u": "update"}
    state = {"a": {entry: np.full(1, 4.0) for entry in entries}}
    done = carry_optimizer((Remap("a", (part,)),), state, NUMPY, entries, "mean")["a"]
    assert {entry: list(array) for entry, array in done.items()} == {"m": [4, 0], "v": [4, 4], "u": [4, 0]}


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
