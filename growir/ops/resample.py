"""Between channels and positions, and between resolutions: pixel shuffles and upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from growir.ops.base import (
    Bool,
    Example,
    Framed,
    OpError,
    PositiveInt,
    PositiveReal,
    Shape,
    batch_of,
    check_spatial,
    in_full,
)
from growir.ops.rule import Rule
from growir.ops.spaces import Axes, fixed


class PixelShuffle(Framed):
    """(N, C r r, H, W) to (N, C, H r, W r): each r r channels become the pixels of one."""

    op: Literal["pixel_shuffle"] = "pixel_shuffle"
    upscale_factor: PositiveInt

    def infer_one(self, *xs: Shape) -> Shape:
        x, r = xs[0], self.upscale_factor
        check_spatial(x, self.kind())
        if x.size(1) % (r * r):
            raise OpError(f"the {x.size(1)} channels of {x} must be a multiple of {r * r}")
        return Shape((x.dims[0], x.size(1) // (r * r), x.size(2) * r, x.size(3) * r), x.dtype)

    def channels_one(self, rule: Rule, *xs: Axes) -> Axes:
        out = rule.new(rule.sizes[1])
        rule.algebra.unify(
            xs[0][1], rule.algebra.times(out, self.upscale_factor**2), "becomes the pixels of one channel"
        )
        rule.fixed(xs[0][2:], "pixels are put between those of this axis")
        return (xs[0][0], out, fixed(rule.sizes[2]), fixed(rule.sizes[3]))

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        return (
            Example(cls(upscale_factor=2), (batch_of(8, 3, 2),)),
            Example(cls(upscale_factor=3), (batch_of(9, 1, 2),)),
        )


class PixelUnshuffle(Framed):
    """(N, C, H r, W r) to (N, C r r, H, W): the inverse of pixel_shuffle."""

    op: Literal["pixel_unshuffle"] = "pixel_unshuffle"
    downscale_factor: PositiveInt

    def infer_one(self, *xs: Shape) -> Shape:
        x, r = xs[0], self.downscale_factor
        check_spatial(x, self.kind())
        if x.size(2) % r or x.size(3) % r:
            raise OpError(f"height and width of {x} must be multiples of {r}")
        return Shape((x.dims[0], x.size(1) * r * r, x.size(2) // r, x.size(3) // r), x.dtype)

    def channels_one(self, rule: Rule, *xs: Axes) -> Axes:
        x = xs[0]
        rule.fixed(x[2:], "pixels become channels along this axis")
        return (x[0], rule.algebra.times(x[1], self.downscale_factor**2), fixed(rule.sizes[2]), fixed(rule.sizes[3]))

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        return (
            Example(cls(downscale_factor=2), (batch_of(2, 4, 6),)),
            Example(cls(downscale_factor=3), (batch_of(3, 3, 6),)),
        )


def _shortest(value: Any) -> Any:
    """Store equal numbers in one form, 2 rather than [2, 2], so that one network has one hash."""
    match value:
        case [int() | float() as first, *rest] if len(rest) < 3 and all(
            type(n) is type(first) and n == first for n in rest
        ):
            return first
        case _:
            return value


# The modes, and how many spatial axes each is for.
MODES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "trilinear": (3,),
}
Several = Field(min_length=1, max_length=3)  # a list of one is that one; `_shortest`


class Upsample(Framed):
    """Another resolution of (N, C, ...), by nearest neighbours or interpolation: to `size`, or by `scale_factor`.

    `align_corners` (not for nearest neighbours) puts the outermost positions on top of each other.
    """

    op: Literal["upsample"] = "upsample"
    size: Annotated[PositiveInt | Annotated[tuple[PositiveInt, ...], Several] | None, BeforeValidator(_shortest)] = None
    scale_factor: Annotated[
        PositiveReal | Annotated[tuple[PositiveReal, ...], Several] | None, BeforeValidator(_shortest)
    ] = None
    mode: Literal["nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear"] = "nearest"
    align_corners: Bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.size is None) == (self.scale_factor is None):
            raise ValueError("give either size or scale_factor")
        if self.align_corners and self.mode.startswith("nearest"):
            raise ValueError(f"align_corners does not go with mode {self.mode}")
        return self

    def factors(self, axes: int) -> tuple[float, ...] | None:
        """The scale per axis, where that is what was given."""
        if self.scale_factor is None or isinstance(self.scale_factor, tuple):
            return self.scale_factor
        return (self.scale_factor,) * axes

    def infer_one(self, *xs: Shape) -> Shape:
        x = xs[0]
        axes = MODES[self.mode]
        if x.rank - 2 not in axes or not x.alike:
            raise OpError(f"mode {self.mode} is for {' or '.join(map(str, axes))} spatial axes, but gets {x}")
        factors = self.factors(x.rank - 2)
        if factors is None:
            sizes = in_full(self.size or 1, x.rank - 2)
        else:
            sizes = tuple(int(size * factor) for size, factor in zip(x.sizes[-len(factors) :], factors, strict=False))
        if len(sizes) != x.rank - 2 or (factors is not None and len(factors) != x.rank - 2):
            raise OpError(f"size and scale_factor have one entry for each of the {x.rank - 2} spatial axes of {x}")
        if min(sizes) < 1:
            raise OpError(f"scale_factor {self.scale_factor} leaves nothing of {x}")
        return Shape((*x.dims[:2], *sizes), x.dtype)

    def channels_one(self, rule: Rule, *xs: Axes) -> Axes:
        rule.fixed(xs[0][2:], "is interpolated along this axis")
        return (*xs[0][:2], *(fixed(size) for size in rule.sizes[2:]))

    @classmethod
    def examples_one(cls) -> Sequence[Example]:
        image = batch_of(3, 4, 3)
        return (
            Example(cls(scale_factor=2.0), (image,)),
            Example(cls(size=(6, 7), mode="bilinear"), (image,)),
            Example(cls(size=(7, 2), mode="bilinear", align_corners=True), (image,)),
            Example(cls(scale_factor=(1.5, 2.5), mode="bicubic"), (image,)),
            Example(cls(size=9, mode="linear"), (batch_of(2, 4),)),
            Example(cls(scale_factor=2.0, mode="trilinear"), (batch_of(2, 2, 3, 2),)),
            Example(cls(size=3, mode="nearest-exact"), (batch_of(2, 5),)),
            Example(cls(size=(2, 5)), (image,)),
        )
