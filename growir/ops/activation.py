"""Activations: functions of one number, softmax, dropout and the identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from growir.ops.base import (
    Constant,
    Elementwise,
    Example,
    Int,
    Op,
    OpError,
    Param,
    ParamTable,
    PositiveInt,
    PositiveReal,
    Probability,
    Real,
    Shape,
    batch_of,
    check_spatial,
)
from growir.ops.rule import Rule
from growir.ops.spaces import Axes, length


class Activation(Elementwise):
    """A non-linearity that a hidden state may apply to its sum; its attributes have defaults."""


class Identity(Elementwise):
    """y = x."""

    op: Literal["identity"] = "identity"
    integers = True


class Detach(Elementwise):
    """y = x, and no gradient goes back: a stop-gradient, as targets and straight-through estimators need it."""

    op: Literal["detach"] = "detach"
    integers = True

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        # A parameter behind it is still that parameter, which a layer may use as its weight.
        rule.part(range(len(xs[0])))
        return xs[0]


class Relu(Activation):
    """y = max(x, 0)."""

    op: Literal["relu"] = "relu"


class LeakyRelu(Activation):
    """y = x where x > 0, else negative_slope * x."""

    op: Literal["leaky_relu"] = "leaky_relu"
    negative_slope: Real = 0.01

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (*super().examples(), Example(cls(negative_slope=0.2), (batch_of(3, 4),)))


class Elu(Activation):
    """y = x where x > 0, else alpha * (exp(x) - 1)."""

    op: Literal["elu"] = "elu"
    alpha: Real = 1.0

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (*super().examples(), Example(cls(alpha=0.5), (batch_of(3, 4),)))


class Selu(Activation):
    """Self-normalising elu, with its two published constants."""

    op: Literal["selu"] = "selu"


class Gelu(Activation):
    """y = x * Phi(x), by erf or by the tanh approximation."""

    op: Literal["gelu"] = "gelu"
    approximate: Literal["none", "tanh"] = "none"

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example(cls(), (batch_of(5),)), Example(cls(approximate="tanh"), (batch_of(3, 4),)))


class Silu(Activation):
    """y = x * sigmoid(x)."""

    op: Literal["silu"] = "silu"


class Tanh(Activation):
    """y = tanh(x)."""

    op: Literal["tanh"] = "tanh"


class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x))."""

    op: Literal["sigmoid"] = "sigmoid"


class Softplus(Activation):
    """y = log(1 + exp(beta * x)) / beta, linear where beta * x > threshold."""

    op: Literal["softplus"] = "softplus"
    beta: PositiveReal = 1.0
    threshold: Real = 20.0

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example(cls(), (batch_of(5),)), Example(cls(beta=2.0, threshold=1.0), (batch_of(3, 4),)))


class Hardswish(Activation):
    """y = x * relu6(x + 3) / 6."""

    op: Literal["hardswish"] = "hardswish"


class Hardsigmoid(Activation):
    """y = relu6(x + 3) / 6."""

    op: Literal["hardsigmoid"] = "hardsigmoid"


class Relu6(Activation):
    """y = min(max(x, 0), 6)."""

    op: Literal["relu6"] = "relu6"


class Gaussian(Activation):
    """y = exp(-x^2 / 2): the radial basis of Firefly's toy network (Wu et al. 2020, section 3.1)."""

    op: Literal["gaussian"] = "gaussian"


class Celu(Activation):
    """y = x where x > 0, else alpha * (exp(x / alpha) - 1)."""

    op: Literal["celu"] = "celu"
    alpha: PositiveReal = 1.0

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (*super().examples(), Example(cls(alpha=0.5), (batch_of(3, 4),)))


class Mish(Activation):
    """y = x * tanh(log(1 + exp(x)))."""

    op: Literal["mish"] = "mish"


class Softsign(Activation):
    """y = x / (1 + |x|)."""

    op: Literal["softsign"] = "softsign"


class LogSigmoid(Activation):
    """y = -log(1 + exp(-x))."""

    op: Literal["log_sigmoid"] = "log_sigmoid"


class Threshold(Elementwise):
    """y = x where x > threshold, else value."""

    op: Literal["threshold"] = "threshold"
    threshold: Real
    value: Real

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(threshold=0.1, value=-1.0), (batch_of(5),)),
            Example(cls(threshold=-0.5, value=0.0), (batch_of(3, 4, 4),)),
        )


class Prelu(Activation):
    """y = x where x > 0, else weight * x, with one learned slope, or one per channel (axis 1)."""

    op: Literal["prelu"] = "prelu"
    num_parameters: PositiveInt = 1
    init: Real = 0.25

    def infer(self, *xs: Shape) -> Shape:
        if not xs[0].batched or xs[0].rank < 2:
            raise OpError(f"prelu takes an input of rank 2 or more, (N, C, ...), but gets {xs[0]}")
        if self.num_parameters not in (1, xs[0].size(1)):
            raise OpError(f"num_parameters must be 1 or {xs[0].size(1)}, the width of axis 1 of {xs[0]}")
        return xs[0]

    def params(self, *xs: Shape) -> ParamTable:
        return {"weight": Param((self.num_parameters,), ("channel",), Constant(self.init))}

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        channels = xs[0][1]
        if self.num_parameters > 1:
            rule.follows("num_parameters", channels)
            rule.param("weight", (channels,))
        else:
            if length(channels) == 1:
                # With one channel, "one slope for all" and "one per channel" cannot be told apart.
                rule.algebra.pin(channels, "has as many slopes as channels only while both are 1")
            rule.param("weight", (((None, 1),),))
        return xs[0]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(), (batch_of(5),)),
            Example(cls(num_parameters=3), (batch_of(3, 4, 4),)),
        )


class _AlongAxis(Op):
    """A softmax along one axis, whose width is therefore pinned."""

    dim: Int = -1

    def infer(self, *xs: Shape) -> Shape:
        x = xs[0]
        if not -x.rank <= self.dim < x.rank or x.dims[self.dim] == "N":
            raise OpError(f"dim {self.dim} is no axis of {x}, or its batch axis")
        return x

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        rule.fixed((xs[0][self.dim],), "softmax over this axis")
        return xs[0]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (Example(cls(), (batch_of(5),)), Example(cls(dim=1), (batch_of(3, 4),)))


class Softmax(_AlongAxis):
    """y = exp(x) / sum of exp(x), along one axis."""

    op: Literal["softmax"] = "softmax"


class LogSoftmax(_AlongAxis):
    """The logarithm of the softmax along one axis."""

    op: Literal["log_softmax"] = "log_softmax"


class FeatureDropout(Op):
    """Zeroes whole channels with probability p in train mode and scales the rest by 1 / (1 - p)."""

    spatial: ClassVar[int]
    p: Probability = 0.5
    two_modes = True

    def infer(self, *xs: Shape) -> Shape:
        check_spatial(xs[0], self.kind(), self.spatial)
        return xs[0]

    @property
    def draws(self) -> bool:
        return self.p > 0

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        if self.draws:
            rule.draws(xs[0][:2])
        return xs[0]

    @classmethod
    def examples(cls) -> Sequence[Example]:
        image = batch_of(3, *(4, 3, 2)[: cls.spatial])
        return (Example(cls(), (image,)), Example(cls(p=0.0), (image,)))


class Dropout1d(FeatureDropout):
    """Zeroes whole channels of (N, C, L) with probability p in train mode, and scales the rest by 1 / (1 - p)."""

    op: Literal["dropout1d"] = "dropout1d"
    spatial = 1


class Dropout2d(FeatureDropout):
    """Zeroes whole channels of (N, C, H, W) with probability p in train mode, and scales the rest by 1 / (1 - p)."""

    op: Literal["dropout2d"] = "dropout2d"
    spatial = 2


class Dropout3d(FeatureDropout):
    """Zeroes whole channels of (N, C, D, H, W) with probability p in train mode, and scales the rest by 1 / (1 - p)."""

    op: Literal["dropout3d"] = "dropout3d"
    spatial = 3


class Dropout(Elementwise):
    """Zeroes each entry with probability p in train mode and scales the rest by 1 / (1 - p)."""

    op: Literal["dropout"] = "dropout"
    p: Probability = 0.5
    two_modes = True

    @property
    def draws(self) -> bool:
        return self.p > 0

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        if self.draws:
            rule.draws(xs[0])
        return xs[0]
