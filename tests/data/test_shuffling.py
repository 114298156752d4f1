"""Orders as functions of a key: which draws they are, and that going on costs no bit."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from growir.data.shuffling import Shuffle, generator

KEYS = st.lists(st.integers(0, 2**31), min_size=1, max_size=4).map(tuple)


@given(KEYS, st.integers(0, 30), st.integers(1, 5))
def test_epochs_are_the_draws_of_one_generator(key: tuple[int, ...], count: int, epochs: int) -> None:
    draws = generator(*key)
    shuffle = Shuffle(key)
    for epoch in range(epochs):
        assert torch.equal(shuffle.order(count, epoch), torch.randperm(count, generator=draws))


@given(KEYS, st.integers(2, 30), st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_an_order_does_not_depend_on_those_asked_for_before(
    key: tuple[int, ...], count: int, epochs: list[int]
) -> None:
    shuffle = Shuffle(key)
    for epoch in epochs:
        shuffle.order(count + 1, epoch)
        assert torch.equal(shuffle.order(count, epoch), Shuffle(key).order(count, epoch))


def test_keys_tell_orders_apart() -> None:
    assert Shuffle((0, 1)) == Shuffle((0, 1)) != Shuffle((0, 2))
    assert not torch.equal(Shuffle((0, 1)).order(50, 0), Shuffle((0, 2)).order(50, 0))
    assert not torch.equal(Shuffle((0, 1)).order(50, 0), Shuffle((0, 1)).order(50, 1))
