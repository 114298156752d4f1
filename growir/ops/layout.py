"""Operators that move numbers without changing them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from growir.ops.base import (
    BATCH,
    MAX_ENTRIES,
    Dim,
    Example,
    Int,
    NonNegativeInt,
    Op,
    OpError,
    PositiveInt,
    Real,
    Shape,
    batch_of,
)
from growir.ops.rule import Rule
from growir.ops.spaces import Axes, Axis, fixed, length


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


class Permute(Op):
    """The axes in another order: axis k of the result is axis dims[k]. The batch stays first."""

    op: Literal["permute"] = "permute"
    dims: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=16)]
    integers = True

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if sorted(self.dims) != list(range(len(self.dims))):
            raise ValueError(f"each of 0 to {len(self.dims) - 1} must stand once")
        return self

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        if len(self.dims) != x.rank:
            raise OpError(f"dims {list(self.dims)} must name each of the {x.rank} axes of {x}")
        if x.batched and self.dims[0] != 0:
            raise OpError(f"the batch stays first, so dims begin with 0; they are {list(self.dims)}")
        return Shape(tuple(x.dims[k] for k in self.dims), x.dtype)

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        rule.part(self.dims)
        return tuple(xs[0][k] for k in self.dims)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(dims=(0, 2, 1)), (batch_of(3, 4),)),
            Example(cls(dims=(0, 3, 1, 2)), (batch_of(2, 3, 4),)),
        )


class Unsqueeze(Op):
    """A new axis of width 1 at position dim."""

    op: Literal["unsqueeze"] = "unsqueeze"
    dim: Int
    integers = True

    def _place(self, rank: int) -> int:
        return self.dim if self.dim >= 0 else self.dim + rank + 1

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        at = self._place(x.rank)
        if not 0 <= at <= x.rank or (at == 0 and x.batched):
            raise OpError(f"there is no place {self.dim} for a new axis in {x}; the batch stays first")
        return Shape((*x.dims[:at], 1, *x.dims[at:]), x.dtype)

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        at = self._place(len(xs[0]))
        return (*xs[0][:at], fixed(1), *xs[0][at:])

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example(cls(dim=1), (batch_of(5),)), Example(cls(dim=-1), (batch_of(2, 3),)))


class Squeeze(Op):
    """Drops an axis of width 1."""

    op: Literal["squeeze"] = "squeeze"
    dim: Int
    integers = True

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        axis = axis_of(self.dim, x)
        if x.size(axis) != 1:
            raise OpError(f"only an axis of width 1 can be dropped, but axis {self.dim} of {x} has {x.size(axis)}")
        return Shape((*x.dims[:axis], *x.dims[axis + 1 :]), x.dtype)

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        axis = self.dim % len(xs[0])
        rule.fixed((xs[0][axis],), "an axis of width 1 is dropped")
        return (*xs[0][:axis], *xs[0][axis + 1 :])

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example(cls(dim=1), (batch_of(1, 5),)), Example(cls(dim=-1), (batch_of(3, 1),)))


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
        known = math.prod(size for size in self.shape if size != -1)
        total = x.elements
        if (total % known if -1 in self.shape else total != known) or not total:
            raise OpError(f"{total} numbers per sample do not fit into {list(self.shape)}")
        sizes = [total // known if s == -1 else s for s in self.shape]
        return Shape((BATCH, *sizes) if x.batched else tuple(sizes), x.dtype)

    def kept(self, x: Shape) -> tuple[int, int]:
        """How many sizes in front, and how many behind those, stay as they are."""
        old, new = x.sizes, self.infer(x).sizes
        most = min(len(old), len(new))
        front = next((k for k in range(most) if old[k] != new[k]), most)
        return front, next((k for k in range(most - front) if old[-1 - k] != new[-1 - k]), most - front)

    def followed(self, old: Shape, new: Shape) -> Op:
        front, back = self.kept(old)
        shape = list(self.shape)
        shape[:front] = new.sizes[:front]
        if back:
            shape[-back:] = new.sizes[-back:]
        return Reshape(shape=tuple(shape))

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        batch = len(rule.sizes) - len(self.shape)  # axes that stay in front: the batch, where there is one
        axes = rule.algebra.reshape(xs[0][batch:], rule.sizes[batch:])
        for k, axis in enumerate(axes):
            if self.shape[k] != -1:
                rule.follows("shape", axis, k)
        return (*xs[0][:batch], *axes)

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
        rule.part(range(len(x)))
        return (*x[:axis], piece, *x[axis + 1 :])

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(start=1, length=2), (batch_of(5),)),
            Example(cls(axis=-1, length=3), (batch_of(2, 4),)),
        )


class Select(Op):
    """The positions `indices` of an axis, in that order; they denote channels and move with them."""

    op: Literal["select"] = "select"
    axis: Int = 1
    indices: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=MAX_ENTRIES)]
    integers = True

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        axis = axis_of(self.axis, x)
        if max(self.indices) >= x.size(axis):
            raise OpError(f"index {max(self.indices)} lies outside the {x.size(axis)} positions of {x}")
        return x.with_dim(axis, len(self.indices))

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        x, axis = xs[0], self.axis % len(xs[0])
        return (*x[:axis], rule.pick("indices", x[axis], self.indices), *x[axis + 1 :])

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(indices=(3, 0, 1)), (batch_of(5),)),
            Example(cls(axis=-1, indices=(1,)), (batch_of(2, 3),)),
            Example(cls(indices=(2, 3, 0, 1, 1)), (batch_of(5, 2, 2),)),
        )


class Pad(Op):
    """Positions added before and behind: `padding` counts (before, behind) of the last axis, then of the one before it.

    `value` fills them in mode constant; the others repeat what is there, on the last one to three axes behind the
    channels.
    """

    op: Literal["pad"] = "pad"
    padding: Annotated[tuple[NonNegativeInt, ...], Field(min_length=2, max_length=14)]
    mode: Literal["constant", "reflect", "replicate", "circular"] = "constant"
    value: Real = 0.0

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.padding) % 2:
            raise ValueError("padding holds a pair, before and behind, for each axis from the last one on")
        if self.mode != "constant" and self.value != 0:
            raise ValueError("value goes with mode constant")
        return self

    def amounts(self, axis: int, rank: int) -> tuple[int, int]:
        """How many positions come before an axis and behind it."""
        k = 2 * (rank - 1 - axis)
        return (self.padding[k], self.padding[k + 1]) if k < len(self.padding) else (0, 0)

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        count = len(self.padding) // 2
        if count >= x.rank:
            raise OpError(f"padding of {count} axes does not fit {x}, whose batch is not padded")
        if self.mode != "constant" and not (count <= 3 and x.rank - count in (1, 2)):
            raise OpError(f"mode {self.mode} pads all axes behind the channels, or all but the batch; {x} gets {count}")
        dims: list[Dim] = [*x.dims[: x.rank - count]]
        for axis in range(x.rank - count, x.rank):
            size, amounts = x.size(axis), self.amounts(axis, x.rank)
            most = {"reflect": size - 1, "circular": size}.get(self.mode, max(amounts))
            if max(amounts) > most:
                raise OpError(f"mode {self.mode} can add at most {most} to axis {axis} of {x}, not {max(amounts)}")
            dims.append(size + sum(amounts))
        return Shape(tuple(dims), x.dtype)

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        x = xs[0]
        out = list(x)
        for axis in range(len(x)):
            before, behind = self.amounts(axis, len(x))
            if not before and not behind:
                continue
            if self.mode != "constant" or all(space is None for space, _ in rule.algebra.resolve(x[axis])):
                rule.fixed((x[axis],), "is padded along this axis")
                out[axis] = fixed(rule.sizes[axis])
                continue
            # Channels are padded with channels: their numbers are constant, and how many there are is free.
            place = 2 * (len(x) - 1 - axis)
            front, back = (self._filling(rule, place + k) for k in (0, 1))
            out[axis] = (*front, *x[axis], *back)
        return tuple(out)

    def _filling(self, rule: Rule, place: int) -> Axis:
        if not self.padding[place]:
            return ()
        added = rule.new(self.padding[place])
        rule.follows("padding", added, place)
        return added

    @classmethod
    def examples(cls) -> Sequence[Example]:
        image = batch_of(3, 4, 5)
        return (
            Example(cls(padding=(1, 2)), (batch_of(5),)),
            Example(cls(padding=(1, 0, 2, 1), value=0.5), (image,)),
            Example(cls(padding=(0, 0, 0, 1, 2, 0)), (image,)),
            Example(cls(padding=(1, 2, 3, 0), mode="reflect"), (image,)),
            Example(cls(padding=(6, 2, 0, 1), mode="replicate"), (image,)),
            Example(cls(padding=(4, 3), mode="circular"), (batch_of(2, 4),)),
        )


class Expand(Op):
    """Axes of width 1 repeated, and new ones in front, to `shape` (the batch left out); -1 keeps an axis.

    With a second input, a value without a batch is repeated for every sample of that input: a class token (1, 1, D), or
    (1, D), becomes (N, 1, D).
    """

    op: Literal["expand"] = "expand"
    shape: Annotated[tuple[Int, ...], Field(min_length=1, max_length=16)]
    integers = True
    arity: ClassVar[tuple[int, int | None]] = (1, 2)

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if any(size < 1 and size != -1 for size in self.shape):
            raise ValueError("entries are positive, or -1 for an axis that stays as it is")
        return self

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        if len(xs) == 2 and (x.batched or not xs[1].batched):
            raise OpError("a second input supplies the batch to a first one that has none")
        batched = x.batched or len(xs) == 2
        front = len(self.shape) + batched - x.rank
        if front < 0 or (x.batched and front):
            raise OpError(f"{x} does not fit into {list(self.shape)}, which leaves the batch out")
        if len(xs) == 2 and not front and x.dims[0] != 1:
            raise OpError(f"the first axis of {x} becomes the batch, so its width must be 1")
        dims: list[Dim] = ["N"] if batched else []
        for k, size in enumerate(self.shape):
            at = k + batched - front
            known = x.size(at) if at >= 0 else 1
            if size == -1 and at < 0:
                raise OpError(f"entry {k} of {list(self.shape)} makes a new axis, so it cannot be -1")
            if size not in (-1, known) and known != 1:
                raise OpError(f"axis {at} of {x} has width {known}, not 1, and cannot become {size}")
            dims.append(known if size == -1 else size)
        return Shape(tuple(dims), x.dtype)

    def followed(self, old: Shape, new: Shape) -> Op:
        def entry(k: int, size: int) -> int:
            at = k - len(self.shape)  # the same axis, from behind
            return -1 if -at <= old.rank and old.dims[at] == size else size

        return Expand(shape=tuple(entry(k, size) for k, size in enumerate(self.shape)))

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        x = xs[0]
        batch = len(rule.sizes) - len(self.shape)
        front = len(rule.sizes) - len(x)
        out: list[Axis] = [fixed(1)] * batch
        if batch and not front:
            rule.fixed((x[0],), "an axis of width 1 becomes the batch")
        for k, size in enumerate(self.shape):
            axis = x[k + batch - front] if k + batch >= front else fixed(1)
            if size not in (-1, length(axis)):
                rule.fixed((axis,), "one channel is broadcast over many here")
                axis = rule.new(size)
            if size != -1:
                rule.follows("shape", axis, k)
            out.append(axis)
        return tuple(out)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(shape=(3, 4)), (batch_of(1, 4),)),
            Example(cls(shape=(-1, 4, 5)), (batch_of(3, 1, 1),)),
            Example(cls(shape=(-1, -1)), (Shape((1, 2, 3)), batch_of(4))),
            Example(cls(shape=(2, 3)), (Shape((3,)), batch_of(4, 4))),
        )
