"""The algebra of spaces against brute force: whatever grows, positions that were one stay one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from growir.ops.algebra import MANY_ROWS, MAX_ROWS, Algebra
from growir.ops.spaces import Axis, Space, Term, as_block, length, spaces_on
from growir.resize import Units, axis_positions

Plan = dict[Space, Units]


@st.composite
def axes_of(draw: st.DrawFn, size: int, pool: list[Space]) -> Axis:
    """An axis of that length, of spaces from the pool where they fit, new ones and fixed positions.

    A unit may hold other units, so the same space may lie beside another, in its units, and around it.
    """
    terms: list[Term] = []
    left = size
    while left:
        old = [s for s in pool if s.size <= left and s.bind is None]
        choice = draw(st.integers(0, 3))
        if choice == 0 and old:
            space = draw(st.sampled_from(old))
            terms.append((space, draw(st.sampled_from([k for k in range(1, left // space.size + 1) if k < 4]))))
        elif choice == 1:
            terms.append((None, draw(st.integers(1, left))))
        else:
            block = draw(st.sampled_from([k for k in (1, 1, 2, 3, 4, 6) if k <= left]))
            space = Space(draw(st.integers(1, left // block)), draw(st.booleans()))
            pool.append(space)
            terms.append((space, as_block(draw(axes_of(block, pool))) if draw(st.booleans()) else block))
        left -= length((terms[-1],))
    return tuple(terms)


@st.composite
def plans(draw: st.DrawFn, algebra: Algebra, *axes: Axis) -> Plan:
    """New units for every free space: the old ones in any order, with copies and fresh ones among them."""
    found: Plan = {}
    for axis in axes:
        for space in spaces_on(algebra.resolve(axis)):
            if not space.pins and space not in found:
                extra = draw(st.lists(st.integers(-1, space.size - 1), max_size=2))
                index = draw(st.permutations([*range(space.size), *extra]))
                found[space] = Units(np.array(index), np.ones(len(index)))
    return found


def positions(algebra: Algebra, axis: Axis, plan: Plan) -> NDArray[np.int64]:
    resolved = algebra.resolve(axis)
    found = axis_positions(resolved, plan)
    return np.arange(length(resolved)) if found is None else found[0]


def gathered(array: NDArray[np.int64], index: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """An array gathered along every axis, -1 where some index is -1."""
    found: NDArray[np.int64] = array[np.ix_(*(k.clip(0) for k in index))].copy()
    for axis, k in enumerate(index):
        found[(slice(None),) * axis + (k < 0,)] = -1
    return found


@given(st.data())
def test_unified_axes_grow_alike(data: st.DataObject) -> None:
    size, pool = data.draw(st.integers(1, 12)), list[Space]()
    a, b, c = (data.draw(axes_of(size, pool)) for _ in range(3))
    algebra = Algebra()
    algebra.unify(a, b, "a test")
    if data.draw(st.booleans()):
        algebra.unify(b, c, "a test")
    else:
        c = a
    plan = data.draw(plans(algebra, a, b, c))
    assert length(algebra.resolve(a)) == length(algebra.resolve(b)) == size
    expected = positions(algebra, a, plan)
    assert np.array_equal(positions(algebra, b, plan), expected)
    assert np.array_equal(positions(algebra, c, plan), expected)


@pytest.mark.parametrize(
    ("a", "b", "units"),
    [
        ([(6, 1)], [(6, 1)], 6),
        ([(6, 1)], [(3, 2)], 3),
        ([(6, 1)], [(2, 1), (4, 1)], 6),
        ([(3, 2)], [(2, 3)], 1),  # blocks of 2 against blocks of 3: units of 6 positions
        ([(4, 2)], [(2, 3), (2, 1)], 2),  # six positions in common, the rest one unit of two
        ([(1, 4)], [(1, 3), (1, 1)], 0),  # a unit would be torn
    ],
)
def test_no_more_is_pinned_than_must_be(a: list[tuple[int, int]], b: list[tuple[int, int]], units: int) -> None:
    algebra = Algebra()
    left, right = (tuple((Space(size), block) for size, block in axis) for axis in (a, b))
    algebra.unify(left, right, "a test")
    assert algebra.free_units(left) == units
    assert algebra.free_units(right) == units


@given(st.data())
def test_pieces_make_up_the_axis(data: st.DataObject) -> None:
    size, pool = data.draw(st.integers(1, 12)), list[Space]()
    axis = data.draw(axes_of(size, pool))
    bounds = sorted(data.draw(st.lists(st.integers(0, size), max_size=3)))
    algebra = Algebra()
    pieces = algebra.cut(axis, bounds, "a test")
    ends = [0, *bounds, size]
    assert [length(piece) for piece in pieces] == [b - a for a, b in itertools.pairwise(ends)]
    plan = data.draw(plans(algebra, axis))
    starts = zip(pieces, ends, strict=False)
    whole = [np.where((p := positions(algebra, piece, plan)) < 0, -1, p + start) for piece, start in starts]
    assert np.array_equal(np.concatenate(whole), positions(algebra, axis, plan))


def test_a_torn_unit_is_pinned_and_no_other() -> None:
    algebra, space = Algebra(), Space(5)
    algebra.node = "cutter"
    axis: Axis = ((space, 1), (None, 1), (space, 3))
    pieces = algebra.cut(axis, [2, 6, 13, 14], "a test")  # between units 1 and 2; before the copy; twice in its unit 2
    assert [[(s and s.size, block) for s, block in piece] for piece in pieces] == [
        [(2, 1)],
        [(1, 1), (2, 1), (None, 1)],
        [(2, 3), (None, 1)],
        [(None, 1)],
        [(None, 1), (2, 3)],
    ]
    (a, _), (b, _), (c, _) = algebra.resolve(((space, 1),))
    assert a is not None
    assert b is not None
    assert c is not None
    assert [(s.size, [str(pin) for pin in s.pins]) for s in (a, b, c)] == [(2, []), (1, ["cutter (a test)"]), (2, [])]


def test_what_was_resolved_before_a_cut_is_not_kept() -> None:
    algebra, space = Algebra(), Space(5)
    axis: Axis = ((space, 1), (None, 1))
    assert algebra.resolve(axis) is axis
    algebra.cut(axis, [2], "a test")
    assert [s and s.size for s, _ in algebra.resolve(axis)] == [2, 3, None]
    assert algebra.resolve(axis) is algebra.resolve(axis)


@given(st.data())
def test_reshaped_axes_unify(data: st.DataObject) -> None:
    """Two splits of one axis into factors, each joined with axes of others: all of them still grow alike."""
    factors = data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=2, max_size=4))
    assume(math.prod(factors) <= 48)
    algebra, pool = Algebra(), list[Space]()
    whole = data.draw(axes_of(math.prod(factors), pool))
    splits = [algebra.reshape((whole,), regrouped(data, factors)) for _ in range(2)]
    joins: list[tuple[Axis, Axis]] = []
    for split in splits:
        for axis in split:
            if data.draw(st.booleans()):
                joins.append((axis, data.draw(axes_of(length(axis), pool))))
                algebra.unify(*joins[-1], "a test")
    plan = data.draw(plans(algebra, whole, *(axis for pair in joins for axis in pair), *splits[0], *splits[1]))
    numbers = positions(algebra, whole, plan)
    for split in splits:
        sizes = [length(algebra.resolve(axis)) for axis in split]
        assert np.array_equal(
            gathered(np.arange(math.prod(sizes)).reshape(sizes), [positions(algebra, a, plan) for a in split]).ravel(),
            numbers,
        )
    for one, other in joins:
        assert np.array_equal(positions(algebra, one, plan), positions(algebra, other, plan))


def test_a_space_does_not_come_to_lie_in_its_own_block() -> None:
    """Three channels, and one unit that holds them: the unit stays one, and the channels are free."""
    algebra, unit, channels = Algebra(), Space(1), Space(3)
    held: Axis = ((unit, ((channels, 1),)),)
    algebra.unify(held, ((channels, 1),), "a test")
    assert [pin.reason for pin in unit.pins] == ["a test"]
    assert not channels.pins
    assert channels.bind is None


def test_what_two_factors_have_in_common_stays_free() -> None:
    """12 channels as 3 x 4 and as 2 x 6: units of the second split lie across those of the first."""
    algebra = Algebra()
    whole: Axis = ((Space(12), 1),)
    three, four = algebra.reshape((whole,), (3, 4))
    two, six = algebra.reshape((whole,), (2, 6))
    assert algebra.free_units(two) == 2 or algebra.free_units(six) > 0
    assert [length(algebra.resolve(axis)) for axis in (three, four, two, six)] == [3, 4, 2, 6]


def test_so_many_blocks_that_nobody_could_spell_them_out_stay_as_they_are() -> None:
    algebra, space = Algebra(), Space(3)
    (axis,) = algebra.reshape((((None, MAX_ROWS + 1),), ((space, 1),)), [3 * (MAX_ROWS + 1)])
    assert axis == ((None, 3 * (MAX_ROWS + 1)),)
    assert [pin.reason for pin in space.pins] == [MANY_ROWS]


@given(st.data())
def test_reshape_moves_no_number(data: st.DataObject) -> None:
    factors = data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4))
    old = regrouped(data, factors)
    new = regrouped(data, factors)
    assume(math.prod(factors) <= 96)
    algebra, pool = Algebra(), list[Space]()
    before = tuple(data.draw(axes_of(size, pool)) for size in old)
    after = algebra.reshape(before, new)
    assert [length(algebra.resolve(axis)) for axis in after] == new
    plan = data.draw(plans(algebra, *before, *after))
    numbers = np.arange(math.prod(factors))
    grown = gathered(numbers.reshape(old), [positions(algebra, axis, plan) for axis in before])
    moved = gathered(numbers.reshape(new), [positions(algebra, axis, plan) for axis in after])
    assert np.array_equal(grown.ravel(), moved.ravel())


def regrouped(data: st.DataObject, factors: list[int]) -> list[int]:
    """The factors, some neighbours multiplied."""
    sizes = [factors[0]]
    for factor in factors[1:]:
        if data.draw(st.booleans()):
            sizes[-1] *= factor
        else:
            sizes.append(factor)
    return sizes


@given(st.data())
def test_a_trial_leaves_no_trace(data: st.DataObject) -> None:
    size, pool = data.draw(st.integers(2, 12)), list[Space]()
    a, b, c = (data.draw(axes_of(size, pool)) for _ in range(3))
    algebra = Algebra()
    algebra.unify(a, b, "before")
    resolved = [algebra.resolve(axis) for axis in (a, b, c)]
    pins = {space: space.pins for axis in resolved for space in spaces_on(axis)}

    def trial() -> bool:
        algebra.unify(a, c, "in the trial")
        algebra.attempt(lambda: (algebra.cut(c, [1], "inside"), True)[1])
        return False

    assert not algebra.attempt(trial)
    assert [algebra.resolve(axis) for axis in (a, b, c)] == resolved
    assert {space: space.pins for axis in resolved for space in spaces_on(axis)} == pins
