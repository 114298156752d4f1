"""Sums, means and extremes over axes in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from growir.backends.onnx_ir.scope import Attribute, Scope
from growir.ops import Var
from growir.ops.reduction import Reduction


def over(s: Scope, kind: str, axes: Sequence[int], what: str = "axes") -> tuple[list[str], dict[str, Attribute]]:
    """How a reduction is told its axes: an input, which ReduceSum takes since opset 13 and the others since 18."""
    if kind == "ReduceSum" or s.opset >= 18:
        return [s.integers(what, axes)], {}
    return [], {"axes": list(axes)}


def reduction(kind: str) -> Callable[[Scope, Reduction], None]:
    """The function of a reduction that ONNX has."""

    def spell(s: Scope, op: Reduction) -> None:
        inputs, attributes = over(s, kind, op.axes(s.shapes[0].rank))
        s.result(kind, s.x, *inputs, **attributes, keepdims=int(op.keepdim))

    return spell


def var(s: Scope, op: Var) -> None:
    axes = op.axes(s.shapes[0].rank)
    inputs, attributes = over(s, "ReduceMean", axes)
    centred = s.call("centred", "Sub", s.x, s.call("mean", "ReduceMean", s.x, *inputs, **attributes))
    square = s.call("square", "Mul", centred, centred)
    inputs, attributes = over(s, "ReduceSum", axes)
    total = s.call("total", "ReduceSum", square, *inputs, **attributes, keepdims=int(op.keepdim))
    s.result("Div", total, s.floats("count", float(op.count(s.shapes[0]) - op.correction)))
