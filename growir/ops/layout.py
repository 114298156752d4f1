"""Operators that move numbers without changing them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from growir.ops.base import BATCH, Example, Int, NonNegativeInt, Op, OpError, PositiveInt, Shape, batch_of
from growir.ops.spaces import Axes, Rule, fixed, length


def axis_of(axis: int, x: Shape) -> int:
    """A negative axis counted from the front. Raises OpError outside the value or on the batch."""
    if not -x.rank <= axis < x.rank:
        raise OpError(f"axis {axis} is no axis of {x}")
    if x.dims[axis] == BATCH:
        raise OpError(f"axis {axis} of {x} is the batch")
    return axis % x.rank


class Flatten(Op):
    """Joins the axes start_dim to end_dim into one."""

    op: Literal["flatten"] = "flatten"
    start_dim: Int = 1
    end_dim: Int = -1
    integers = True

    def _range(self, x: Shape) -> tuple[int, int]:
        first, last = axis_of(self.start_dim, x), axis_of(self.end_dim, x)
        if first > last:
            raise OpError(f"start_dim {self.start_dim} lies behind end_dim {self.end_dim} in {x}")
        return first, last

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        first, last = self._range(x)
        size = math.prod(x.size(k) for k in range(first, last + 1))
        return Shape((*x.dims[:first], size, *x.dims[last + 1 :]), x.dtype)

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        x = xs[0]
        first, last = self.start_dim % len(x), self.end_dim % len(x)
        size = math.prod(length(axis) for axis in x[first : last + 1])
        return (*x[:first], *rule.algebra.reshape(x[first : last + 1], [size]), *x[last + 1 :])

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example(cls(), (batch_of(3, 2, 4),)), Example(cls(start_dim=2, end_dim=3), (batch_of(2, 3, 4),)))


def _one_open(shape: tuple[int, ...]) -> tuple[int, ...]:
    if shape.count(-1) > 1:
        raise ValueError("at most one entry may be -1")
    if any(size < 1 and size != -1 for size in shape):
        raise ValueError("entries are positive, or -1 for the one that is inferred")
    return shape


class Reshape(Op):
    """The same numbers, row by row, in another shape (the batch stays). A growable factor is best left open, -1."""

    op: Literal["reshape"] = "reshape"
    shape: Annotated[tuple[Int, ...], Field(min_length=1, max_length=16), AfterValidator(_one_open)]
    integers = True

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        if not x.batched:
            raise OpError(f"reshape takes a value with a batch axis, but gets {x}")
        known = math.prod(size for size in self.shape if size != -1)
        total = x.elements
        if (total % known if -1 in self.shape else total != known) or not total:
            raise OpError(f"{total} numbers per sample do not fit into {list(self.shape)}")
        return Shape((BATCH, *(total // known if s == -1 else s for s in self.shape)), x.dtype)

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        axes = rule.algebra.reshape(xs[0][1:], rule.sizes[1:])
        for k, axis in enumerate(axes):
            if self.shape[k] != -1:
                rule.follows("shape", axis, k)
        return (xs[0][0], *axes)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(shape=(-1,)), (batch_of(3, 2, 4),)),
            Example(cls(shape=(3, -1, 2)), (batch_of(6, 4),)),
            Example(cls(shape=(2, 3)), (batch_of(6),)),
        )


class Slice(Op):
    """`length` positions of an axis from `start` on; it denotes a set of source channels and moves with them."""

    op: Literal["slice"] = "slice"
    axis: Int = 1
    start: NonNegativeInt = 0
    length: PositiveInt
    integers = True

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        axis = axis_of(self.axis, x)
        if self.start + self.length > x.size(axis):
            raise OpError(f"positions {self.start} to {self.start + self.length} run over the {x.size(axis)} of {x}")
        return x.with_dim(axis, self.length)

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        x, axis = xs[0], self.axis % len(xs[0])
        bounds = [self.start, self.start + self.length]
        before, piece, _ = rule.algebra.cut(x[axis], bounds, "is cut inside a block of channels")
        rule.follows("start", before)
        rule.follows("length", piece)
        if rule.inputs[0] in rule.sources:
            rule.value(rule.sources[rule.inputs[0]])
        return (*x[:axis], piece, *x[axis + 1 :])

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(start=1, length=2), (batch_of(5),)),
            Example(cls(axis=-1, length=3), (batch_of(2, 4),)),
        )


class Select(Op):
    """The positions `indices` of an axis, in that order."""

    op: Literal["select"] = "select"
    axis: Int = 1
    indices: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    integers = True

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.indices)) != len(self.indices):
            raise ValueError("an index stands twice; each position may be selected once")
        return self

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        axis = axis_of(self.axis, x)
        if max(self.indices) >= x.size(axis):
            raise OpError(f"index {max(self.indices)} lies outside the {x.size(axis)} positions of {x}")
        return x.with_dim(axis, len(self.indices))

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        x, axis = xs[0], self.axis % len(xs[0])
        rule.fixed((x[axis],), "fixed positions of this axis are selected")
        return (*x[:axis], fixed(len(self.indices)), *x[axis + 1 :])

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(indices=(3, 0, 1)), (batch_of(5),)),
            Example(cls(axis=-1, indices=(1,)), (batch_of(2, 3),)),
        )
