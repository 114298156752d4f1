"""Designs: what a layer's weight multiplies, for every layer growth can solve for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from growir.growth.measure.designs import Places, as_weight, chain, design, is_layer, run_layer, window_of
from growir.growth.session import generator
from growir.ops import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    Conv2d,
    Flatten,
    Identity,
    Linear,
    MaxPool2d,
    Op,
    Shape,
)

Extent = int | tuple[int, int]
KERNELS: list[Extent] = [1, 3, (3, 1)]
CONVOLUTIONS: list[tuple[Extent, Extent, Extent, Extent]] = [
    *itertools.product(KERNELS, [1, 2], [0, 1], [1, 2]),
    (5, 1, 2, 1),
    (3, (2, 1), (1, 2), (1, 2)),
    ((2, 4), (1, 3), (0, 1), (3, 1)),
]


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """The weight of a layer as a matrix (features, width)."""
    return weight.reshape(len(weight), -1).T


def every_place(samples: int, shape: tuple[int, ...]) -> Places:
    """All positions of a map (samples, channels, height, width), in order."""
    return Places.draw(samples, Shape(("N", *shape[1:])), samples * shape[2] * shape[3], generator(0))


def drawn(places: int, samples: int = 6, seed: int = 0, sizes: tuple[int, int] = (4, 5)) -> Places:
    return Places.draw(samples, Shape(("N", 2, *sizes)), places * samples, generator(seed))


def convolution(kernel: Extent, stride: Extent, padding: Extent, dilation: Extent, channels: int = 4) -> Conv2d:
    fields = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return Conv2d.model_validate({"op": "conv2d", "out_channels": channels, "bias": False, **fields})


# -- the law ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CONVOLUTIONS)
@pytest.mark.parametrize("each", [3, 1000])
def test_a_convolution_is_its_design_times_its_matrix(
    kernel: Extent, stride: Extent, padding: Extent, dilation: Extent, each: int
) -> None:
    op = convolution(kernel, stride, padding, dilation)
    draws = generator(1)
    x = torch.randn(5, 3, 9, 11, generator=draws, dtype=torch.float64)
    weight = torch.randn(op.params(Shape(("N", 3, 9, 11)))["weight"].shape, generator=draws, dtype=torch.float64)
    expected = F.conv2d(x, weight, stride=stride, padding=padding, dilation=dilation)
    assert torch.equal(run_layer(op, x, weight), expected)
    places = Places.draw(5, Shape(("N", *expected.shape[1:])), 5 * each, draws)
    rows = design(op, x, places) @ as_matrix(weight)
    assert len(rows) == 5 * min(each, expected.shape[2] * expected.shape[3])
    assert torch.allclose(rows, places.of(expected), atol=1e-12)


def test_a_linear_layer_is_its_design_times_its_matrix() -> None:
    x, weight = torch.randn(7, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    op, places = Linear(out_features=4), Places.draw(7, Shape(("N", 4)), 1000, generator(0))
    assert (places.samples, places.positions) == (None, 1)
    found = design(op, x, places) @ as_matrix(weight)
    assert torch.allclose(found, places.of(run_layer(op, x, weight)), atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CONVOLUTIONS[::5])
def test_weights_and_matrices_are_each_others_inverse(
    kernel: Extent, stride: Extent, padding: Extent, dilation: Extent
) -> None:
    op = convolution(kernel, stride, padding, dilation)
    weight = torch.randn(op.params(Shape(("N", 3, 30, 30)))["weight"].shape)
    assert torch.equal(as_weight(op, as_matrix(weight)), weight)
    # The width of a matrix is its own: a move may add fewer channels than the layer has.
    assert torch.equal(as_weight(op, as_matrix(weight[:2])), weight[:2])
    assert torch.equal(as_matrix(as_weight(Linear(out_features=4), torch.eye(4, 6))), torch.eye(4, 6))


def test_layers_of_one_window_have_one_design() -> None:
    x, found = torch.randn(2, 2, 9, 9), dict[tuple[object, ...], torch.Tensor]()
    for settings, channels in itertools.product(CONVOLUTIONS, (1, 4)):
        op = convolution(*settings, channels=channels)
        rows = design(op, x, every_place(2, (2, *op.infer(Shape(("N", 2, 9, 9))).sizes)))
        assert torch.equal(found.setdefault(window_of(op), rows), rows)
    assert len(found) == len(CONVOLUTIONS)


@pytest.mark.parametrize(
    "fields",
    [{"groups": 2}, {"depthwise": True, "out_channels": None}, {"padding": "same"}, {"padding": "valid"}],
)
def test_what_growth_cannot_solve_for_is_no_layer(fields: dict[str, Any]) -> None:
    plain = {"op": "conv2d", "out_channels": 4, "kernel_size": 3}
    assert is_layer(Conv2d.model_validate(plain))
    assert not is_layer(Conv2d.model_validate({**plain, **fields}))
    assert not is_layer(Flatten())


# -- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", [1, 3, 19, 20, 50])
def test_every_sample_has_equally_many_distinct_places(each: int) -> None:
    places = drawn(each)
    assert places.samples is not None
    assert places.positions == 20
    found: dict[int, set[tuple[int, int]]] = {}
    for sample, row, column in zip(places.samples.tolist(), *(at.tolist() for at in places.at), strict=True):
        assert 0 <= row < 4
        assert 0 <= column < 5
        assert (row, column) not in found.setdefault(sample, set())
        found[sample].add((row, column))
    assert sorted(found) == list(range(6))
    assert {len(chosen) for chosen in found.values()} == {min(each, 20)}


def test_fewer_rows_than_samples_are_never_drawn() -> None:
    places = Places.draw(6, Shape(("N", 2, 4, 5)), 1, generator(0))
    assert places.samples is not None
    assert places.samples.tolist() == list(range(6))


def test_places_are_seeded_and_differ_between_samples() -> None:
    assert all(torch.equal(a, b) for a, b in zip(drawn(3).at, drawn(3).at, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(drawn(3).at, drawn(3, seed=1).at, strict=True))
    rows = drawn(3).at[0].reshape(6, 3)
    assert not (rows == rows[0]).all()


def test_every_place_is_equally_likely() -> None:
    places = drawn(3, samples=4000)
    counts = torch.bincount(places.at[0] * 5 + places.at[1], minlength=20)
    # 12 000 draws in 20 cells: 600 each with a standard deviation of 23.
    assert (counts - 600).abs().max() < 5 * 23


def test_the_mean_over_all_places_is_the_mean_over_samples_and_positions() -> None:
    value = torch.randn(5, 2, 3, 4, dtype=torch.float64)
    rows = every_place(5, (5, 2, 3, 4)).of(value)
    assert rows.shape == (60, 2)
    assert torch.allclose(rows.mean(dim=0), value.mean(dim=(0, 2, 3)))


# -- chains -----------------------------------------------------------------------------------------------------------

CHAINS: list[list[Op]] = [
    [],
    [Flatten()],
    [MaxPool2d(kernel_size=2), Flatten()],
    [AvgPool2d(kernel_size=3, stride=2, padding=1)],
    [Identity(), AdaptiveAvgPool2d(output_size=1), Flatten()],
    [AdaptiveMaxPool2d(output_size=(2, 3))],
]
EXPECTED: list[Any] = [
    lambda x: x,
    lambda x: x.flatten(1),
    lambda x: F.max_pool2d(x, 2).flatten(1),
    lambda x: F.avg_pool2d(x, 3, 2, 1),
    lambda x: x.mean(dim=(2, 3)),
    lambda x: F.adaptive_max_pool2d(x, (2, 3)),
]


@pytest.mark.parametrize(("ops", "expected"), list(zip(CHAINS, EXPECTED, strict=True)), ids=range(len(CHAINS)))
def test_a_chain_serves_any_number_of_channels(ops: list[Op], expected: Any) -> None:
    for channels in (1, 2, 7):
        value = torch.randn(3, channels, 6, 7)
        # It was made for five channels, and of each it makes what it would make of that one alone.
        run = chain(ops, Shape(("N", 5, 6, 7)))
        assert torch.allclose(run(value), expected(value), atol=1e-6)
        assert torch.equal(run(value), chain(ops, Shape(("N", channels, 6, 7)))(value))
