"""Sources over arrays: what batches hold, that they are today's training's, and that nothing is copied."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from growir.data.memory import ArraySource
from growir.data.shuffling import Shuffle, generator
from growir.data.source import Batch, Indexed, Stream, bounds
from growir.errors import DataError
from tests.growth.before import Loss, train


def source(count: int, width: int = 2) -> ArraySource:
    """Samples that are told apart by their first number, which is the target too."""
    x = np.arange(count * width, dtype=np.float32).reshape(count, width)
    return ArraySource(x, np.arange(count))


def targets(batches: Any) -> list[list[int]]:
    return [batch.target.tolist() for batch in batches]


def test_a_batch_is_a_pair_and_as_long_as_its_samples() -> None:
    batch = Batch((torch.zeros(5, 2),), torch.zeros(5))
    inputs, target = batch
    assert len(batch) == 5
    assert inputs is batch.inputs
    assert target is batch.target
    assert len(Batch({"a": torch.zeros(3)}, None)) == 3


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (10, 4, [0, 4, 8, 10]),
        (9, 4, [0, 4, 9]),
        (8, 4, [0, 4, 8]),
        (1, 4, [0, 1]),
        (3, 1, [0, 1, 3]),
        (0, 4, [0]),
    ],
)
def test_a_last_sample_joins_the_batch_before(count: int, size: int, expected: list[int]) -> None:
    assert bounds(count, size) == expected


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3), st.booleans())
def test_the_rest_of_an_epoch_is_what_it_would_have_been(count: int, size: int, epoch: int, cut: bool) -> None:
    of: Indexed = source(count)
    if cut:
        of = of.part(torch.arange(count - 1, -1, -2))
    for shuffle in (None, Shuffle((3, 1))):
        whole = targets(of.batches(size, shuffle, epoch))
        assert len(whole) == of.batch_count(size)
        assert sorted(chain(*whole)) == sorted(of.indices.tolist())
        for start in range(len(whole) + 2):
            assert targets(of.batches(size, Shuffle((3, 1)) if shuffle else None, epoch, start)) == whole[start:]
        assert targets(of.batches(size, shuffle, epoch)) == whole


@given(st.integers(2, 40), st.integers(2, 9), st.integers(0, 2**31))
def test_batches_are_those_that_training_draws(count: int, size: int, seed: int) -> None:
    seen: list[list[float]] = []

    class Seeing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> Any:
            seen.append(x[:, 0].tolist())
            return self.layer(x)

    module, of, samples = Seeing(), source(count), torch.arange(count).flip(0)
    train(
        module,
        Loss("regression", torch.ones(1)),
        [of.rows(torch.arange(count)).inputs[0]],  # type: ignore[index]  # a tuple here
        torch.zeros(count, 1),
        samples,
        torch.optim.SGD(module.parameters(), 0.0),
        epochs=3,
        batch_size=size,
        generator=generator(seed, 2),
    )
    part, shuffle = of.part(samples), Shuffle((seed, 2))
    walked = [batch for epoch in range(3) for batch in part.batches(size, shuffle, epoch)]
    assert [batch.inputs[0][:, 0].tolist() for batch in walked] == seen  # type: ignore[index]


@given(st.lists(st.integers(0, 19), max_size=8), st.lists(st.integers(0, 7), max_size=5))
def test_parts_and_rows_agree(first: list[int], second: list[int]) -> None:
    of = source(20)
    part = of.part(torch.tensor(first, dtype=torch.int64))
    second = [k for k in second if k < len(first)]
    inner = part.part(second)
    assert inner.whole is of
    assert inner.indices.tolist() == [first[k] for k in second]
    assert inner.rows(torch.arange(len(second))).target.tolist() == part.rows(second).target.tolist()
    assert part.rows(second).target.tolist() == [first[k] for k in second]


def test_nothing_is_copied() -> None:
    x, tokens = np.random.default_rng(0).standard_normal((9, 4)), torch.arange(9)
    of = ArraySource((x, tokens), {"class": np.arange(9)})
    part = of.part(torch.tensor([3, 1]))
    for found in (of, part):
        assert isinstance(found.inputs, tuple)
        assert [value.data_ptr() for value in found.inputs] == [x.ctypes.data, tokens.data_ptr()]
    inputs, _ = next(of.batches(4, None, start=1))
    assert isinstance(inputs, tuple)
    assert inputs[0].data_ptr() == x[4:].ctypes.data


def test_arrays_mapped_from_a_file_stay_in_it(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(6, 2))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    of = ArraySource(x, torch.arange(6))
    assert isinstance(of.inputs, tuple)
    assert of.inputs[0].data_ptr() == x.ctypes.data
    assert of.rows([5]).inputs[0].tolist() == [[10.0, 11.0]]  # type: ignore[index]
    assert not recwarn.list


def test_inputs_and_targets_of_every_kind() -> None:
    tokens, image = np.ones((6, 7), np.int32), torch.zeros(6, 3, 4, 4)
    mask, weight = np.arange(6 * 16).reshape(6, 4, 4), torch.arange(6.0)
    of = ArraySource({"tokens": tokens, "image": image}, {"mask": mask, "rest": (weight, weight)})
    inputs, target = of.rows([4, 2])
    assert isinstance(inputs, dict)
    assert {name: (value.dtype, tuple(value.shape)) for name, value in inputs.items()} == {
        "tokens": (torch.int32, (2, 7)),
        "image": (torch.float32, (2, 3, 4, 4)),
    }
    assert target["mask"].equal(torch.from_numpy(mask[[4, 2]]))
    assert [part.tolist() for part in target["rest"]] == [[4, 2], [4, 2]]
    assert ArraySource([[1.0], [2.0]], [0, 1]).rows([1]).target.tolist() == [1]


def test_they_are_indexed_and_no_stream() -> None:
    assert isinstance(source(3), Indexed)
    assert not isinstance(source(3), Stream)
    assert source(3).whole.indices.tolist() == [0, 1, 2]


BAD: dict[str, tuple[Any, Any, str]] = {
    "lengths": (
        np.zeros((5, 2)),
        np.zeros(4),
        "the arrays: input 1 holds 5 samples, but the target 4; give as many of each",
    ),
    "lengths by name": (
        {"a": np.zeros(5), "b": np.zeros(6)},
        {"y": np.zeros(5)},
        "the arrays: input a holds 5 samples, but input b 6; give as many of each",
    ),
    "parts of the target": (
        np.zeros(5),
        {"y": (np.zeros(5), np.zeros(3))},
        "the arrays: input 1 holds 5 samples, but the target, y, part 2 3; give as many of each",
    ),
    "nothing": (np.zeros((0, 2)), np.zeros(0), "the arrays: there are no samples in them; give one or more"),
    "no input": ((), np.zeros(2), "the arrays: there is no input; give an array of samples, or several"),
    "words": (np.array(["a", "b"]), np.zeros(2), "the arrays: input 1 is no array of numbers that torch can take"),
    "ragged": ([[1.0], [1.0, 2.0]], np.zeros(2), "the arrays: input 1 is no array of numbers that torch can take"),
    "backwards": (np.arange(3.0)[::-1], np.zeros(3), "order of memory (np.ascontiguousarray)"),
    "a number": (
        np.zeros(3),
        np.float64(1),
        "the arrays: the target is a single number; an array whose first axis are samples is needed",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str) -> None:
    x, y, says = BAD[name]
    with pytest.raises(DataError, match=re.escape(says)):
        ArraySource(x, y)
