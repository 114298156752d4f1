"""Operators of several inputs: sums, products, concatenation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from growir.ops.base import Dim, Example, Int, Op, OpError, Shape, batch_of
from growir.ops.rule import Rule
from growir.ops.spaces import Axes


def broadcast(*xs: Shape) -> Shape:
    """The right-aligned broadcast shape. Raises OpError naming both sides of a conflict."""
    rank = max(x.rank for x in xs)
    dims: list[Dim] = []
    for k in range(rank):
        here: list[Dim] = [x.dims[k - rank + x.rank] for x in xs if k - rank + x.rank >= 0]
        dim: Dim = max(here, key=lambda d: d != 1)  # the first that is not broadcast
        if any(d not in (1, dim) for d in here):
            raise OpError(f"inputs must have one shape, but are {' and '.join(str(x) for x in xs[:4])}")
        dims.append(dim)
    if "N" in dims[1:]:
        raise OpError(f"the batch axes do not line up in {' and '.join(str(x) for x in xs[:4])}")
    return Shape(tuple(dims), xs[0].dtype)


class _Join(Op):
    """An n-ary elementwise operator with broadcasting: operands share their channels."""

    arity: ClassVar[tuple[int, int | None]] = (1, None)

    def infer(self, *xs: Shape) -> Shape:
        return broadcast(*xs)

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        return rule.join(*xs)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        image = batch_of(3, 4, 5)
        return (
            Example(cls(), (batch_of(5), batch_of(5))),
            Example(cls(), (image,)),
            Example(cls(), (image, batch_of(3, 1, 1), Shape((3, 1, 1)))),
        )


class Add(_Join):
    """The sum of its inputs; one operand is legal, it is how a hidden state waits for its next edge."""

    op: Literal["add"] = "add"


class Mul(_Join):
    """The product of its inputs."""

    op: Literal["mul"] = "mul"


class _Binary(_Join):
    """A join of exactly two operands."""

    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        image = batch_of(3, 4, 5)
        return (
            Example(cls(), (batch_of(5), batch_of(5))),
            Example(cls(), (image, batch_of(3, 1, 1))),
            Example(cls(), (Shape((3, 1, 1)), image)),
        )


class Sub(_Binary):
    """The first input minus the second."""

    op: Literal["sub"] = "sub"


class Div(_Binary):
    """The first input divided by the second."""

    op: Literal["div"] = "div"

    @property
    def partial(self) -> bool:
        return True

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        rule.may_fail(xs[1])
        return super().channels(rule, *xs)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        image = batch_of(3, 4, 5)
        return (
            Example(cls(), (batch_of(5), batch_of(5)), positive=True),
            Example(cls(), (image, batch_of(3, 1, 1)), positive=True),
            Example(cls(), (Shape((3, 1, 1)), image), positive=True),
        )


class Maximum(_Binary):
    """The larger of two numbers."""

    op: Literal["maximum"] = "maximum"


class Minimum(_Binary):
    """The smaller of two numbers."""

    op: Literal["minimum"] = "minimum"


class Greater(_Binary):
    """1 where the first number is greater than the second, else 0; its slope is 0."""

    op: Literal["greater"] = "greater"


class Equal(_Binary):
    """1 where two numbers are equal, else 0; its slope is 0."""

    op: Literal["equal"] = "equal"


class Where(_Join):
    """The second input where the first is not 0, the third elsewhere: what is not chosen may be infinite or NaN."""

    op: Literal["where"] = "where"
    arity: ClassVar[tuple[int, int | None]] = (3, 3)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        image = batch_of(3, 4, 5)
        return (
            Example(cls(), (batch_of(5), batch_of(5), batch_of(5))),
            Example(cls(), (batch_of(1, 4, 5), image, Shape((3, 1, 1)))),
        )


class Concat(Op):
    """Inputs one after the other along an axis."""

    op: Literal["concat"] = "concat"
    dim: Int = 1
    arity: ClassVar[tuple[int, int | None]] = (1, None)

    def infer(self, *xs: Shape) -> Shape:
        first = xs[0]
        if not -first.rank <= self.dim < first.rank:
            raise OpError(f"dim {self.dim} is no axis of {first}")
        axis = self.dim % first.rank
        total = 0
        for x in xs:
            if x.rank != first.rank or any(
                a != b for k, (a, b) in enumerate(zip(x.dims, first.dims, strict=True)) if k != axis
            ):
                raise OpError(f"inputs must agree except on axis {axis}, but are {first} and {x}")
            total += x.size(axis)
        return first.with_dim(axis, total)

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        axis = self.dim % len(xs[0])
        out = list(rule.join(*[(*x[:axis], *x[axis + 1 :]) for x in xs]))
        out.insert(axis, tuple(term for x in xs for term in x[axis]))
        return tuple(out)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(), (batch_of(3), batch_of(2))),
            Example(cls(dim=-1), (batch_of(2, 3), batch_of(2, 4), batch_of(2, 1))),
        )
