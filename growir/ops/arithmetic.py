"""Functions of one number that are no activations: powers, roots, logarithms, bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator

from growir.ops.base import Elementwise, Example, Real, batch_of
from growir.ops.rule import Rule
from growir.ops.spaces import Axes


class _Partial(Elementwise):
    """A function whose value or slope is not finite for every number."""

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


class Pow(Elementwise):
    """y = x ** exponent; NaN for a negative x where the exponent is no whole number."""

    op: Literal["pow"] = "pow"
    exponent: Real

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        if self.exponent < 0 or not self.exponent.is_integer():
            rule.may_fail(xs[0])
        return xs[0]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(exponent=2.0), (batch_of(5),)),
            Example(cls(exponent=3.0), (batch_of(3, 4, 4),)),
            Example(cls(exponent=-1.0), (batch_of(3, 4),), positive=True),
            Example(cls(exponent=0.75), (batch_of(5),), positive=True),
        )


class Exp(Elementwise):
    """y = e ** x."""

    op: Literal["exp"] = "exp"


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
