"""Functions of one number that are no activations, in ONNX."""

from __future__ import annotations

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
    s.result("Pow", s.x, s.floats("exponent", op.exponent))


def rsqrt(s: Scope, op: ops.Rsqrt) -> None:
    s.result("Reciprocal", s.call("root", "Sqrt", s.x))
