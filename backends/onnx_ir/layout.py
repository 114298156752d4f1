"""Operators that move numbers without changing them, in ONNX."""

from __future__ import annotations

from growir import ops
from growir.backends.onnx_ir.scope import Scope


def reshape(s: Scope, op: ops.Reshape | ops.Flatten) -> None:
    # 0 copies the batch. Every other size is known, so that shape inference sees it too.
    sizes = [0 if dim == ops.BATCH else dim for dim in s.shape.dims]
    s.result("Reshape", s.x, s.integers("shape", sizes))


def slice_(s: Scope, op: ops.Slice) -> None:
    bounds = s.integers("start", [op.start]), s.integers("end", [op.start + op.length])
    s.result("Slice", s.x, *bounds, s.integers("axis", [op.axis]))


def select(s: Scope, op: ops.Select) -> None:
    s.result("Gather", s.x, s.integers("indices", op.indices), axis=op.axis)
