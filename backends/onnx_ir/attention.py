"""Products of two values and attention in ONNX.

ONNX has an Attention from opset 23 on; the steps are the same in every version.
"""

from __future__ import annotations

import math

from growir import ops
from growir.backends.onnx_ir.scope import Scope


def attention(s: Scope, op: ops.Attention) -> None:
    q, k, v, *mask = s.inputs
    rank = s.shape.rank
    turned = s.call("keys", "Transpose", k, perm=[*range(rank - 2), rank - 1, rank - 2])
    scaled = s.call("queries", "Mul", q, s.floats("scale", op.factor(s.shapes[0])))
    scores = s.call("scores", "MatMul", scaled, turned)
    if op.is_causal:
        # Worked out from two lists of places: a stored mask would be as large as the scores.
        rows = s.matrix("rows", [[place] for place in range(s.shapes[0].size(-2))])
        columns = s.integers("columns", range(s.shapes[1].size(-2)))
        visible = s.call("visible", "GreaterOrEqual", rows, columns)
        scores = s.call("masked", "Where", visible, scores, s.floats("hidden", -math.inf))
    elif mask:
        scores = s.call("masked", "Add", scores, mask[0])
    s.result("MatMul", s.call("shares", "Softmax", scores, axis=-1), v)
