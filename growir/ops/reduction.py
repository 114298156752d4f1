"""Sums, means and extremes over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from growir.ops.base import Bool, Dim, Example, Int, NonNegativeInt, Op, OpError, Shape, batch_of
from growir.ops.layout import axis_of
from growir.ops.rule import Rule
from growir.ops.spaces import Axes, Axis, fixed


def _single(value: Any) -> Any:
    """Store one axis in one form, 2 rather than [2]."""
    match value:
        case [int() as only]:
            return only
        case _:
            return value


Dims = Annotated[Int | Annotated[tuple[Int, ...], Field(min_length=1, max_length=16)], BeforeValidator(_single)]


class Reduction(Op):
    """What all reductions share: the axes `dim` go, or stay with width 1."""

    dim: Dims
    keepdim: Bool = False

    def axes(self, rank: int) -> tuple[int, ...]:
        """The axes counted from the front, in ascending order."""
        return tuple(sorted(d % rank for d in ((self.dim,) if isinstance(self.dim, int) else self.dim)))

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        for d in (self.dim,) if isinstance(self.dim, int) else self.dim:
            axis_of(d, x)
        axes = self.axes(x.rank)
        if len(set(axes)) < len(axes):
            raise OpError(f"dim {self.dim} names an axis of {x} twice")
        dims: list[Dim] = [1 if k in axes else d for k, d in enumerate(x.dims) if self.keepdim or k not in axes]
        if not dims:
            raise OpError(f"no axis of {x} is left; use keepdim")
        return Shape(tuple(dims), x.dtype)

    def count(self, x: Shape) -> int:
        """How many numbers become one."""
        return math.prod(x.size(axis) for axis in self.axes(x.rank))

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        x = xs[0]
        axes = self.axes(len(x))
        for axis in axes:
            self._reduce(rule, x[axis])
        return tuple(fixed(1) if k in axes else a for k, a in enumerate(x) if self.keepdim or k not in axes)

    def _reduce(self, rule: Rule, axis: Axis) -> None:
        # As many copies of every number leave it as it is.
        rule.only_whole(axis)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(dim=(2, 3)), (batch_of(3, 4, 5),)),
            Example(cls(dim=-1, keepdim=True), (batch_of(3, 4),)),
            Example(cls(dim=1), (batch_of(3, 4),)),
        )


class Mean(Reduction):
    """The mean over axes."""

    op: Literal["mean"] = "mean"


class Amax(Reduction):
    """The largest number along axes."""

    op: Literal["amax"] = "amax"


class Amin(Reduction):
    """The smallest number along axes."""

    op: Literal["amin"] = "amin"


class Sum(Reduction):
    """The sum over axes."""

    op: Literal["sum"] = "sum"

    def _reduce(self, rule: Rule, axis: Axis) -> None:
        rule.fixed((axis,), "is summed over this axis")


class Norm(Reduction):
    """The root of the sum of squares along axes; the gradient is 0 where all of them are 0, as torch has it."""

    op: Literal["norm"] = "norm"

    def _reduce(self, rule: Rule, axis: Axis) -> None:
        rule.fixed((axis,), "its squares are summed over this axis")


class Var(Reduction):
    """The variance over axes, the sum of squares divided by the count less `correction`."""

    op: Literal["var"] = "var"
    correction: NonNegativeInt = 1

    def infer(self, *xs: Shape) -> Shape:
        out = super().infer(*xs)
        if self.count(xs[0]) <= self.correction:
            raise OpError(f"var over {self.count(xs[0])} numbers needs a correction below that, not {self.correction}")
        return out

    def _reduce(self, rule: Rule, axis: Axis) -> None:
        if self.correction:
            rule.fixed((axis,), "the variance is corrected for how many numbers there are")
        else:
            rule.only_whole(axis)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(dim=(2, 3)), (batch_of(3, 4, 5),)),
            Example(cls(dim=-1, keepdim=True, correction=0), (batch_of(3, 4),)),
            Example(cls(dim=1, correction=0), (batch_of(3, 4),)),
        )
