"""Pooling over one to three spatial axes; carries every channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from growir.ops.base import (
    Bool,
    Example,
    Extents,
    Extents0,
    Framed,
    NonNegativeInt,
    OpError,
    Pair,
    Pair0,
    PositiveInt,
    Shape,
    Triple,
    Triple0,
    batch_of,
    check_spatial,
    extents,
    in_full,
    window,
)
from growir.ops.rule import Rule
from growir.ops.spaces import Axes, fixed


class Pool(Framed):
    """What all pools share: (N, C, ...) in and out, spatial axes fixed."""

    spatial: ClassVar[int]

    def channels_one(self, rule: Rule, *xs: Axes) -> Axes:
        rule.fixed(xs[0][2:], "is pooled along this axis")
        return (*xs[0][:2], *(fixed(size) for size in rule.sizes[2:]))

    @classmethod
    def _image(cls, channels: int, *sizes: int) -> Shape:
        return batch_of(channels, *sizes[: cls.spatial])


class WindowPool(Pool):
    """A pool with a sliding window; stride defaults to the window."""

    kernel_size: Extents
    stride: Extents | None = None
    padding: Extents0 = 0
    ceil_mode: Bool = False

    def kernel(self) -> tuple[int, ...]:
        """The window's size per axis."""
        return in_full(self.kernel_size, self.spatial)

    def steps(self) -> tuple[int, ...]:
        """The stride per axis."""
        return in_full(self.kernel_size if self.stride is None else self.stride, self.spatial)

    def pads(self) -> tuple[int, ...]:
        """The padding per axis, on either side."""
        return in_full(self.padding, self.spatial)

    def spacing(self) -> tuple[int, ...]:
        """The dilation per axis."""
        return (1,) * self.spatial

    def infer_one(self, *xs: Shape) -> Shape:
        x = xs[0]
        check_spatial(x, self.kind(), self.spatial)
        sizes: list[int] = []
        for k, (kernel, pad) in enumerate(zip(self.kernel(), self.pads(), strict=True)):
            if 2 * pad > kernel:
                raise OpError(f"padding {pad} is more than half of the window {kernel}")
            args = (kernel, self.steps()[k], (pad, pad), self.spacing()[k], self.ceil_mode)
            sizes.append(window(x.size(2 + k), *args))
        return Shape((*x.dims[:2], *sizes), x.dtype)


class MaxPool(WindowPool):
    """The largest value of each window."""

    dilation: Extents = 1

    def spacing(self) -> tuple[int, ...]:
        return in_full(self.dilation, self.spatial)

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        image, n = cls._image(3, 7, 6, 5), cls.spatial
        return (
            Example(cls(kernel_size=2), (image,)),
            Example(
                cls(kernel_size=extents(n, 3, 2, 2), stride=extents(n, 2, 1, 1), padding=1, ceil_mode=True), (image,)
            ),
            Example(cls(kernel_size=2, stride=1, dilation=extents(n, 2, 3, 1)), (image,)),
        )


class MaxPool1d(MaxPool):
    """The largest value of each window of (N, C, L)."""

    op: Literal["max_pool1d"] = "max_pool1d"
    spatial = 1
    kernel_size: PositiveInt
    stride: PositiveInt | None = None
    padding: NonNegativeInt = 0
    dilation: PositiveInt = 1


class MaxPool2d(MaxPool):
    """The largest value of each window."""

    op: Literal["max_pool2d"] = "max_pool2d"
    spatial = 2
    kernel_size: Pair
    stride: Pair | None = None
    padding: Pair0 = 0
    dilation: Pair = 1


class MaxPool3d(MaxPool):
    """The largest value of each window of (N, C, D, H, W)."""

    op: Literal["max_pool3d"] = "max_pool3d"
    spatial = 3
    kernel_size: Triple
    stride: Triple | None = None
    padding: Triple0 = 0
    dilation: Triple = 1


class AvgPool(WindowPool):
    """The mean of each window; zero padding counts unless `count_include_pad` is false."""

    count_include_pad: Bool = True

    def divisor(self) -> int | None:
        """What sums are divided by instead of the count."""
        return None

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        image = cls._image(3, 7, 6, 5)
        return (
            Example(cls(kernel_size=2), (image,)),
            Example(cls(kernel_size=3, stride=2, padding=1), (image,)),
            Example(cls(kernel_size=3, stride=2, padding=1, count_include_pad=False), (image,)),
            Example(cls(kernel_size=extents(cls.spatial, 3, 2, 2), ceil_mode=True), (image,)),
        )


class _DividedPool(AvgPool):
    """A mean whose divisor can be given, as torch has it for two axes and three."""

    divisor_override: PositiveInt | None = None

    def divisor(self) -> int | None:
        return self.divisor_override

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        return (*super().examples_one(), Example(cls(kernel_size=2, divisor_override=3), (cls._image(3, 7, 6, 5),)))


class AvgPool1d(AvgPool):
    """The mean of each window of (N, C, L); zero padding counts unless `count_include_pad` is false."""

    op: Literal["avg_pool1d"] = "avg_pool1d"
    spatial = 1
    kernel_size: PositiveInt
    stride: PositiveInt | None = None
    padding: NonNegativeInt = 0


class AvgPool2d(_DividedPool):
    """The mean of each window; zero padding counts unless `count_include_pad` is false."""

    op: Literal["avg_pool2d"] = "avg_pool2d"
    spatial = 2
    kernel_size: Pair
    stride: Pair | None = None
    padding: Pair0 = 0


class AvgPool3d(_DividedPool):
    """The mean of each window of (N, C, D, H, W); zero padding counts unless `count_include_pad` is false."""

    op: Literal["avg_pool3d"] = "avg_pool3d"
    spatial = 3
    kernel_size: Triple
    stride: Triple | None = None
    padding: Triple0 = 0


class AdaptivePool(Pool):
    """A pool over a grid of output_size cells, whatever the input's extent."""

    output_size: Extents = 1

    def cells(self) -> tuple[int, ...]:
        """The grid's size per axis."""
        return in_full(self.output_size, self.spatial)

    def infer_one(self, *xs: Shape) -> Shape:
        check_spatial(xs[0], self.kind(), self.spatial)
        return Shape((*xs[0].dims[:2], *self.cells()), xs[0].dtype)

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        n = cls.spatial
        return (
            Example(cls(), (cls._image(3, 7, 6, 5),)),
            Example(cls(output_size=extents(n, 3, 2, 1)), (cls._image(3, 6, 6, 5),)),
            Example(cls(output_size=extents(n, 3, 4, 2)), (cls._image(2, 7, 6, 5),)),
        )


class AdaptiveAvgPool1d(AdaptivePool):
    """Means over output_size cells of (N, C, L), whatever the input's length."""

    op: Literal["adaptive_avg_pool1d"] = "adaptive_avg_pool1d"
    spatial = 1
    output_size: PositiveInt = 1


class AdaptiveAvgPool2d(AdaptivePool):
    """Means over a grid of output_size cells, whatever the input's height and width."""

    op: Literal["adaptive_avg_pool2d"] = "adaptive_avg_pool2d"
    spatial = 2
    output_size: Pair = 1


class AdaptiveAvgPool3d(AdaptivePool):
    """Means over a grid of output_size cells of (N, C, D, H, W), whatever the input's extent."""

    op: Literal["adaptive_avg_pool3d"] = "adaptive_avg_pool3d"
    spatial = 3
    output_size: Triple = 1


class AdaptiveMaxPool1d(AdaptivePool):
    """The largest value of each of output_size cells of (N, C, L), whatever the input's length."""

    op: Literal["adaptive_max_pool1d"] = "adaptive_max_pool1d"
    spatial = 1
    output_size: PositiveInt = 1


class AdaptiveMaxPool2d(AdaptivePool):
    """The largest value of each cell of a grid of output_size, whatever the input's height and width."""

    op: Literal["adaptive_max_pool2d"] = "adaptive_max_pool2d"
    spatial = 2
    output_size: Pair = 1


class AdaptiveMaxPool3d(AdaptivePool):
    """The largest value of each cell of a grid of output_size, whatever the input's extent."""

    op: Literal["adaptive_max_pool3d"] = "adaptive_max_pool3d"
    spatial = 3
    output_size: Triple = 1
