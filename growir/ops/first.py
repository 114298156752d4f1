"""The beginning of a table, as long as another value is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from growir.ops.base import Example, Int, NonNegativeInt, Op, OpError, Shape, batch_of
from growir.ops.layout import axis_of
from growir.ops.rule import Rule
from growir.ops.spaces import Axes, Axis, length

BEHIND = "lies behind the positions that are taken from the front"


class First(Op):
    """The first positions of a table, as many as an axis of a second value has: positions and masks of any length.

    Inputs are the table and the value that is as long. Along each of `axes` the result is as long as the second value
    along its axis `of`, so a causal mask (512, 512) gives (T, T) with axes [0, 1]. The table may be longer, and bounds
    the length.
    """

    op: Literal["first"] = "first"
    axes: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=16)]
    of: Int = 1
    integers = True
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.axes) != sorted(set(self.axes)):
            raise ValueError("axes ascend, each once")
        return self

    def limit(self, table: Shape) -> int:
        """How long the second value may be."""
        return min(table.size(axis_of(axis, table)) for axis in self.axes)

    def infer(self, *xs: Shape) -> Shape:
        table, x = xs
        count = x.size(axis_of(self.of, x))
        if count > self.limit(table):
            raise OpError(f"{table} has fewer positions than the {count} on axis {self.of} of {x}")
        found = table
        for axis in self.axes:
            found = found.with_dim(axis, count)
        return found

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        table, x = xs
        along = x[self.of]
        out = list(table)
        for axis in self.axes:
            out[axis] = self._taken(rule, table[axis], along)
        rule.part(range(len(table)))
        return tuple(out)

    def _taken(self, rule: Rule, whole: Axis, along: Axis) -> Axis:
        """The positions at the front, which are those of the value; what lies behind them stays."""
        if length(whole) > length(along):
            whole, behind = rule.algebra.cut(whole, [length(along)], "is cut inside a block of channels")
            rule.fixed((behind,), BEHIND)
        rule.algebra.unify(along, whole, "are the positions of a table here")
        return along

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(axes=(1,)), (batch_of(5, 4), batch_of(3))),
            Example(cls(axes=(1, 2), of=-1), (batch_of(4, 6), batch_of(2, 4))),
            Example(cls(axes=(2,)), (batch_of(2, 3), batch_of(3, 2))),
        )
