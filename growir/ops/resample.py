"""Between channels and positions, and between resolutions: pixel shuffle and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from growir.ops.base import Example, Op, OpError, PositiveInt, Shape, batch_of, check_spatial
from growir.ops.spaces import Axes, Rule, fixed


class PixelShuffle(Op):
    """(N, C r r, H, W) to (N, C, H r, W r): each r r channels become the pixels of one."""

    op: Literal["pixel_shuffle"] = "pixel_shuffle"
    upscale_factor: PositiveInt

    def infer(self, *xs: Shape) -> Shape:
        x, r = xs[0], self.upscale_factor
        check_spatial(x, self.kind())
        if x.size(1) % (r * r):
            raise OpError(f"the {x.size(1)} channels of {x} must be a multiple of {r * r}")
        return Shape((x.dims[0], x.size(1) // (r * r), x.size(2) * r, x.size(3) * r), x.dtype)

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        out = rule.new(rule.sizes[1])
        blocks = tuple((space, block * self.upscale_factor**2) for space, block in out)
        rule.algebra.unify(xs[0][1], blocks, "becomes the pixels of one channel")
        rule.fixed(xs[0][2:], "pixels are put between those of this axis")
        return (xs[0][0], out, fixed(rule.sizes[2]), fixed(rule.sizes[3]))

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(upscale_factor=2), (batch_of(8, 3, 2),)),
            Example(cls(upscale_factor=3), (batch_of(9, 1, 2),)),
        )


class PixelUnshuffle(Op):
    """(N, C, H r, W r) to (N, C r r, H, W): the inverse of pixel_shuffle."""

    op: Literal["pixel_unshuffle"] = "pixel_unshuffle"
    downscale_factor: PositiveInt

    def infer(self, *xs: Shape) -> Shape:
        x, r = xs[0], self.downscale_factor
        check_spatial(x, self.kind())
        if x.size(2) % r or x.size(3) % r:
            raise OpError(f"height and width of {x} must be multiples of {r}")
        return Shape((x.dims[0], x.size(1) * r * r, x.size(2) // r, x.size(3) // r), x.dtype)

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        x = xs[0]
        rule.fixed(x[2:], "pixels become channels along this axis")
        out = tuple((space, block * self.downscale_factor**2) for space, block in x[1])
        return (x[0], out, fixed(rule.sizes[2]), fixed(rule.sizes[3]))

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(downscale_factor=2), (batch_of(2, 4, 6),)),
            Example(cls(downscale_factor=3), (batch_of(3, 3, 6),)),
        )
