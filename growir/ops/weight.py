"""Learned tensors that are values of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from growir.ops.base import (
    BATCH,
    Bool,
    Constant,
    DType,
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
from growir.ops.rule import Rule
from growir.ops.spaces import Axes, fixed


class Bias(Op):
    """A learned vector for every sample, (N, features, 1 x dims); its input supplies only the batch size.

    It is how a hidden state exists before its first edge: the empty graph is input -> bias -> output.
    """

    op: Literal["bias"] = "bias"
    features: PositiveInt
    dims: Annotated[NonNegativeInt, Field(le=62)] = 0  # a value has at most 64 axes
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
    """A stored tensor as a value without a batch axis: positions, a class token, the weight of a linear or conv2d.

    As a `buffer` it is a constant, a mask say, and not trained; only then may it hold integers.
    """

    op: Literal["parameter"] = "parameter"
    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=8)]
    buffer: Bool = False
    dtype: DType = "float32"
    arity: ClassVar[tuple[int, int | None]] = (0, 0)

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        if self.dtype == "int64" and not self.buffer:
            raise ValueError("integers cannot be trained; int64 goes with buffer: true")
        return self

    def infer(self, *xs: Shape) -> Shape:
        return Shape(self.shape, self.dtype)

    def params(self, *xs: Shape) -> ParamTable:
        axes = ("out",) * len(self.shape)
        if self.buffer:
            stored: Literal["float", "int64"] = "int64" if self.dtype == "int64" else "float"
            return {"weight": Param(self.shape, axes, Constant(0.0), buffer=True, dtype=stored)}
        return {"weight": Param(self.shape, axes, Normal(0.02))}

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        if self.dtype == "int64":  # positions and the like: to be looked up, not to grow
            axes = tuple(fixed(size) for size in self.shape)
            rule.param("weight", axes)
            return axes
        axes = tuple(rule.new(size) for size in self.shape)
        for k, axis in enumerate(axes):
            rule.follows("shape", axis, k)
        rule.stored("weight", axes)
        return axes

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example(cls(shape=(4, 3)), ()), Example(cls(shape=(2, 3), buffer=True), ()))
