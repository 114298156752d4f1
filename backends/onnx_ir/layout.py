"""Operators that move numbers without changing them, in ONNX."""

from __future__ import annotations

from growir import ops
from growir.backends.onnx_ir.scope import Scope


def reshape(s: Scope, op: ops.Op) -> None:
    """Whatever keeps the numbers in their order."""
    # 0 copies the batch. Every other size is known, so that shape inference sees it too.
    sizes = [0 if dim == ops.BATCH else dim for dim in s.shape.dims]
    s.result("Reshape", s.x, s.integers("shape", sizes))


def slice_(s: Scope, op: ops.Slice) -> None:
    bounds = s.integers("start", [op.start]), s.integers("end", [op.start + op.length])
    s.result("Slice", s.x, *bounds, s.integers("axis", [op.axis]))


def select(s: Scope, op: ops.Select) -> None:
    s.result("Gather", s.x, s.integers("indices", op.indices), axis=op.axis)


def permute(s: Scope, op: ops.Permute) -> None:
    s.result("Transpose", s.x, perm=op.dims)


MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def pad(s: Scope, op: ops.Pad) -> None:
    x = s.shapes[0]
    amounts = [op.amounts(axis, x.rank) for axis in range(x.rank)]
    if op.mode == "circular":
        # ONNX wraps from opset 19 on only, and Gather says the same in every version.
        axes = [axis for axis, around in enumerate(amounts) if any(around)]
        value = s.x
        for axis in axes[:-1]:
            value = s.call(f"around_{axis}", "Gather", value, _around(s, axis, amounts[axis]), axis=axis)
        if axes:
            s.result("Gather", value, _around(s, axes[-1], amounts[axes[-1]]), axis=axes[-1])
        else:
            s.result("Identity", value)
        return
    pads = s.integers("pads", [before for before, _ in amounts] + [behind for _, behind in amounts])
    filling = [s.floats("value", op.value)] if op.mode == "constant" and op.value else []
    s.result("Pad", s.x, pads, *filling, mode=MODES[op.mode])


def _around(s: Scope, axis: int, amounts: tuple[int, int]) -> str:
    size = s.shapes[0].size(axis)
    return s.integers(f"positions_{axis}", [k % size for k in range(-amounts[0], size + amounts[1])])


def expand(s: Scope, op: ops.Expand) -> None:
    if len(s.inputs) == 1:
        # 1 keeps an axis as it is, the batch too.
        sizes = [1 if dim == ops.BATCH else dim for dim in s.shape.dims]
        s.result("Expand", s.x, s.integers("shape", sizes))
        return
    batch = s.call("batch", "Shape", s.inputs[1], start=0, end=1)
    rest = s.integers("sizes", s.shape.sizes)
    s.result("Expand", s.x, s.call("shape", "Concat", batch, rest, axis=0))
