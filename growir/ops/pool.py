"""Pooling over two spatial axes; carries every channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from growir.ops.base import (
    Bool,
    Example,
    Op,
    OpError,
    Pair,
    Pair0,
    PositiveInt,
    Shape,
    batch_of,
    check_spatial,
    pair,
    window,
)
from growir.ops.spaces import Axes, Rule, fixed


class _Pool(Op):
    """What all 2-d pools share: (N, C, H, W) in and out, spatial axes fixed."""

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        rule.fixed(xs[0][2:], "is pooled along this axis")
        return (*xs[0][:2], fixed(rule.sizes[2]), fixed(rule.sizes[3]))


class _WindowPool(_Pool):
    """A pool with a sliding window; stride defaults to the window."""

    kernel_size: Pair
    stride: Pair | None = None
    padding: Pair0 = 0
    ceil_mode: Bool = False

    def steps(self) -> tuple[int, int]:
        """The stride per axis."""
        return pair(self.kernel_size if self.stride is None else self.stride)

    def spacing(self) -> tuple[int, int]:
        """The dilation per axis."""
        return 1, 1

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        check_spatial(x, self.kind())
        sizes: list[int] = []
        for k in (0, 1):
            kernel, pad = pair(self.kernel_size)[k], pair(self.padding)[k]
            if 2 * pad > kernel:
                raise OpError(f"padding {pad} is more than half of the window {kernel}")
            args = (kernel, self.steps()[k], (pad, pad), self.spacing()[k], self.ceil_mode)
            sizes.append(window(x.size(2 + k), *args))
        return Shape((*x.dims[:2], *sizes), x.dtype)


class MaxPool2d(_WindowPool):
    """The largest value of each window."""

    op: Literal["max_pool2d"] = "max_pool2d"
    dilation: Pair = 1

    def spacing(self) -> tuple[int, int]:
        return pair(self.dilation)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        image = batch_of(3, 7, 6)
        return (
            Example(cls(kernel_size=2), (image,)),
            Example(cls(kernel_size=(3, 2), stride=(2, 1), padding=1, ceil_mode=True), (image,)),
            Example(cls(kernel_size=2, stride=1, dilation=(2, 3)), (image,)),
        )


class AvgPool2d(_WindowPool):
    """The mean of each window; zero padding counts unless `count_include_pad` is false."""

    op: Literal["avg_pool2d"] = "avg_pool2d"
    count_include_pad: Bool = True
    divisor_override: PositiveInt | None = None

    @classmethod
    def examples(cls) -> Sequence[Example]:
        image = batch_of(3, 7, 6)
        return (
            Example(cls(kernel_size=2), (image,)),
            Example(cls(kernel_size=3, stride=2, padding=1), (image,)),
            Example(cls(kernel_size=3, stride=2, padding=1, count_include_pad=False), (image,)),
            Example(cls(kernel_size=(3, 2), ceil_mode=True), (image,)),
            Example(cls(kernel_size=2, divisor_override=3), (image,)),
        )


class AdaptiveAvgPool2d(_Pool):
    """Means over a grid of output_size cells, whatever the input's height and width."""

    op: Literal["adaptive_avg_pool2d"] = "adaptive_avg_pool2d"
    output_size: Pair = 1

    def infer(self, *xs: Shape) -> Shape:
        check_spatial(xs[0], self.kind())
        return Shape((*xs[0].dims[:2], *pair(self.output_size)), xs[0].dtype)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(), (batch_of(3, 7, 6),)),
            Example(cls(output_size=(3, 2)), (batch_of(3, 6, 6),)),
            Example(cls(output_size=(3, 4)), (batch_of(2, 7, 6),)),
        )
