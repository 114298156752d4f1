"""Means with what they are worth, and rows in Markdown, as the tables of experiments show them."""

from __future__ import annotations

import math

from experiments.tables import grid, mean_of, paired, spread


def test_a_difference_is_taken_seed_by_seed() -> None:
    found = paired({0: 3.0, 1: 5.0, 2: 100.0}, {1: 4.0, 0: 1.0, 7: 0.0})
    assert found is not None
    assert found.mean == 1.5
    assert found.error == math.sqrt(0.5 / 2)
    assert found.told(1) == "+1.5 ± 0.5"
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_one_number_has_no_error_and_nothing_no_mean() -> None:
    found = mean_of([-2.0])
    assert found is not None
    assert found.told() == "-2.00"
    assert mean_of([]) is None


def test_spreads_are_standard_deviations() -> None:
    assert spread([1.0, 3.0], 2) == "2.00 ± 1.41"
    assert spread([1.0]) == "1.0 ± 0.0"
    assert spread([]) == ""


def test_rows_are_of_any_values() -> None:
    assert list(grid(["a", "b"], [[1, "x"]])) == ["| a | b |", "|---|---|", "| 1 | x |"]
