"""Activations and softmax in ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable

from growir import ops
from growir.backends.onnx_ir.scope import Scope


def plain(kind: str) -> Callable[[Scope, ops.Op], None]:
    """The function of an operator that is one ONNX operator on one value."""

    def spell(s: Scope, op: ops.Op) -> None:
        s.result(kind, s.x)

    return spell


def leaky_relu(s: Scope, op: ops.LeakyRelu) -> None:
    s.result("LeakyRelu", s.x, alpha=op.negative_slope)


def elu(s: Scope, op: ops.Elu) -> None:
    s.result("Elu", s.x, alpha=op.alpha)


def gelu(s: Scope, op: ops.Gelu) -> None:
    if s.opset >= 20:
        s.result("Gelu", s.x, approximate=op.approximate)
        return
    one = s.floats("one", 1.0)
    if op.approximate == "tanh":
        square = s.call("square", "Mul", s.x, s.x)
        slope = s.call("slope", "Add", s.call("bend", "Mul", square, s.floats("cubic", 0.044715)), one)
        inner = s.call("inner_x", "Mul", s.x, slope)
        odd = s.call("tanh", "Tanh", s.call("scaled", "Mul", inner, s.floats("scale", math.sqrt(2 / math.pi))))
    else:
        odd = s.call("erf", "Erf", s.call("scaled", "Mul", s.x, s.floats("scale", math.sqrt(0.5))))
    half = s.call("half_x", "Mul", s.x, s.floats("half", 0.5))
    s.result("Mul", half, s.call("gate", "Add", odd, one))


def silu(s: Scope, op: ops.Silu) -> None:
    s.result("Mul", s.x, s.call("gate", "Sigmoid", s.x))


def softplus(s: Scope, op: ops.Softplus) -> None:
    # Past 20 the curve is linear to float32's last bit (log1p(exp(-20)) = 2e-9), so the threshold says nothing there.
    bent = op.threshold < 20
    if op.beta == 1 and not bent:
        s.result("Softplus", s.x)
        return
    beta = s.floats("beta", op.beta)
    scaled = s.call("scaled", "Mul", s.x, beta)
    curve = s.call("curve", "Softplus", scaled)
    if not bent:
        s.result("Div", curve, beta)
        return
    unscaled = s.call("unscaled", "Div", curve, beta)
    beyond = s.call("beyond", "Greater", scaled, s.floats("threshold", op.threshold))
    s.result("Where", beyond, s.x, unscaled)


def hardsigmoid(s: Scope, op: ops.Hardsigmoid) -> None:
    s.result("HardSigmoid", s.x, alpha=1 / 6, beta=0.5)


def relu6(s: Scope, op: ops.Relu6) -> None:
    s.result("Clip", s.x, s.floats("least", 0.0), s.floats("most", 6.0))


def gaussian(s: Scope, op: ops.Gaussian) -> None:
    square = s.call("square", "Mul", s.x, s.x)
    s.result("Exp", s.call("exponent", "Mul", square, s.floats("minus_half", -0.5)))


def prelu(s: Scope, op: ops.Prelu) -> None:
    # One slope for all broadcasts by itself; one per channel must meet axis 1.
    trailing = s.shape.rank - 2 if op.num_parameters > 1 else 0
    s.result("PRelu", s.x, s.column("weight", trailing))


def celu(s: Scope, op: ops.Celu) -> None:
    s.result("Celu", s.x, alpha=op.alpha)


def mish(s: Scope, op: ops.Mish) -> None:
    if s.opset >= 18:
        s.result("Mish", s.x)
    else:
        s.result("Mul", s.x, s.call("gate", "Tanh", s.call("curve", "Softplus", s.x)))


def log_sigmoid(s: Scope, op: ops.LogSigmoid) -> None:
    s.result("Neg", s.call("curve", "Softplus", s.call("negative", "Neg", s.x)))


def threshold(s: Scope, op: ops.Threshold) -> None:
    beyond = s.call("beyond", "Greater", s.x, s.floats("threshold", op.threshold))
    s.result("Where", beyond, s.x, s.floats("value", op.value))


def softmax(s: Scope, op: ops.Softmax) -> None:
    s.result("Softmax", s.x, axis=op.dim)


def log_softmax(s: Scope, op: ops.LogSoftmax) -> None:
    s.result("LogSoftmax", s.x, axis=op.dim)
