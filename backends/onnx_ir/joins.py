"""Sums, products and concatenation in ONNX."""

from __future__ import annotations

from collections.abc import Callable

from onnx import TensorProto

from growir import ops
from growir.backends.onnx_ir.scope import Scope


def fold(kind: str) -> Callable[[Scope, ops.Op], None]:
    """The function of an operator that joins its operands two by two, from the left as torch does."""

    def spell(s: Scope, op: ops.Op) -> None:
        left, *rest = s.inputs
        if not rest:
            s.result("Identity", left)
            return
        for k, operand in enumerate(rest[:-1], start=2):
            left = s.call(f"first_{k}", kind, left, operand)
        s.result(kind, left, rest[-1])

    return spell


def compared(kind: str) -> Callable[[Scope, ops.Op], None]:
    """The function of an operator that is 1 where something holds of two numbers."""

    def spell(s: Scope, op: ops.Op) -> None:
        s.result("Cast", s.call("holds", kind, *s.inputs), to=TensorProto.FLOAT)

    return spell


def where(s: Scope, op: ops.Where) -> None:
    s.result("Where", s.call("chosen", "Cast", s.x, to=TensorProto.BOOL), *s.inputs[1:])


def concat(s: Scope, op: ops.Concat) -> None:
    s.result("Concat", *s.inputs, axis=op.dim)
