"""Activations, arithmetic and dropout: calls that work on each number by itself, and sums and products of two."""

from __future__ import annotations

import math
from collections.abc import Callable

from growir.backends.torch_export.calls import Call
from growir.backends.torch_export.cuts import pieces
from growir.backends.torch_export.joints import aligned
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Held, Unsupported, Value, mapped
from growir.ops import (
    Abs,
    Add,
    Affine,
    Celu,
    Clamp,
    Cos,
    Cumsum,
    Div,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    Elu,
    Erf,
    Exp,
    Expm1,
    Floor,
    Gelu,
    Greater,
    Hardsigmoid,
    Hardswish,
    LeakyRelu,
    Log,
    Log1p,
    LogSigmoid,
    LogSoftmax,
    Maximum,
    Minimum,
    Mish,
    Mul,
    Op,
    Pow,
    Prelu,
    Relu,
    Relu6,
    Round,
    Rsqrt,
    Selu,
    Sigmoid,
    Silu,
    Sin,
    Softmax,
    Softplus,
    Sqrt,
    Sub,
    Tanh,
    Threshold,
    Where,
)
from growir.ops.base import MAX_REAL

Handler = Callable[[Reader, Call], Value]
_HIDING = 1e30  # nothing is left of a score that is so much smaller than another


def each(r: Reader, op: Op, x: Value) -> Value:
    """An operator on each number; the layout stays."""
    return r.emit(op, x, layout=x.layout)


def plainly(op: Op) -> Handler:
    """A call without arguments of its own."""
    return lambda r, c: each(r, op, c.value("self"))


def scaled(r: Reader, x: Value, scale: float, shift: float) -> Value:
    """scale * x + shift."""
    if (scale, shift) == (1.0, 0.0):
        return x
    return each(r, Affine(scale=_written(scale), shift=_written(shift)), x)


def _written(number: float) -> float:
    """A number as a document may hold it: what a mask adds to hide a score, torch.finfo(x.dtype).min, is larger."""
    return float(number) if abs(number) <= MAX_REAL else math.copysign(_HIDING, number)


def joined(r: Reader, op: Op, *xs: Value) -> Value:
    """An operator on values that are broadcast to each other."""
    (values, layout) = aligned(r, xs)
    return r.emit(op, *values, layout=layout)


def operand(c: Call, name: str) -> Value | None:
    """An argument as a value of the graph, or None if it is a number."""
    item = c.item(name) if c.is_tensor(name) else None
    if item is None or (isinstance(item, Held) and not item.trained and item.tensor.dim() == 0):
        return None
    constant = c.constant(name)
    if constant is not None and not constant.tensor.is_floating_point():
        dtype = c.result.dtype if c.result.is_floating_point() else c.reader.dtype
        return c.reader.value(mapped(constant, lambda x: x.to(dtype)))
    return c.reader.value(item)


def neutral(c: Call, name: str, number: float) -> bool:
    """Whether an operand is a constant of the model's code that changes nothing: this number everywhere."""
    item = c.constant(name) if c.is_tensor(name) else None
    if item is None or (isinstance(item, Held) and item.keys) or not bool((item.tensor == number).all()):
        return False
    other = "other" if name == "self" else "self"
    return c.is_tensor(other) and c.shape(other) == c.result.shape


def add(r: Reader, c: Call) -> Value:
    return _combined(r, c, Add(), 1.0)


def sub(r: Reader, c: Call) -> Value:
    return _combined(r, c, Sub(), -1.0)


def _combined(r: Reader, c: Call, op: Op, sign: float) -> Value:
    """self + sign * alpha * other; the operator has the sign in it."""
    alpha = float(c.get("alpha") if "alpha" in c.arguments else 1.0)
    if neutral(c, "other", 0.0):
        return c.value("self")
    if sign > 0 and alpha == 1 and neutral(c, "self", 0.0):
        return c.value("other")
    x, y = operand(c, "self"), operand(c, "other")
    if x is not None and y is not None:
        return joined(r, op, x, scaled(r, y, alpha, 0.0))
    if x is not None:
        return scaled(r, x, 1.0, sign * alpha * c.real("other"))
    return scaled(r, _only(y), sign * alpha, c.real("self"))


def _only(x: Value | None) -> Value:
    if x is None:
        raise AssertionError("a call on numbers alone is computed before")
    return x


def rsub(r: Reader, c: Call) -> Value:
    """other - alpha * self."""
    x, y, alpha = c.value("self"), operand(c, "other"), float(c.get("alpha"))
    if y is None:
        return scaled(r, x, -alpha, c.real("other"))
    return joined(r, Sub(), y, scaled(r, x, alpha, 0.0))


def mul(r: Reader, c: Call) -> Value:
    for one, two in (("self", "other"), ("other", "self")):
        if neutral(c, two, 1.0):
            return c.value(one)
    x, y = operand(c, "self"), operand(c, "other")
    if x is not None and y is not None:
        return joined(r, Mul(), x, y)
    return scaled(r, _only(y if x is None else x), c.real("self" if x is None else "other"), 0.0)


def div(r: Reader, c: Call) -> Value:
    if c.arguments.get("rounding_mode") is not None:
        return rounded_quotient(r, c)
    return _quotient(r, c)


def _quotient(r: Reader, c: Call) -> Value:
    x, y = operand(c, "self"), operand(c, "other")
    if x is not None and y is not None:
        return joined(r, Div(), x, y)
    if x is not None:
        return scaled(r, x, 1 / c.real("other"), 0.0)
    return scaled(r, each(r, Pow(exponent=-1.0), _only(y)), c.real("self"), 0.0)


def pow_(r: Reader, c: Call) -> Value:
    """A power with a fixed exponent, a computed or learned one, or of a fixed base."""
    x, exponent = operand(c, "self"), operand(c, "exponent")
    if exponent is None:
        return each(r, Pow(exponent=c.real("exponent")), _only(x))
    if x is not None:
        return joined(r, Pow(), x, exponent)
    base = c.real("self")
    if base > 0:
        return each(r, Exp(), scaled(r, exponent, math.log(base), 0.0))
    return joined(r, Pow(), r.constant(base), exponent)


def extremum(op: Op) -> Handler:
    """The larger or smaller of two tensors."""
    return lambda r, c: joined(r, op, c.value("self"), c.value("other"))


def clamp(r: Reader, c: Call) -> Value:
    bounds = {name: operand(c, name) for name in ("min", "max") if c.is_tensor(name)}
    numbers = {
        name: c.real(name) for name in ("min", "max") if c.arguments.get(name) is not None and not bounds.get(name)
    }
    x = c.value("self")
    if (low := bounds.get("min")) is not None:
        x = joined(r, Maximum(), x, low)
    x = between(r, x, numbers.get("min"), numbers.get("max"))
    high = bounds.get("max")
    return x if high is None else joined(r, Minimum(), x, high)


def lerp(r: Reader, c: Call) -> Value:
    """self + weight * (end - self)."""
    x, weight = c.value("self"), operand(c, "weight")
    apart = joined(r, Sub(), c.value("end"), x)
    step = scaled(r, apart, c.real("weight"), 0.0) if weight is None else joined(r, Mul(), weight, apart)
    return joined(r, Add(), x, step)


def between(r: Reader, x: Value, least: float | None, most: float | None) -> Value:
    """x cut off below and above, under its own name where it has one."""
    match least, most:
        case 0, None:
            return each(r, Relu(), x)
        case 0, 6:
            return each(r, Relu6(), x)
        case None, None:
            return x
        case _:
            low, high = (None if bound is None else float(bound) for bound in (least, most))
            return each(r, Clamp(min=low, max=high), x)


def hardtanh(r: Reader, c: Call) -> Value:
    return between(r, c.value("self"), c.real("min_val"), c.real("max_val"))


def threshold(r: Reader, c: Call) -> Value:
    least, value = c.real("threshold"), c.real("value")
    return each(r, Relu() if least == value == 0 else Threshold(threshold=least, value=value), c.value("self"))


def elu(r: Reader, c: Call) -> Value:
    if c.real("scale") != 1 or c.real("input_scale") != 1:
        raise Unsupported("scales an elu; scale its input and output instead")
    return each(r, Elu(alpha=c.real("alpha")), c.value("self"))


def celu(r: Reader, c: Call) -> Value:
    return each(r, Celu(alpha=c.real("alpha")), c.value("self"))


def leaky_relu(r: Reader, c: Call) -> Value:
    return each(r, LeakyRelu(negative_slope=c.real("negative_slope")), c.value("self"))


def gelu(r: Reader, c: Call) -> Value:
    return each(r, Gelu(approximate=c.arguments["approximate"]), c.value("self"))


def softplus(r: Reader, c: Call) -> Value:
    return each(r, Softplus(beta=c.real("beta"), threshold=c.real("threshold")), c.value("self"))


def prelu(r: Reader, c: Call) -> Value:
    x, weight = c.value("self"), c.held("weight")
    if weight is None or not weight.trained:
        raise Unsupported("has a computed slope; growir's prelu has a learned one")
    if not x.layout.plain:
        raise Unsupported("takes its channels from axis 1, but the batch is not axis 0 there")
    return r.emit(Prelu(num_parameters=weight.tensor.numel()), x, params={"weight": weight})


def softmax(kind: type[Softmax | LogSoftmax]) -> Handler:
    """A softmax along one of the model's axes."""

    def handle(r: Reader, c: Call) -> Value:
        x = c.value("self")
        r.computes_in(c.result.dtype)
        return r.emit(kind(dim=x.axis(c.whole("dim"), "takes a softmax over")), x, layout=x.layout)

    return handle


def glu(r: Reader, c: Call) -> Value:
    x = c.value("self")
    half = x.size(c.whole("dim")) // 2
    value, gate = pieces(r, x, c.whole("dim"), [half, half])
    return r.emit(Mul(), value, each(r, Sigmoid(), gate), layout=x.layout)


def dropout(r: Reader, c: Call) -> Value:
    """Dropout as it is in train mode; one that never drops disappears."""
    rate = drop_rate(r, c)
    return each(r, Dropout(p=rate), c.subject) if rate else c.subject


def drop_rate(r: Reader, c: Call) -> float:
    """The rate of a dropout in train mode, where there is one: a call may be told never to drop."""
    rate = float(c.arguments["p"])
    never = r.twin is not None and not r.twin.args[2]
    return 0.0 if never else rate


def feature_dropout(r: Reader, c: Call) -> Value:
    """Dropout of whole channels."""
    x, rate = c.subject, drop_rate(r, c)
    kinds: dict[int, type[Dropout1d | Dropout2d | Dropout3d]] = {3: Dropout1d, 4: Dropout2d, 5: Dropout3d}
    if not rate:
        return x
    if x.rank == 2:
        return each(r, Dropout(p=rate), x)
    if x.rank not in kinds or not x.layout.plain:
        raise Unsupported("drops channels of a value that is not (N, C, ...)")
    return r.emit(kinds[x.rank](p=rate), x)


def rounded_quotient(r: Reader, c: Call) -> Value:
    """A quotient rounded down, or towards 0."""
    mode = c.arguments.get("rounding_mode", "floor")
    return _rounded(r, _quotient(r, c), mode)


def _rounded(r: Reader, x: Value, mode: str) -> Value:
    down = each(r, Floor(), x)
    if mode == "floor":
        return down
    up = scaled(r, each(r, Floor(), scaled(r, x, -1.0, 0.0)), -1.0, 0.0)
    return joined(r, Where(), joined(r, Greater(), x, r.constant(0.0)), down, up)


def remainder(mode: str) -> Handler:
    """What is left of a number after the rounded quotient: of the divisor's sign, or of its own."""

    def handle(r: Reader, c: Call) -> Value:
        x, y = operand(c, "self"), operand(c, "other")
        x, y = (r.constant(c.real(n)) if found is None else found for n, found in (("self", x), ("other", y)))
        times = _rounded(r, joined(r, Div(), x, y), mode)
        return joined(r, Sub(), x, joined(r, Mul(), times, y))

    return handle


def truncated(r: Reader, c: Call) -> Value:
    return _rounded(r, c.value("self"), "trunc")


def ceil(r: Reader, c: Call) -> Value:
    return scaled(r, each(r, Floor(), scaled(r, c.value("self"), -1.0, 0.0)), -1.0, 0.0)


def round_(r: Reader, c: Call) -> Value:
    digits = c.whole("decimals") if "decimals" in c.arguments else 0
    factor = 10.0**digits
    return scaled(r, each(r, Round(), scaled(r, c.value("self"), factor, 0.0)), 1 / factor, 0.0)


def logarithm(base: float) -> Handler:
    """A logarithm by the natural one."""
    return lambda r, c: scaled(r, each(r, Log(), c.value("self")), 1 / math.log(base), 0.0)


def power_of(base: float) -> Handler:
    """A power by that of e."""
    return lambda r, c: each(r, Exp(), scaled(r, c.value("self"), math.log(base), 0.0))


def tangent(r: Reader, c: Call) -> Value:
    x = c.value("self")
    return joined(r, Div(), each(r, Sin(), x), each(r, Cos(), x))


def hyperbolic(sign: float) -> Handler:
    """Half the sum of e^x and e^-x, or half their difference: from e^x - 1, which keeps its digits near 0."""

    def handle(r: Reader, c: Call) -> Value:
        x = c.value("self")
        one, two = each(r, Expm1(), x), each(r, Expm1(), scaled(r, x, -1.0, 0.0))
        return scaled(r, joined(r, Add() if sign > 0 else Sub(), one, two), 0.5, 1.0 if sign > 0 else 0.0)

    return handle


def inverse_tangent(r: Reader, c: Call) -> Value:
    """atanh: half of log(1 + x) - log(1 - x)."""
    x = c.value("self")
    sides = [each(r, Log1p(), scaled(r, x, sign, 0.0)) for sign in (1.0, -1.0)]
    return scaled(r, joined(r, Sub(), *sides), 0.5, 0.0)


def hypotenuse(r: Reader, c: Call) -> Value:
    squares = [each(r, Pow(exponent=2.0), c.value(name)) for name in ("self", "other")]
    return each(r, Sqrt(), joined(r, Add(), *squares))


def logaddexp(r: Reader, c: Call) -> Value:
    """log(e^x + e^y) = x - log(sigmoid(x - y))."""
    x, y = c.value("self"), c.value("other")
    return joined(r, Sub(), x, each(r, LogSigmoid(), joined(r, Sub(), x, y)))


def cumsum(r: Reader, c: Call) -> Value:
    x = c.value("self")
    return r.emit(Cumsum(dim=x.axis(c.whole("dim"), "sums up along")), x, layout=x.layout)


TABLE: dict[str, Handler] = {
    "relu": plainly(Relu()),
    "relu6": plainly(Relu6()),
    "sigmoid": plainly(Sigmoid()),
    "tanh": plainly(Tanh()),
    "silu": plainly(Silu()),
    "selu": plainly(Selu()),
    "hardswish": plainly(Hardswish()),
    "hardsigmoid": plainly(Hardsigmoid()),
    "exp": plainly(Exp()),
    "log": plainly(Log()),
    "sqrt": plainly(Sqrt()),
    "rsqrt": plainly(Rsqrt()),
    "abs": plainly(Abs()),
    "neg": lambda r, c: scaled(r, c.value("self"), -1.0, 0.0),
    "square": plainly(Pow(exponent=2.0)),
    "reciprocal": plainly(Pow(exponent=-1.0)),
    "elu": elu,
    "celu": celu,
    "leaky_relu": leaky_relu,
    "gelu": gelu,
    "softplus": softplus,
    "mish": plainly(Mish()),
    "log_sigmoid": plainly(LogSigmoid()),
    "erf": plainly(Erf()),
    "sin": plainly(Sin()),
    "cos": plainly(Cos()),
    "prelu": prelu,
    "hardtanh": hardtanh,
    "threshold": threshold,
    "clamp": clamp,
    "clamp_min": clamp,
    "clamp_max": clamp,
    "lerp": lerp,
    **dict.fromkeys(("softmax", "_softmax"), softmax(Softmax)),
    **dict.fromkeys(("log_softmax", "_log_softmax"), softmax(LogSoftmax)),
    "glu": glu,
    "add": add,
    "sub": sub,
    "subtract": sub,
    "rsub": rsub,
    "mul": mul,
    "multiply": mul,
    "div": div,
    "divide": div,
    "true_divide": div,
    "pow": pow_,
    "maximum": extremum(Maximum()),
    "minimum": extremum(Minimum()),
    "floor": plainly(Floor()),
    "ceil": ceil,
    **dict.fromkeys(("trunc", "fix"), truncated),
    **dict.fromkeys(("round", "special_round"), round_),
    "floor_divide": rounded_quotient,
    "remainder": remainder("floor"),
    "fmod": remainder("trunc"),
    "log1p": plainly(Log1p()),
    "expm1": plainly(Expm1()),
    "log2": logarithm(2.0),
    "log10": logarithm(10.0),
    "exp2": power_of(2.0),
    "tan": tangent,
    "sinh": hyperbolic(-1.0),
    "cosh": hyperbolic(1.0),
    "atanh": inverse_tangent,
    "erfc": lambda r, c: scaled(r, each(r, Erf(), c.value("self")), -1.0, 1.0),
    "hypot": hypotenuse,
    "logaddexp": logaddexp,
    "cumsum": cumsum,
    "dropout": dropout,
    "feature_dropout": feature_dropout,
}
