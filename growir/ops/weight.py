"""Learned tensors that are values of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from growir.ops.base import (
    BATCH,
    Constant,
    Example,
    NonNegativeInt,
    Normal,
    Op,
    OpError,
    Param,
    ParamTable,
    PositiveInt,
    Shape,
    batch_of,
)
from growir.ops.spaces import Axes, Rule, fixed


class Bias(Op):
    """A learned vector for every sample, (N, features, 1 x dims); its input supplies only the batch size.

    It is how a hidden state exists before its first edge: the empty graph is input -> bias -> output.
    """

    op: Literal["bias"] = "bias"
    features: PositiveInt
    dims: Annotated[NonNegativeInt, Field(le=3)] = 0
    integers = True

    def infer(self, *xs: Shape) -> Shape:
        if not xs[0].batched:
            raise OpError(f"bias takes its batch size from its input, but {xs[0]} has no batch axis")
        return Shape((BATCH, self.features, *(1,) * self.dims))

    def params(self, *xs: Shape) -> ParamTable:
        return {"bias": Param((self.features,), ("out",), Constant(0.0))}

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        out = rule.new(self.features)
        rule.follows("features", out)
        rule.param("bias", (out,))
        return (fixed(1), out, *(fixed(1),) * self.dims)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(features=3), (batch_of(5),)),
            Example(cls(features=2, dims=2), (batch_of(3, 4, 4),)),
        )


class Parameter(Op):
    """A learned tensor as a value without a batch axis: positions, a class token, the weight of a linear or conv2d."""

    op: Literal["parameter"] = "parameter"
    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=8)]
    arity: ClassVar[tuple[int, int | None]] = (0, 0)

    def infer(self, *xs: Shape) -> Shape:
        return Shape(self.shape)

    def params(self, *xs: Shape) -> ParamTable:
        return {"weight": Param(self.shape, ("out",) * len(self.shape), Normal(0.02))}

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        axes = tuple(rule.new(size) for size in self.shape)
        for k, axis in enumerate(axes):
            rule.follows("shape", axis, k)
        rule.param("weight", axes)
        rule.value(rule.owners.get("weight", f"{rule.node}.weight"))
        return axes

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example(cls(shape=(4, 3)), ()),)
