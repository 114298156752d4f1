"""Operators that move numbers without changing them, in ONNX."""

from __future__ import annotations

from growir import ops
from growir.backends.onnx_ir.scope import Scope, Symbols


def reshape(s: Scope, op: ops.Op) -> None:
    """Whatever keeps the numbers in their order."""
    # 0 copies the batch. Every other size is known, so that shape inference sees it too, but for open ones.
    sizes = sizes_of(s.shape, s.symbols[0], s.symbols[-1])
    assert sizes is not None, "an axis is open only where all that it passes can be written"
    s.result("Reshape", s.x, s.integers("shape", sizes))


def sizes_of(shape: ops.Shape, before: Symbols, after: Symbols) -> list[int] | None:
    """The sizes to reshape to: 0 copies an axis that keeps its place, one may be inferred; None for more open ones."""
    kept = [
        dim == ops.BATCH or (symbol is not None and k < len(before) and before[k] == symbol)
        for k, (dim, symbol) in enumerate(zip(shape.dims, after, strict=True))
    ]
    inferred = [k for k, symbol in enumerate(after) if symbol is not None and not kept[k]]
    if len(inferred) > 1:
        return None
    return [0 if kept[k] else -1 if k in inferred else int(dim) for k, dim in enumerate(shape.dims)]


def slice_(s: Scope, op: ops.Slice) -> None:
    bounds = s.integers("start", [op.start]), s.integers("end", [op.start + op.length])
    s.result("Slice", s.x, *bounds, s.integers("axis", [op.axis]))


def first(s: Scope, op: ops.First) -> None:
    axis = op.of % s.shapes[1].rank
    count = s.call("count", "Shape", s.inputs[1], start=axis, end=axis + 1)
    ends = count if len(op.axes) == 1 else s.call("ends", "Concat", *[count] * len(op.axes), axis=0)
    s.result("Slice", s.x, s.integers("starts", [0] * len(op.axes)), ends, s.integers("axes", op.axes))


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
        sizes = [1 if dim == ops.BATCH or open_ else dim for dim, open_ in zip(s.shape.dims, s.symbols[-1])]
        s.result("Expand", s.x, s.integers("shape", sizes))
        return
    batch = s.call("batch", "Shape", s.inputs[1], start=0, end=1)
    rest = s.integers("sizes", [1 if open_ else n for n, open_ in zip(s.shape.sizes, s.symbols[-1][1:])])
    s.result("Expand", s.x, s.call("shape", "Concat", batch, rest, axis=0))
