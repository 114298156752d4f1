"""Which numbers an operator can give, and which it gives back: relu gives none below 0, and keeps all above."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from growir.ops.arithmetic import Affine
from growir.ops.base import Op


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from `low` to `high`, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def within(self, other: Range) -> bool:
        return other.low <= self.low and self.high <= other.high

    def cut(self, low: float | None, high: float | None) -> Range:
        """Where its numbers are once those beyond the bounds have become the bounds."""
        least, most = -math.inf if low is None else low, math.inf if high is None else high
        return Range(min(max(self.low, least), most), max(min(self.high, most), least))

    def join(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))


ANY: Final = Range()
NOT_NEGATIVE: Final = Range(0.0, math.inf)
Rule = Callable[[Any, tuple[Range, ...]], Range]


def _same(op: Op, xs: tuple[Range, ...]) -> Range:
    return xs[0]


def _union(op: Op, xs: tuple[Range, ...]) -> Range:
    found = xs[0]
    for x in xs[1:]:
        found = found.join(x)
    return found


def _sign(op: Op, xs: tuple[Range, ...]) -> Range:
    """What keeps a sign but no size: means with zeros among them, sums, products, scaling by what is not negative."""
    return NOT_NEGATIVE if all(x.low >= 0 for x in xs) else ANY


def _identity_above_zero(op: Op, xs: tuple[Range, ...]) -> Range:
    return xs[0] if xs[0].low >= 0 else ANY


def _always(low: float, high: float) -> Rule:
    return lambda op, xs: Range(low, high)


_RANKS = ("1d", "2d", "3d")
_MAXIMA = [f"{kind}{rank}" for kind in ("max_pool", "adaptive_max_pool") for rank in _RANKS]
_MEANS = [f"{kind}{rank}" for kind in ("avg_pool", "adaptive_avg_pool") for rank in _RANKS]
_MOVES = (
    "identity flatten reshape permute unsqueeze squeeze slice first select expand pixel_shuffle pixel_unshuffle".split()
)
# What each kind gives from inputs in these ranges; kinds that are not here may give anything.
_GIVES: Mapping[str, Rule] = {
    "relu": lambda op, xs: xs[0].cut(0.0, None),
    "relu6": lambda op, xs: xs[0].cut(0.0, 6.0),
    "clamp": lambda op, xs: xs[0].cut(op.min, op.max),
    "sigmoid": _always(0.0, 1.0),
    "hardsigmoid": _always(0.0, 1.0),
    "softmax": _always(0.0, 1.0),
    "gaussian": _always(0.0, 1.0),
    "tanh": _always(-1.0, 1.0),
    "softsign": _always(-1.0, 1.0),
    "softplus": _always(0.0, math.inf),
    "exp": _always(0.0, math.inf),
    "sqrt": _always(0.0, math.inf),
    "abs": _always(0.0, math.inf),
    "expm1": _always(-1.0, math.inf),
    "greater": _always(0.0, 1.0),
    "equal": _always(0.0, 1.0),
    "where": lambda op, xs: xs[1].join(xs[2]),
    "cast": _sign,
    "round": _sign,
    "floor": _sign,
    "cumsum": _sign,
    "norm": _always(0.0, math.inf),
    "leaky_relu": _identity_above_zero,
    "prelu": _identity_above_zero,
    "elu": _identity_above_zero,
    "celu": _identity_above_zero,
    "dropout": _sign,
    "add": _sign,
    "mul": _sign,
    "mean": _sign,
    "sum": _sign,
    "amax": _same,
    "amin": _same,
    "maximum": _union,
    "minimum": _union,
    "concat": _union,
    **dict.fromkeys(["detach", *_MOVES, *_MAXIMA], _same),
    **dict.fromkeys(_MEANS, _sign),
}

# Where each kind gives back what it gets, and has the slope 1 (on the border, the slope that its input's kind has too).
_KEEPS: Mapping[str, Callable[[Any], Range]] = {
    "identity": lambda op: ANY,
    "relu": lambda op: NOT_NEGATIVE,
    "relu6": lambda op: Range(0.0, 6.0),
    "clamp": lambda op: ANY.cut(op.min, op.max),
    "leaky_relu": lambda op: NOT_NEGATIVE,
    "prelu": lambda op: NOT_NEGATIVE,
    "elu": lambda op: NOT_NEGATIVE,
    "celu": lambda op: NOT_NEGATIVE,
    "abs": lambda op: NOT_NEGATIVE,
}


def gives(op: Op, *xs: Range) -> Range:
    """A range that holds every number the operator gives from inputs in these ranges, in train and eval mode."""
    rule = _GIVES.get(op.kind())
    return ANY if rule is None or not xs else rule(op, xs)


def keeps(op: Op) -> Range | None:
    """The numbers that the operator gives back as they are; None where there are none of note."""
    rule = _KEEPS.get(op.kind())
    return None if rule is None else rule(op)


# Kinds that give 0 where they get 0, with a slope there by which what comes before them learns; relu has none.
_THROUGH_ZERO = frozenset(
    [
        *"leaky_relu elu celu selu gelu silu mish tanh softsign hardswish prelu dropout sin erf mean sum".split(),
        *"log1p expm1 cumsum".split(),
        *(*_MOVES, *_MAXIMA, *_MEANS),
    ]
)


def through_zero(op: Op) -> bool:
    """Whether an operator of one input gives 0 for 0, and hands gradients back there."""
    if isinstance(op, Affine):
        return op.shift == 0 and op.scale != 0
    return op.kind() in _THROUGH_ZERO


# Kinds that give 0 where all of their inputs are 0. Norms do with the offset and the mean that a new channel has.
_ZERO_AT_ZERO = _THROUGH_ZERO | frozenset(
    "relu relu6 abs sqrt batch_norm standardise concat add sub mul maximum minimum amax amin".split()
)


def zero_at_zero(op: Op) -> bool:
    """Whether an operator gives 0 for new channels that are 0 in all of its inputs."""
    if isinstance(op, Affine):
        return op.shift == 0
    return op.kind() in _ZERO_AT_ZERO
