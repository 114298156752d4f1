"""What is fed to a network: in its order, its types, and one message for each thing that does not fit."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from growir.data.feeding import Feed, InputSpec, is_finite
from growir.data.loaders import loader_source
from growir.data.memory import ArraySource
from growir.data.source import Batch
from growir.errors import DataError

IMAGE = InputSpec("image", ("N", 3, 4, 4))
TOKENS = InputSpec("tokens", ("N", "T"), "int64")
BOTH = Feed([IMAGE, TOKENS])
X, T, Y = torch.zeros(2, 3, 4, 4), torch.ones(2, 7, dtype=torch.int64), torch.tensor([0, 1])


def inputs_of(batch: Batch) -> tuple[torch.Tensor, ...]:
    assert isinstance(batch.inputs, tuple)
    return batch.inputs


def test_inputs_come_in_the_order_of_the_network() -> None:
    for given_inputs in ((X, T), {"tokens": T, "image": X}):
        found = inputs_of(BOTH(Batch(given_inputs, Y)))
        assert found[0] is X
        assert found[1] is T


@pytest.mark.parametrize("found", ["float16", "bfloat16", "float32", "float64", "uint8", "int32", "int64", "bool"])
@pytest.mark.parametrize("wanted", ["float32", "float64", "int64"])
def test_what_fits_is_converted(found: str, wanted: str) -> None:
    x = torch.ones(2, 1).to(getattr(torch, found))
    feed = Feed([InputSpec("x", ("N", 1), wanted)])
    if x.is_floating_point() and wanted == "int64":
        with pytest.raises(
            DataError, match=re.escape(f"the batch: input x is of {found}, but the network takes int64; give whole")
        ):
            feed(Batch((x,), Y))
    else:
        (fed,) = inputs_of(feed(Batch((x,), Y)))
        assert fed.dtype == getattr(torch, wanted)
        assert fed.tolist() == [[1], [1]]


def test_targets_keep_their_kind_and_take_the_network_s_precision() -> None:
    target = {"class": Y, "weight": (torch.ones(2, dtype=torch.float64), None, "a name"), "scalar": torch.tensor(3.0)}
    for floats, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        fed = Feed([TOKENS], floats=floats)(Batch((T,), target)).target
        assert fed["class"] is Y
        assert fed["weight"][0].dtype == dtype
        assert fed["weight"][1:] == (None, "a name")
        assert fed["scalar"].dtype == dtype


@given(st.lists(st.floats(width=32), min_size=1), st.sampled_from([torch.float16, torch.float32, torch.float64]))
def test_finite_is_finite(numbers: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(numbers, dtype=torch.float64).to(dtype)
    assert is_finite(tensor) == bool(torch.isfinite(tensor).all())


def test_sums_that_overflow_accuse_nobody() -> None:
    assert is_finite(torch.full((4,), 3e38))
    assert is_finite(torch.full((4,), 6e4, dtype=torch.float16))
    assert not is_finite(torch.tensor([float("inf"), -float("inf")]))


def test_an_epoch_is_the_source_s() -> None:
    source = ArraySource(torch.arange(10.0).reshape(10, 1).double(), torch.arange(10))
    feed = Feed([InputSpec("x", ("N", 1))])
    assert [batch.target.tolist() for batch in feed.epoch(source, 4, start=1)] == [[4, 5, 6, 7], [8, 9]]
    assert {inputs_of(batch)[0].dtype for batch in feed.epoch(source, 4)} == {torch.float32}
    assert list(feed.epoch(source, 4, start=3)) == []


@pytest.mark.cuda
def test_pinned_batches_go_to_a_gpu() -> None:
    fed = Feed([IMAGE, TOKENS], "cuda")(Batch((X.pin_memory(), T), {"y": Y.pin_memory(), "w": torch.ones(2).double()}))
    assert {value.device.type for value in (*inputs_of(fed), *fed.target.values())} == {"cuda"}
    assert fed.target["w"].dtype == torch.float32
    bad = torch.full((2, 3, 4, 4), float("nan"), device="cuda")
    with pytest.raises(DataError, match="input image: 96 of its 96 numbers are NaN or infinite"):
        Feed([IMAGE], "cuda")(Batch((bad,), Y))


NAN, INF = torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.float64)
NAN[0, 0, 0, :3] = float("nan")
INF[1] = float("inf")

BAD: dict[str, tuple[Any, Any, str]] = {
    "shape": (
        (X[:, :1], T),
        Y,
        "input image is (2, 1, 4, 4), but the network takes (N, 3, 4, 4); reshape or resize the samples where they are "
        "made, or take a network for these",
    ),
    "rank": ((X, T[:, 0]), Y, "input tokens is (2,), but the network takes (N, T); reshape"),
    "a single sample": ((X[0], T), Y, "input image is (3, 4, 4), but the network takes (N, 3, 4, 4); reshape"),
    "floats for tokens": (
        (X, T.float()),
        Y,
        "input tokens is of float32, but the network takes int64; give whole numbers, as tokens are: x.long()",
    ),
    "complex": ((X.to(torch.complex64), T), Y, "input image is of complex64, but the network takes float32; give real"),
    "NaN": (
        (NAN, T),
        Y,
        "input image: 3 of its 96 numbers are NaN or infinite; leave those samples out, or mend what makes them",
    ),
    "beyond float32": (
        (X.double() + 1e300, T),
        Y,
        "input image: 96 of its 96 numbers are NaN or infinite as float32; leave",
    ),
    "infinite target": ((X, T), {"w": INF}, "the target: 1 of its 2 numbers are NaN or infinite; leave"),
    "lengths": ((X, T[:1]), Y, "input image holds 2 samples, but input tokens 1; give as many of each"),
    "target": ((X, T), (Y, Y[:1]), "the inputs hold 2 samples, but the target 1; give a target for each sample, along"),
    "no samples": ((X[:0], T[:0]), Y[:0], "there are no samples in it; give batches of one or more"),
    "too few inputs": (
        (X,),
        Y,
        "it has 1 input, but the network takes 2: image, tokens; give them in a tuple, in this order, or in a mapping",
    ),
    "missing": (
        {"image": X, "token": T},
        Y,
        "input tokens is missing; it has image, token, but the network takes image, tokens; give each under its name. "
        "Did you mean 'token'?",
    ),
    "too much": (
        {"image": X, "tokens": T, "mask": T},
        Y,
        "the network has no input mask; it takes image, tokens; leave the other out.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit(name: str) -> None:
    inputs, target, says = BAD[name]
    with pytest.raises(DataError, match=re.escape(f"the selection data, batch 3: {says}")):
        BOTH(Batch(inputs, target), "the selection data, batch 3")


def test_the_batch_of_the_source_is_named() -> None:
    batches: list[Any] = [(torch.zeros(2, 1), Y), (torch.zeros(2, 2), Y)]
    feed = Feed([InputSpec("x", ("N", 1))])
    with pytest.raises(DataError, match=re.escape("the test data, batch 1: input x is (2, 2), but the network takes")):
        list(feed.epoch(loader_source(batches), 4, name="the test data"))
    with pytest.raises(DataError, match="the training data, batch 1: input x"):
        list(feed.epoch(loader_source(batches), 4, start=1))


class Nothing:
    """A source without a batch."""

    def __len__(self) -> int:
        return 0

    def batches(self, *args: Any) -> Any:
        return iter(())

    def batch_count(self, size: int) -> int:
        return 0


def test_nothing_to_feed() -> None:
    with pytest.raises(DataError, match="the training data: there is no batch in it; give one sample or more"):
        list(Feed([TOKENS]).epoch(Nothing(), 4))
