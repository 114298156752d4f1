"""Fully connected layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from growir.ops.base import (
    Bool,
    Example,
    Op,
    OpError,
    Param,
    ParamTable,
    PositiveInt,
    Shape,
    Uniform,
    batch_of,
)
from growir.ops.rule import Rule
from growir.ops.spaces import Axes


class Linear(Op):
    """y = x W^T + b over the last axis; mixes every input channel into every output.

    With a second input, that value of shape (out, in) is the weight, and `out_features` is left out.
    """

    op: Literal["linear"] = "linear"
    out_features: PositiveInt | None = None
    bias: Bool = True
    arity: ClassVar[tuple[int, int | None]] = (1, 2)

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        if x.rank < 2 or not x.batched:
            raise OpError(f"linear takes an input of rank 2 or more, (N, ..., features), but gets {x}")
        return x.with_dim(-1, self._widths(*xs)[0])

    def _widths(self, *xs: Shape) -> tuple[int, int]:
        features = xs[0].size(-1)
        if len(xs) == 1:
            if self.out_features is None:
                raise OpError("out_features is missing; give it, or a weight as second input")
            return self.out_features, features
        weight = xs[1]
        if self.out_features is not None:
            raise OpError("out_features is given although the second input is the weight; leave it out")
        if weight.rank != 2 or weight.batched or weight.size(1) != features:
            raise OpError(f"the weight must be (out_features, {features}), but the second input is {weight}")
        return weight.size(0), features

    def params(self, *xs: Shape) -> ParamTable:
        out, features = self._widths(*xs)
        init = Uniform(1 / math.sqrt(features))
        table: dict[str, Param] = {}
        if len(xs) == 1:
            table["weight"] = Param((out, features), ("out", "in"), init)
        if self.bias:
            table["bias"] = Param((out,), ("out",), init)
        return table

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        x = xs[0]
        if len(xs) == 1:
            out = rule.new(self.out_features or 0)
            rule.follows("out_features", out)
            rule.param("weight", (out, x[-1]), consumes=(1,))
        else:
            out = xs[1][0]
            rule.algebra.unify(xs[1][1], x[-1], "meets the weight's columns")
            rule.consumes_value(1, 1, xs[1])
        if self.bias:
            rule.param("bias", (out,))
        return (*x[:-1], out)

    def macs(self, out: Shape, *xs: Shape) -> int:
        return out.elements * xs[0].size(-1)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(out_features=3), (batch_of(5),)),
            Example(cls(out_features=4, bias=False), (batch_of(2, 3, 5),)),
            Example(cls(), (batch_of(5), Shape((3, 5)))),
        )
