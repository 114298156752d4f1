"""Convolutions over two spatial axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from growir.ops.base import (
    Bool,
    Example,
    Op,
    OpError,
    Pair,
    Pair0,
    Param,
    ParamTable,
    PositiveInt,
    Shape,
    Uniform,
    batch_of,
    check_spatial,
    pair,
    window,
)
from growir.ops.spaces import Axes, Rule, fixed


class Conv2d(Op):
    """2-d convolution over (N, C, H, W), with groups or depthwise.

    `depthwise: true, multiplier: m` stands for groups = in_channels and out_channels = m * in_channels. With a second
    input, that value of shape (out, in / groups, kH, kW) is the weight; out_channels and kernel_size are left out.
    """

    op: Literal["conv2d"] = "conv2d"
    out_channels: PositiveInt | None = None
    kernel_size: Pair | None = None
    stride: Pair = 1
    padding: Pair0 | Literal["same", "valid"] = 0
    dilation: Pair = 1
    groups: PositiveInt = 1
    bias: Bool = True
    depthwise: Bool = False
    multiplier: PositiveInt = 1
    arity: ClassVar[tuple[int, int | None]] = (1, 2)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.depthwise and (self.groups != 1 or self.out_channels is not None):
            raise ValueError("a depthwise conv2d has multiplier instead of groups and out_channels")
        if not self.depthwise and self.multiplier != 1:
            raise ValueError("multiplier goes with depthwise: true")
        if self.padding == "same" and pair(self.stride) != (1, 1):
            raise ValueError("padding 'same' needs stride 1")
        if self.out_channels is not None and self.out_channels % self.groups:
            raise ValueError(f"out_channels {self.out_channels} is no multiple of groups {self.groups}")
        return self

    def kernel(self, *xs: Shape) -> tuple[int, int, int]:
        """(out channels, kernel height, kernel width)."""
        channels = xs[0].size(1)
        if len(xs) == 2:
            weight = xs[1]
            if self.out_channels is not None or self.kernel_size is not None or self.depthwise:
                raise OpError("out_channels, kernel_size and depthwise do not go with a weight as second input")
            if weight.rank != 4 or weight.batched or weight.size(1) * self.groups != channels:
                raise OpError(f"the weight must be (out, {channels // self.groups}, kH, kW), but is {weight}")
            if weight.size(0) % self.groups:
                raise OpError(f"the weight's {weight.size(0)} outputs are no multiple of groups {self.groups}")
            return weight.size(0), weight.size(2), weight.size(3)
        if self.kernel_size is None:
            raise OpError("kernel_size is missing; give it, or a weight as second input")
        height, width = pair(self.kernel_size)
        if self.depthwise:
            return channels * self.multiplier, height, width
        if self.out_channels is None:
            raise OpError("out_channels is missing; give it, or a weight as second input, or depthwise: true")
        return self.out_channels, height, width

    def pads(self, *xs: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
        """Zero padding (top, bottom), (left, right); 'same' puts the odd one behind, as torch does."""
        if self.padding == "valid":
            return (0, 0), (0, 0)
        if self.padding == "same":
            _, *kernel = self.kernel(*xs)
            totals = [d * (k - 1) for d, k in zip(pair(self.dilation), kernel, strict=True)]
            return (totals[0] // 2, totals[0] - totals[0] // 2), (totals[1] // 2, totals[1] - totals[1] // 2)
        height, width = pair(self.padding)
        return (height, height), (width, width)

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        check_spatial(x, "conv2d")
        if x.size(1) % self.groups:
            raise OpError(f"groups {self.groups} must divide the {x.size(1)} input channels")
        out, *kernel = self.kernel(*xs)
        sizes = [
            window(x.size(2 + k), kernel[k], pair(self.stride)[k], self.pads(*xs)[k], pair(self.dilation)[k])
            for k in (0, 1)
        ]
        return Shape((x.dims[0], out, *sizes), x.dtype)

    def group_count(self, x: Shape) -> int:
        """torch's `groups`."""
        return x.size(1) if self.depthwise else self.groups

    def params(self, *xs: Shape) -> ParamTable:
        out, height, width = self.kernel(*xs)
        fan = xs[0].size(1) // self.group_count(xs[0])
        init = Uniform(1 / math.sqrt(fan * height * width))
        table: dict[str, Param] = {}
        if len(xs) == 1:
            table["weight"] = Param((out, fan, height, width), ("out", "in", "kernel", "kernel"), init)
        if self.bias:
            table["bias"] = Param((out,), ("out",), init)
        return table

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        x = xs[0]
        rule.fixed(x[2:], "a convolution slides along this axis")
        kernel = tuple(fixed(size) for size in pair(self.kernel_size or 1))
        if self.depthwise:
            out = tuple((space, block * self.multiplier) for space, block in rule.algebra.resolve(x[1]))
            rule.param("weight", (out, fixed(1), *kernel))
        elif len(xs) == 2:
            out = xs[1][0]
            if self.groups > 1:
                rule.fixed((out, x[1]), "a grouped convolution with a given weight")
            rule.fixed(xs[1][2:], "the kernel's extent decides how far the window reaches")
            rule.algebra.unify(xs[1][1], rule.groups(x[1], self.groups)[0], "meets the weight's columns")
            rule.consumes_value(1, 1, xs[1])
        else:
            out = rule.new((self.out_channels or 0) // self.groups) * self.groups
            rule.follows("out_channels", out)
            row, rows = rule.groups(x[1], self.groups)
            rule.param("weight", (out, row, *kernel), consumes=(1,), rows=rows)
        if self.bias:
            rule.param("bias", (out,))
        return (x[0], out, fixed(rule.sizes[2]), fixed(rule.sizes[3]))

    def macs(self, out: Shape, *xs: Shape) -> int:
        _, height, width = self.kernel(*xs)
        return out.elements * (xs[0].size(1) // self.group_count(xs[0])) * height * width

    @classmethod
    def examples(cls) -> Sequence[Example]:
        image = batch_of(4, 7, 6)
        return (
            Example(cls(out_channels=3, kernel_size=3, padding=1), (image,)),
            Example(cls(out_channels=6, kernel_size=(3, 2), stride=(2, 1), dilation=(1, 2), groups=2), (image,)),
            Example(cls(out_channels=2, kernel_size=(4, 3), padding="same", bias=False), (image,)),
            Example(cls(kernel_size=3, depthwise=True, multiplier=2, padding=1), (image,)),
            Example(cls(padding=1), (image, Shape((5, 4, 3, 3)))),
        )
