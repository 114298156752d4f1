"""Products of two values, and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from growir.ops.base import BATCH, Bool, Example, Op, OpError, PositiveReal, Probability, Shape, batch_of
from growir.ops.join import broadcast
from growir.ops.rule import Rule
from growir.ops.spaces import Axes, length

# Queries and keys can only grow by heads. Values must then too: heads are one axis of all three.
WHOLE_HEADS = "heads come and go whole, their size stays"


class MatMul(Op):
    """The product of the matrices on the last two axes of two values; axes before them broadcast.

    The batch is an axis before them, or the rows of a first input (N, features) that meets a matrix without a batch.
    """

    op: Literal["matmul"] = "matmul"
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def infer(self, *xs: Shape) -> Shape:
        a, b = xs
        if a.rank < 2 or b.rank < 2:
            raise OpError(f"matmul takes two values of rank 2 or more, but gets {a} and {b}")
        rows_of_batch = a.rank == 2 and a.batched and b.rank == 2
        if BATCH in b.dims[-2:] or (BATCH in a.dims[-2:] and not rows_of_batch):
            raise OpError(f"the batch must lie before the last two axes, but the inputs are {a} and {b}")
        if a.size(-1) != b.size(-2):
            raise OpError(f"{a.size(-1)} columns of {a} meet {b.size(-2)} rows of {b}")
        front = broadcast(Shape(a.dims[:-2]), Shape(b.dims[:-2]))
        return Shape((*front.dims, a.dims[-2], b.dims[-1]))

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        a, b = xs
        front = rule.join(a[:-2], b[:-2])
        for position, axis, weight, other in ((1, len(b) - 2, b, a[-1]), (0, len(a) - 1, a, b[-2])):
            if rule.inputs[position] in rule.sources:
                rule.algebra.unify(weight[axis], other, "meets the weight here")
                rule.consumes_value(position, axis, weight)
                break
        else:
            # A share of a new channel has no weight to go into.
            rule.fixed((a[-1], b[-2]), "is summed over, in a product of two computed values")
            if len(xs[1]) > 3:
                rule.fixed((b[-1],), WHOLE_HEADS)
        return (*front, a[-2], b[-1])

    def macs(self, out: Shape, *xs: Shape) -> int:
        return out.elements * xs[0].size(-1)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(), (batch_of(2, 3, 4), batch_of(2, 4, 5))),
            Example(cls(), (batch_of(3, 4), batch_of(4, 2))),
            Example(cls(), (batch_of(3, 4), Shape((4, 2)))),
            Example(cls(), (batch_of(4), Shape((4, 3)))),
            Example(cls(), (Shape((2, 5, 3)), batch_of(2, 3, 4))),
        )


class Attention(Op):
    """Scaled dot product attention: softmax(scale q k^T + mask) v, over tokens on the last axis but one.

    Inputs are q (N, ..., T, D), k (N, ..., S, D), v (N, ..., S, E) and perhaps a mask, broadcast to (N, ..., T, S).
    Without `scale` it is 1 / sqrt(D). `is_causal` hides later tokens. Heads, on the axes in between, come and go; their
    size D stays.

    The numbers of a mask are added to the scores, or say which keys are seen: those where it is not zero. A query that
    sees none gives zeros, as in torch.
    """

    op: Literal["attention"] = "attention"
    dropout_p: Probability = 0.0
    is_causal: Bool = False
    scale: PositiveReal | None = None
    mask: Literal["added", "seen"] = "added"
    arity: ClassVar[tuple[int, int | None]] = (3, 4)
    two_modes = True

    @property
    def draws(self) -> bool:
        return self.dropout_p > 0

    def factor(self, q: Shape) -> float:
        """What the products of queries and keys are multiplied by."""
        return 1 / math.sqrt(q.size(-1)) if self.scale is None else self.scale

    def infer(self, *xs: Shape) -> Shape:
        q, k, v = xs[:3]
        if any(x.rank < 3 or x.rank != q.rank or x.dims[:-2] != q.dims[:-2] or not x.batched for x in (q, k, v)):
            raise OpError(f"q, k and v must be (N, ..., tokens, size) with the same axes in front; are {q}, {k}, {v}")
        if k.size(-1) != q.size(-1) or k.size(-2) != v.size(-2):
            raise OpError(f"q {q} and k {k} must have one size, k and v {v} one number of tokens")
        if len(xs) == 3 and self.mask != "added":
            raise OpError(f"mask is {self.mask!r}, but there is no mask; give one as the fourth input")
        if len(xs) == 4:
            if self.is_causal:
                raise OpError("is_causal does not go with a mask; put it into the mask")
            scores = Shape((*q.dims[:-1], k.dims[-2]))
            if xs[3].rank > scores.rank or broadcast(scores, xs[3]) != scores:
                raise OpError(f"the mask {xs[3]} does not broadcast to the scores {scores}")
        return Shape((*q.dims[:-1], v.dims[-1]))

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        q, k, v = xs[:3]
        rule.fixed((q[-1], k[-1]), "scores are sums over the size of a head, and their scale depends on it")
        self._tokens(rule, *xs)
        if len(xs[2]) > 3:
            rule.fixed((v[-1],), WHOLE_HEADS)
        front = rule.join(*(x[:-2] for x in xs))
        if self.draws:
            rule.draws((*front, q[-2], k[-2]))
        return (*front, q[-2], v[-1])

    def _tokens(self, rule: Rule, *xs: Axes) -> None:
        """What the tokens of queries and keys may do; those of values are those of keys."""
        q, k, v = (x[-2] for x in xs[:3])
        attend = "tokens attend to each other"
        if self.is_causal and length(q) == length(k):
            # A query sees the keys up to its own place, so new tokens behind all others are seen by none of them.
            for other in (k, v) if rule.opened else ():
                rule.algebra.unify(q, other, attend)
            for axis in (q, k, v):
                rule.in_order(axis, attend)
            return
        rule.fixed((k, v), attend)
        if not rule.opened or self.is_causal or len(xs) == 4:
            rule.fixed((q,), attend)  # else each query is answered by itself
        for mask in xs[3:]:
            rule.fixed(mask[-2:], attend)

    def macs(self, out: Shape, *xs: Shape) -> int:
        q, k, v = xs[:3]
        scores = math.prod(q.sizes[:-1]) * k.size(-2)
        return scores * (q.size(-1) + v.size(-1))

    @classmethod
    def examples(cls) -> Sequence[Example]:
        heads = batch_of(2, 3, 4)
        return (
            Example(cls(), (heads, heads, heads)),
            Example(cls(is_causal=True, scale=0.7), (heads, heads, batch_of(2, 3, 5))),
            Example(cls(), (batch_of(3, 4), batch_of(2, 4), batch_of(2, 5), Shape((3, 2)))),
            Example(cls(dropout_p=0.5), (heads, batch_of(2, 5, 4), batch_of(2, 5, 3), batch_of(1, 3, 5))),
            Example(cls(mask="seen"), (batch_of(3, 4), batch_of(2, 4), batch_of(2, 5), batch_of(3, 2))),
        )
