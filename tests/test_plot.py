"""Axes hold every value, their ticks are few and round; letters stand where they should."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.plot import HEIGHT, WIDTH, Axis, Canvas, decade_axis, linear_axis

VALUES = st.lists(st.floats(-1e299, 1e299, allow_nan=False), max_size=8)


def check(axis: Axis, values: list[float]) -> None:
    assert axis.low < axis.high
    assert (axis.place(axis.low), axis.place(axis.high)) == (0, 1)
    assert 1 <= len(axis.ticks) <= 14
    places = [axis.place(value) for value, _ in axis.ticks]
    assert all(a < b for a, b in pairwise(places))
    assert all(0 <= place <= 1 for place in places)
    ordered = sorted(values)
    assert all(axis.low <= value <= axis.high or abs(value) <= 1e-300 for value in ordered)
    assert all(axis.place(a) <= axis.place(b) for a, b in pairwise(ordered))


@given(VALUES)
def test_axes_of_decades(values: list[float]) -> None:
    check(decade_axis(values), values)


@given(st.lists(st.floats(1e-299, 1e299), min_size=1, max_size=8))
def test_axes_of_what_is_above_zero(values: list[float]) -> None:
    axis = decade_axis(values)
    assert axis.low > 0
    check(axis, [])


@given(VALUES)
def test_linear_axes(values: list[float]) -> None:
    check(linear_axis(values), values)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.02, 0.5], "0.01 0.1 1"),
        ([1.0], "0.1 1"),
        ([1e-9, 1.0], "1e-09 1e-07 1e-05 0.001 0.1"),
        ([-0.003, 0.5], "-0.01 0 0.01 0.1 1"),
        ([0.0, 0.5], "0 0.01 0.1 1"),
        ([-3.0, -0.2], "-10 -1 -0.1 0"),
        ([0.0], "-1 -0.5 0 0.5 1"),
    ],
)
def test_ticks_of_decades(values: list[float], labels: str) -> None:
    assert [label for _, label in decade_axis(values).ticks] == labels.split()


def test_linear_ticks() -> None:
    assert [label for _, label in linear_axis([0.31, 0.93]).ticks] == "0.3 0.4 0.5 0.6 0.7 0.8 0.9".split()
    assert next(label for _, label in linear_axis([0.5], "{:.1%}".format).ticks) == "48.0%"


def test_letters() -> None:
    axis = linear_axis([0.0, 1.0])
    canvas = Canvas(Axis(0, 1, ((0, "0"), (1, "1"))), Axis(0, 1, ((0, "low"), (1, "high"))))
    canvas.diagonal()
    for x, y, letter in ((0, 0, "a"), (0, 0, "a"), (1, 1, "b"), (1, 1, "c"), (0, 1, "d"), (9, 0.5, "e")):
        canvas.put(x, y, letter)
    lines = canvas.text("across", "up", [(0, "^")]).splitlines()
    assert lines[0] == "up"
    rows = lines[1 : HEIGHT + 1]
    assert rows[0] == f"high +d{' ' * (WIDTH - 5)}...*"
    assert rows[-1] == " low +a..."
    assert rows[7][-1] == "e"  # outside, so at the border
    assert lines[HEIGHT + 1] == f"{'':5}++{'-' * (WIDTH - 2)}+"
    assert lines[HEIGHT + 2] == f"{'':6}^"
    assert lines[HEIGHT + 3].split() == ["0", "1"]
    assert lines[HEIGHT + 4].strip() == "across"
    assert axis.cell(1.0, 10) == 9
