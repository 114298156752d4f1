"""Functions of one number that are no activations, in ONNX."""

from __future__ import annotations

from onnx import TensorProto

from growir import ops
from growir.backends.onnx_ir.scope import Scope


def affine(s: Scope, op: ops.Affine) -> None:
    if op.shift == 0:
        s.result("Mul", s.x, s.floats("scale", op.scale))
        return
    scaled = s.x if op.scale == 1 else s.call("scaled", "Mul", s.x, s.floats("scale", op.scale))
    s.result("Add", scaled, s.floats("shift", op.shift))


def clamp(s: Scope, op: ops.Clamp) -> None:
    least = "" if op.min is None else s.floats("least", op.min)
    most = [] if op.max is None else [s.floats("most", op.max)]
    s.result("Clip", s.x, least, *most)


def power(s: Scope, op: ops.Pow) -> None:
    s.result("Pow", s.x, s.inputs[1] if op.exponent is None else s.floats("exponent", op.exponent))


def expm1(s: Scope, op: ops.Expm1) -> None:
    # e^x - 1 = 2 sinh(x / 2) e^(x / 2), which keeps its digits near 0.
    half = s.call("half_x", "Mul", s.x, s.floats("half", 0.5))
    odd = s.call("odd", "Mul", s.call("sinh", "Sinh", half), s.floats("two", 2.0))
    s.result("Mul", odd, s.call("even", "Exp", half))


def log1p(s: Scope, op: ops.Log1p) -> None:
    s.result("Log", s.call("above_one", "Add", s.x, s.floats("one", 1.0)))


def cast(s: Scope, op: ops.Cast) -> None:
    s.result("Cast", s.x, to=TensorProto.INT64 if op.dtype == "int64" else TensorProto.FLOAT)


def cumsum(s: Scope, op: ops.Cumsum) -> None:
    s.result("CumSum", s.x, s.integers("axis", [op.dim]))


def rsqrt(s: Scope, op: ops.Rsqrt) -> None:
    s.result("Reciprocal", s.call("root", "Sqrt", s.x))
