"""Convolutions over one to three spatial axes, and transposed ones."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from growir.ops.base import (
    SPATIAL,
    Bool,
    Example,
    Extents,
    Extents0,
    Framed,
    NonNegativeInt,
    OpError,
    Pair,
    Pair0,
    Param,
    ParamTable,
    PositiveInt,
    Shape,
    Triple,
    Triple0,
    Uniform,
    batch_of,
    check_spatial,
    extents,
    in_full,
    window,
)
from growir.ops.rule import Rule
from growir.ops.spaces import Axes, Axis, fixed


class Convolution(Framed):
    """What convolutions share with transposed ones: windows, groups, and depthwise as groups of one channel each."""

    spatial: ClassVar[int]
    out_channels: PositiveInt | None = None
    kernel_size: Extents | None = None
    stride: Extents = 1
    padding: Extents0 | Literal["same", "valid"] = 0
    dilation: Extents = 1
    groups: PositiveInt = 1
    bias: Bool = True
    depthwise: Bool = False
    multiplier: PositiveInt = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.depthwise and (self.groups != 1 or self.out_channels is not None):
            raise ValueError(f"a depthwise {self.kind()} has multiplier instead of groups and out_channels")
        if not self.depthwise and self.multiplier != 1:
            raise ValueError("multiplier goes with depthwise: true")
        if self.out_channels is not None and self.out_channels % self.groups:
            raise ValueError(f"out_channels {self.out_channels} is no multiple of groups {self.groups}")
        return self

    def strides(self) -> tuple[int, ...]:
        """The stride per axis."""
        return in_full(self.stride, self.spatial)

    def spacing(self) -> tuple[int, ...]:
        """The dilation per axis."""
        return in_full(self.dilation, self.spatial)

    def group_count(self, x: Shape) -> int:
        """torch's `groups`."""
        return x.size(1) if self.depthwise else self.groups

    def _check(self, x: Shape) -> None:
        check_spatial(x, self.kind(), self.spatial)
        if x.size(1) % self.groups:
            raise OpError(f"groups {self.groups} must divide the {x.size(1)} input channels")

    def _carried(self, rule: Rule, axis: Axis) -> Axis:
        """The output channels of a depthwise convolution: `multiplier` of them for each input channel."""
        return rule.algebra.times(rule.algebra.resolve(axis), self.multiplier)

    @abstractmethod
    def still(self) -> tuple[bool, ...]:
        """For each axis that the kernel slides along, whether it takes every position by itself."""

    def _places(self, rule: Rule, x: Axes) -> Axes:
        """The axes that the kernel slides along, after it."""
        places: list[Axis] = []
        for axis, size, still in zip(x[2:], rule.sizes[2:], self.still(), strict=True):
            if not still:
                rule.fixed((axis,), "a convolution slides along this axis")
            places.append(axis if still else fixed(size))
        return tuple(places)

    def _kernel_axes(self) -> Axes:
        return tuple(fixed(size) for size in in_full(self.kernel_size or 1, self.spatial))


class Conv(Convolution):
    """A convolution, whose weight may be a second input."""

    arity: ClassVar[tuple[int, int | None]] = (1, 2)

    @model_validator(mode="after")
    def _same_size(self) -> Self:
        if self.padding == "same" and set(self.strides()) != {1}:
            raise ValueError("padding 'same' needs stride 1")
        return self

    def kernel(self, *xs: Shape) -> tuple[int, ...]:
        """(out channels, kernel size per axis)."""
        channels = xs[0].size(1)
        if len(xs) == 2:
            weight = xs[1]
            if self.out_channels is not None or self.kernel_size is not None or self.depthwise:
                raise OpError("out_channels, kernel_size and depthwise do not go with a weight as second input")
            if weight.rank != self.spatial + 2 or weight.batched or weight.size(1) * self.groups != channels:
                sizes = ", ".join(f"k{name}" for name in SPATIAL[self.spatial].split(", "))
                raise OpError(f"the weight must be (out, {channels // self.groups}, {sizes}), but is {weight}")
            if weight.size(0) % self.groups:
                raise OpError(f"the weight's {weight.size(0)} outputs are no multiple of groups {self.groups}")
            return (weight.size(0), *weight.sizes[2:])
        if self.kernel_size is None:
            raise OpError("kernel_size is missing; give it, or a weight as second input")
        kernel = in_full(self.kernel_size, self.spatial)
        if self.depthwise:
            return (channels * self.multiplier, *kernel)
        if self.out_channels is None:
            raise OpError("out_channels is missing; give it, or a weight as second input, or depthwise: true")
        return (self.out_channels, *kernel)

    def pads(self, *xs: Shape) -> tuple[tuple[int, int], ...]:
        """Zero padding (before, behind) per axis; 'same' puts the odd one behind, as torch does."""
        if self.padding == "same":
            _, *kernel = self.kernel(*xs)
            totals = [d * (k - 1) for d, k in zip(self.spacing(), kernel, strict=True)]
            return tuple((total // 2, total - total // 2) for total in totals)
        amounts = in_full(0 if self.padding == "valid" else self.padding, self.spatial)
        return tuple((amount, amount) for amount in amounts)

    def still(self) -> tuple[bool, ...]:
        if self.kernel_size is None:
            return (False,) * self.spatial
        kernel = in_full(self.kernel_size, self.spatial)
        pads = in_full(0 if isinstance(self.padding, str) else self.padding, self.spatial)
        return tuple((k, s, p) == (1, 1, 0) for k, s, p in zip(kernel, self.strides(), pads, strict=True))

    def infer_one(self, *xs: Shape) -> Shape:
        x = xs[0]
        self._check(x)
        out, *kernel = self.kernel(*xs)
        sizes = [
            window(x.size(2 + k), kernel[k], self.strides()[k], self.pads(*xs)[k], self.spacing()[k])
            for k in range(self.spatial)
        ]
        return Shape((x.dims[0], out, *sizes), x.dtype)

    def params_one(self, *xs: Shape) -> ParamTable:
        out, *kernel = self.kernel(*xs)
        fan = xs[0].size(1) // self.group_count(xs[0])
        init = Uniform(1 / math.sqrt(fan * math.prod(kernel)))
        table: dict[str, Param] = {}
        if len(xs) == 1:
            table["weight"] = Param((out, fan, *kernel), ("out", "in", *("kernel",) * self.spatial), init)
        if self.bias:
            table["bias"] = Param((out,), ("out",), init)
        return table

    def channels_one(self, rule: Rule, *xs: Axes) -> Axes:
        x = xs[0]
        places = self._places(rule, x)
        if self.depthwise:
            out = self._carried(rule, x[1])
            rule.param("weight", (out, fixed(1), *self._kernel_axes()))
        elif len(xs) == 2:
            out = xs[1][0]
            if self.groups > 1:
                rule.fixed((out, x[1]), "a grouped convolution with a given weight")
            rule.fixed(xs[1][2:], "the kernel's extent decides how far the window reaches")
            rule.algebra.unify(xs[1][1], rule.groups(x[1], self.groups)[0], "meets the weight's columns")
            rule.consumes_value(1, 1, xs[1])
        else:
            _, out = rule.new_in_groups((self.out_channels or 0) // self.groups, self.groups)
            rule.follows("out_channels", out)
            row, rows = rule.groups(x[1], self.groups)
            rule.param("weight", (out, row, *self._kernel_axes()), consumes=(1,), rows=rows)
        if self.bias:
            rule.param("bias", (out,))
        return (x[0], out, *places)

    def macs_one(self, out: Shape, *xs: Shape) -> int:
        _, *kernel = self.kernel(*xs)
        return out.elements * (xs[0].size(1) // self.group_count(xs[0])) * math.prod(kernel)

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        n = cls.spatial
        image, weight = batch_of(4, *(7, 6, 5)[:n]), Shape((5, 4, *(3,) * n))
        strided = {"kernel_size": extents(n, 3, 2, 2), "stride": extents(n, 2, 1, 1), "dilation": extents(n, 1, 2, 1)}
        return (
            Example(cls(out_channels=3, kernel_size=3, padding=1), (image,)),
            Example(cls.model_validate({"out_channels": 6, "groups": 2, **strided}), (image,)),
            Example(cls(out_channels=2, kernel_size=extents(n, 4, 3, 2), padding="same", bias=False), (image,)),
            Example(cls(kernel_size=3, depthwise=True, multiplier=2, padding=1), (image,)),
            Example(cls(padding=1), (image, weight)),
        )


class Conv1d(Conv):
    """1-d convolution over (N, C, L), with groups or depthwise; see conv2d."""

    op: Literal["conv1d"] = "conv1d"
    spatial = 1
    kernel_size: PositiveInt | None = None
    stride: PositiveInt = 1
    padding: NonNegativeInt | Literal["same", "valid"] = 0
    dilation: PositiveInt = 1


class Conv2d(Conv):
    """2-d convolution over (N, C, H, W), with groups or depthwise.

    `depthwise: true, multiplier: m` stands for groups = in_channels and out_channels = m * in_channels. With a second
    input, that value of shape (out, in / groups, kH, kW) is the weight; out_channels and kernel_size are left out.
    """

    op: Literal["conv2d"] = "conv2d"
    spatial = 2
    kernel_size: Pair | None = None
    stride: Pair = 1
    padding: Pair0 | Literal["same", "valid"] = 0
    dilation: Pair = 1


class Conv3d(Conv):
    """3-d convolution over (N, C, D, H, W), with groups or depthwise; see conv2d."""

    op: Literal["conv3d"] = "conv3d"
    spatial = 3
    kernel_size: Triple | None = None
    stride: Triple = 1
    padding: Triple0 | Literal["same", "valid"] = 0
    dilation: Triple = 1


class ConvTranspose(Convolution):
    """The gradient of a convolution by its input, as a layer: each position writes a whole window."""

    padding: Extents0 = 0
    output_padding: Extents0 = 0

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.kernel_size is None:
            raise ValueError("kernel_size is missing")
        for extra, stride, space in zip(self.extra(), self.strides(), self.spacing(), strict=True):
            if extra >= max(stride, space):
                raise ValueError(f"output_padding {extra} must be less than stride {stride} or dilation {space}")
        return self

    def kernel(self) -> tuple[int, ...]:
        """The kernel's size per axis."""
        return in_full(self.kernel_size or 1, self.spatial)

    def pads(self) -> tuple[int, ...]:
        """How much each side of an axis is cut off."""
        return in_full(self.padding, self.spatial)

    def still(self) -> tuple[bool, ...]:
        given = zip(self.kernel(), self.strides(), self.pads(), self.extra(), strict=True)
        return tuple(each == (1, 1, 0, 0) for each in given)

    def extra(self) -> tuple[int, ...]:
        """How many positions are added behind each axis."""
        return in_full(self.output_padding, self.spatial)

    def width(self, x: Shape) -> int:
        """The output channels."""
        if self.depthwise:
            return x.size(1) * self.multiplier
        if self.out_channels is None:
            raise OpError("out_channels is missing; give it, or depthwise: true")
        return self.out_channels

    def infer_one(self, *xs: Shape) -> Shape:
        x = xs[0]
        self._check(x)
        sizes: list[int] = []
        for k, (kernel, stride, space) in enumerate(zip(self.kernel(), self.strides(), self.spacing(), strict=True)):
            size = (x.size(2 + k) - 1) * stride + space * (kernel - 1) + 1 + self.extra()[k] - 2 * self.pads()[k]
            if size < 1:
                raise OpError(f"padding {self.pads()[k]} cuts away all of axis {2 + k} of {x}")
            sizes.append(size)
        return Shape((x.dims[0], self.width(x), *sizes), x.dtype)

    def params_one(self, *xs: Shape) -> ParamTable:
        x = xs[0]
        out = self.width(x)
        row = out // self.group_count(x)
        # torch.nn counts the fan of the weight's second axis here too, although that is the outputs'.
        init = Uniform(1 / math.sqrt(row * math.prod(self.kernel())))
        axes = ("in", "out", *("kernel",) * self.spatial)
        table = {"weight": Param((x.size(1), row, *self.kernel()), axes, init)}
        if self.bias:
            table["bias"] = Param((out,), ("out",), init)
        return table

    def channels_one(self, rule: Rule, *xs: Axes) -> Axes:
        x = xs[0]
        places = self._places(rule, x)
        if self.depthwise:
            out = self._carried(rule, x[1])
            rule.param("weight", (x[1], fixed(self.multiplier), *self._kernel_axes()))
        else:
            row, out = rule.new_in_groups((self.out_channels or 0) // self.groups, self.groups)
            rule.follows("out_channels", out)
            rule.groups(x[1], self.groups)  # each group reads its own rows of the weight, equally many
            rule.param("weight", (x[1], row, *self._kernel_axes()), consumes=(0,))
        if self.bias:
            rule.param("bias", (out,))
        return (x[0], out, *places)

    def macs_one(self, out: Shape, *xs: Shape) -> int:
        return xs[0].elements * (out.size(1) // self.group_count(xs[0])) * math.prod(self.kernel())

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        n = cls.spatial
        image = batch_of(4, *(4, 3, 2)[:n])
        strided = {"kernel_size": extents(n, 3, 2, 2), "stride": extents(n, 2, 1, 1), "dilation": extents(n, 1, 2, 1)}
        return (
            Example(cls(out_channels=3, kernel_size=2, stride=2), (image,)),
            Example(cls.model_validate({"out_channels": 6, "groups": 2, **strided}), (image,)),
            Example(cls(out_channels=2, kernel_size=3, stride=2, padding=1, output_padding=1, bias=False), (image,)),
            Example(cls(kernel_size=3, depthwise=True, multiplier=2, padding=1), (image,)),
        )


class ConvTranspose1d(ConvTranspose):
    """Transposed 1-d convolution over (N, C, L), with groups or depthwise; see conv_transpose2d."""

    op: Literal["conv_transpose1d"] = "conv_transpose1d"
    spatial = 1
    kernel_size: PositiveInt | None = None
    stride: PositiveInt = 1
    padding: NonNegativeInt = 0
    dilation: PositiveInt = 1
    output_padding: NonNegativeInt = 0


class ConvTranspose2d(ConvTranspose):
    """Transposed 2-d convolution over (N, C, H, W), with groups or depthwise.

    `depthwise: true, multiplier: m` stands for groups = in_channels and out_channels = m * in_channels.
    """

    op: Literal["conv_transpose2d"] = "conv_transpose2d"
    spatial = 2
    kernel_size: Pair | None = None
    stride: Pair = 1
    padding: Pair0 = 0
    dilation: Pair = 1
    output_padding: Pair0 = 0


class ConvTranspose3d(ConvTranspose):
    """Transposed 3-d convolution over (N, C, D, H, W), with groups or depthwise; see conv_transpose2d."""

    op: Literal["conv_transpose3d"] = "conv_transpose3d"
    spatial = 3
    kernel_size: Triple | None = None
    stride: Triple = 1
    padding: Triple0 = 0
    dilation: Triple = 1
    output_padding: Triple0 = 0
