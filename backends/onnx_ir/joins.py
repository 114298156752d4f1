"""Sums, products and concatenation in ONNX."""

from __future__ import annotations

from growir import ops
from growir.backends.onnx_ir.scope import Scope
from growir.backends.onnx_ir.table import spells


def _fold(s: Scope, kind: str) -> None:
    """Join the operands two by two, from the left, as torch adds them."""
    first, *rest = s.inputs
    if not rest:
        s.result("Identity", first)
        return
    for k, operand in enumerate(rest[:-1], start=2):
        first = s.call(f"first_{k}", kind, first, operand)
    s.result(kind, first, rest[-1])


@spells(ops.Add)
def add(s: Scope, op: ops.Add) -> None:
    _fold(s, "Add")


@spells(ops.Mul)
def mul(s: Scope, op: ops.Mul) -> None:
    _fold(s, "Mul")


@spells(ops.Concat)
def concat(s: Scope, op: ops.Concat) -> None:
    s.result("Concat", *s.inputs, axis=op.dim)
