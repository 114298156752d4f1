"""The part held out to test on: how large it is, of which classes, and the same by the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.data.splitting import held_out


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(0.01, 0.95), st.integers(0, 5))
def test_each_class_gives_its_share_and_keeps_one(sizes: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    train, test = held_out(labels, len(labels), share, seed)
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    wanted = max(1, int(share * len(labels) + 0.5))
    assert len(test) == min(wanted, len(labels) - len(sizes))
    left = np.bincount(labels[train], minlength=len(sizes))
    assert (left >= 1).all()
    for size, kept in zip(sizes, left, strict=True):
        assert size - kept <= share * size + len(sizes) / 2 + 1


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_of_even_classes_the_shares_are_even(share: float) -> None:
    labels = np.tile(np.array(["a", "b"]), 50)
    _, test = held_out(labels, 100, share, 0)
    assert (labels[test] == "a").sum() == (labels[test] == "b").sum() == 50 * share


@given(st.integers(2, 60), st.floats(0.01, 0.95), st.integers(0, 5))
def test_of_amounts_any_are_held_out(samples: int, share: float, seed: int) -> None:
    train, test = held_out(None, samples, share, seed)
    assert sorted([*train, *test]) == list(range(samples))
    assert len(test) == max(1, int(share * samples + 0.5))


def test_the_seed_decides() -> None:
    labels = np.tile([0, 1], 50)
    same = [held_out(labels, 100, 0.2, 3)[1].tolist() for _ in range(2)]
    assert same[0] == same[1] != held_out(labels, 100, 0.2, 4)[1].tolist()
