"""The three parts of a run's data: which samples each has, by today's draws and by any share."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import growir.data
from growir.data import Data
from growir.data.memory import ArraySource
from growir.data.parts import halves
from growir.data.shuffling import Shuffle
from growir.data.source import Batch, Indexed
from growir.errors import DataError
from growir.growth.data import split_parts


def data(count: int, select: float | None = None) -> Data:
    return Data.from_arrays(np.zeros((count, 2), np.float32), np.arange(count), select=select)


def indices(source: object) -> list[int]:
    assert isinstance(source, Indexed)
    return [int(k) for k in source.indices]


@given(st.integers(3, 200), st.integers(0, 2**31))
def test_a_third_is_cut_off_as_it_always_was(count: int, seed: int) -> None:
    parts, found = split_parts(count, seed), data(count).cut(seed)
    assert indices(found.train) == parts.between.tolist()
    assert indices(found.select) == parts.gr.tolist()
    first, second = halves(found.train)
    assert indices(first) == parts.opt.tolist()
    assert indices(second) == parts.ls.tolist()


@given(st.integers(40, 300), st.floats(0.05, 0.9), st.integers(0, 9))
def test_any_share_is_cut_off(count: int, share: float, seed: int) -> None:
    found = data(count, share).cut(seed)
    train, select = indices(found.train), indices(found.select)
    assert sorted(train + select) == list(range(count))
    assert len(train) % 2 == 0
    assert share * count - 1 < len(select) < share * count + 2 + count / 1000
    assert indices(data(count).cut(seed, share).select) == select


def test_a_share_of_the_data_goes_before_the_run_s() -> None:
    assert len(indices(data(100, 0.1).cut(0, 1 / 3).select)) == 10


@given(st.integers(3, 60), st.integers(0, 9))
def test_the_last_fit_has_all_samples_in_their_own_order(count: int, seed: int) -> None:
    uncut = data(count)
    assert uncut.everything() is uncut.train
    assert uncut.cut(seed).everything() is uncut.train
    part = uncut.train.part(torch.arange(count - 1, 0, -1))  # type: ignore[attr-defined]
    if len(part) > 2:
        assert indices(Data(part, None, None).cut(seed).everything()) == list(range(1, count))


def test_what_has_a_selection_part_is_not_cut() -> None:
    x, y = np.zeros((4, 2)), np.zeros(4)
    found = Data.from_arrays(x, y, select=(x, y), test=(x[:3], y[:3]))
    assert found.cut(0) is found
    assert found.select is not None
    assert found.test is not None
    assert (len(found.select), len(found.test)) == (4, 3)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 8), st.integers(0, 2))
def test_other_data_that_chooses_is_mixed_in_for_the_last_fit(first: int, second: int, size: int, epoch: int) -> None:
    x, y = np.zeros((first + second, 1)), np.arange(first + second)
    both = Data.from_arrays(x[:first], y[:first], select=(x[first:], y[first:])).everything()

    def walk(shuffle: Shuffle | None, start: int = 0) -> list[list[int]]:
        return [batch.target.tolist() for batch in both.batches(size, shuffle, epoch, start)]

    assert len(both) == first + second
    assert list(chain(*walk(None))) == y.tolist()
    shuffled = walk(Shuffle((1,)))
    assert sorted(chain(*shuffled)) == y.tolist()
    assert len(shuffled) == both.batch_count(size)
    for start in range(len(shuffled) + 1):
        assert walk(Shuffle((1,)), start) == shuffled[start:]


class Uncut:
    """A source of somebody's own, with the least that one has."""

    def __len__(self) -> int:
        return 2

    def batches(self, size: int, shuffle: Shuffle | None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        yield from [Batch((torch.zeros(2, 1),), torch.zeros(2))][start:]

    def batch_count(self, size: int) -> int:
        return 1


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 7])
def test_a_share_lies_between_none_and_all(share: float) -> None:
    with pytest.raises(DataError, match=re.escape(f"select={share:g}: the share of the training data that selects")):
        data(10, share)
    with pytest.raises(DataError, match=re.escape(f"select={share:g}: the share of the training data that selects")):
        data(10).cut(0, share)


def test_what_cannot_be_cut_says_so() -> None:
    with pytest.raises(DataError, match=re.escape("of 3 samples that leaves 0 to train on and 3 to select by")):
        data(3, 0.5).cut(0)
    with pytest.raises(DataError, match="a source of Uncut cannot be cut: it has neither `part` nor `every`"):
        Data(Uncut(), None, None).cut(0)
    with pytest.raises(DataError, match="a source of Uncut cannot be cut into halves"):
        halves(Uncut())


def test_own_data_is_a_pair() -> None:
    x = np.zeros((4, 2))
    with pytest.raises(DataError, match=re.escape("select= takes (inputs, target), but is of ndarray; give a pair")):
        Data.from_arrays(x, x, select=x)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=re.escape("test= takes (inputs, target), but is of tuple; give a pair")):
        Data.from_arrays(x, x, test=(x,))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="the test arrays: input 1 holds 4 samples, but the target 3"):
        Data.from_arrays(x, x, test=(x, x[:3]))


def test_sources_are_told_apart() -> None:
    assert not isinstance(Uncut(), Indexed)
    assert isinstance(ArraySource(torch.zeros(2), torch.zeros(2)), Indexed)


def test_who_reads_a_table_needs_no_torch() -> None:
    code = "import sys, growir.data, growir.data.columns, growir.data.samples; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_only_data_is_exported() -> None:
    assert growir.data.__all__ == ["Data"]
    with pytest.raises(AttributeError, match=re.escape("module 'growir.data' has no attribute 'Date'")):
        growir.data.Date  # noqa: B018  # asking is the test
