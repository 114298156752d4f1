"""Functions of one number that are no activations: powers, roots, logarithms, bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from growir.ops.base import DType, Elementwise, Example, Int, Op, OpError, Real, Shape, batch_of
from growir.ops.join import broadcast
from growir.ops.layout import axis_of
from growir.ops.rule import Rule
from growir.ops.spaces import Axes


class _Partial(Elementwise):
    """A function whose value or slope is not finite for every number."""

    @property
    def partial(self) -> bool:
        return True

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        rule.may_fail(xs[0])
        return xs[0]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example(cls(), (batch_of(5),), positive=True), Example(cls(), (batch_of(3, 4, 4),), positive=True))


class Affine(Elementwise):
    """y = scale * x + shift, with two constants."""

    op: Literal["affine"] = "affine"
    scale: Real = 1.0
    shift: Real = 0.0

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(scale=-0.5, shift=2.0), (batch_of(5),)),
            Example(cls(scale=3.0), (batch_of(3, 4, 4),)),
            Example(cls(shift=-1.0), (batch_of(3, 4),)),
        )


class Pow(Op):
    """y = x ** exponent; NaN for a negative x where the exponent is no whole number.

    With a second input, that value is the exponent, and `exponent` is left out; they are broadcast to each other.
    """

    op: Literal["pow"] = "pow"
    exponent: Real | None = None
    arity: ClassVar[tuple[int, int | None]] = (1, 2)

    def infer(self, *xs: Shape) -> Shape:
        if (self.exponent is None) != (len(xs) == 2):
            raise OpError("give exponent, or an exponent as second input")
        return broadcast(*xs)

    @property
    def partial(self) -> bool:
        return self.exponent is None or self.exponent < 0 or not self.exponent.is_integer()

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        if self.partial:
            rule.may_fail(xs[0])
        return rule.join(*xs)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(exponent=2.0), (batch_of(5),)),
            Example(cls(exponent=3.0), (batch_of(3, 4, 4),)),
            Example(cls(exponent=-1.0), (batch_of(3, 4),), positive=True),
            Example(cls(exponent=0.75), (batch_of(5),), positive=True),
            Example(cls(), (batch_of(5), batch_of(5)), positive=True),
            Example(cls(), (batch_of(3, 4, 4), Shape((3, 1, 1))), positive=True),
        )


class Exp(Elementwise):
    """y = e ** x."""

    op: Literal["exp"] = "exp"

    @property
    def partial(self) -> bool:
        return True  # infinite from 89 on in float32


class Expm1(Elementwise):
    """y = e ** x - 1, also near 0, where the difference would lose its digits."""

    op: Literal["expm1"] = "expm1"

    @property
    def partial(self) -> bool:
        return True


class Log1p(_Partial):
    """The logarithm of 1 + x, also near 0; NaN for numbers below -1."""

    op: Literal["log1p"] = "log1p"


class Round(Elementwise):
    """The nearest whole number, of two the even one; its slope is 0."""

    op: Literal["round"] = "round"


class Floor(Elementwise):
    """The largest whole number that is not above; its slope is 0."""

    op: Literal["floor"] = "floor"


class Cast(Elementwise):
    """Whole numbers as floats of the network's dtype, or floats as whole ones, cut off towards 0, without a slope."""

    op: Literal["cast"] = "cast"
    dtype: DType = "float32"
    integers = True

    def infer(self, *xs: Shape) -> Shape:
        return Shape(xs[0].dims, self.dtype)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(), (Shape(("N", 4), "int64"),)),
            Example(cls(), (batch_of(3, 4),)),
        )


class Cumsum(Op):
    """At each position of the axis `dim`, the sum of all up to it."""

    op: Literal["cumsum"] = "cumsum"
    dim: Int = -1

    def infer(self, *xs: Shape) -> Shape:
        axis_of(self.dim, xs[0])
        return xs[0]

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        rule.fixed((xs[0][self.dim],), "is summed up along this axis")
        return xs[0]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example(cls(), (batch_of(5),)), Example(cls(dim=2), (batch_of(3, 4, 4),)))


class Log(_Partial):
    """The natural logarithm; NaN for negative numbers."""

    op: Literal["log"] = "log"


class Sqrt(_Partial):
    """The square root; NaN for negative numbers, with an infinite slope at 0."""

    op: Literal["sqrt"] = "sqrt"


class Rsqrt(_Partial):
    """y = 1 / sqrt(x)."""

    op: Literal["rsqrt"] = "rsqrt"


class Abs(Elementwise):
    """The magnitude."""

    op: Literal["abs"] = "abs"


class Erf(Elementwise):
    """The error function."""

    op: Literal["erf"] = "erf"


class Sin(Elementwise):
    """The sine."""

    op: Literal["sin"] = "sin"


class Cos(Elementwise):
    """The cosine."""

    op: Literal["cos"] = "cos"


class Clamp(Elementwise):
    """y = min(max(x, min), max), with one bound or two; with -1 and 1 it is torch.nn's hardtanh."""

    op: Literal["clamp"] = "clamp"
    min: Real | None = None
    max: Real | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} lies above max {self.max}")
        return self

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(min=-1.0, max=1.0), (batch_of(5),)),
            Example(cls(min=0.1), (batch_of(3, 4, 4),)),
            Example(cls(max=0.5), (batch_of(3, 4),)),
        )
