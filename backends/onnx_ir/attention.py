"""Products of two values and attention in ONNX.

ONNX has an Attention from opset 23 on; the steps are the same in every version.
"""

from __future__ import annotations

import math

from onnx import TensorProto

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
        if s.symbols[0][-2] is None and s.symbols[1][-2] is None:
            rows = s.matrix("rows", [[place] for place in range(s.shapes[0].size(-2))])
            columns = s.integers("columns", range(s.shapes[1].size(-2)))
        else:
            axis = s.integers("rows_axis", [1])
            rows, columns = s.call("rows", "Unsqueeze", _places(s, 0, "row"), axis), _places(s, 1, "column")
        visible = s.call("visible", "GreaterOrEqual", rows, columns)
        scores = s.call("masked", "Where", visible, scores, s.floats("hidden", -math.inf))
    elif mask:
        if op.mask == "seen":
            _of_seen(s, scores, mask[0], v)
            return
        scores = s.call("masked", "Add", scores, mask[0])
    s.result("MatMul", s.call("shares", "Softmax", scores, axis=-1), v)


def _of_seen(s: Scope, scores: str, mask: str, v: str) -> None:
    """The keys that are seen alone. A finite number hides the others, so that a row without any is zeros and no NaN."""
    seen = s.call("seen", "Cast", mask, to=TensorProto.BOOL)
    masked = s.call("masked", "Where", seen, scores, s.floats("hidden", -1e30))
    shares = s.call("shares", "Softmax", masked, axis=-1)
    s.result("MatMul", s.call("seen_shares", "Where", seen, shares, s.floats("nothing", 0.0)), v)


def _places(s: Scope, given: int, what: str) -> str:
    """The numbers of the tokens of queries or keys, 0, 1, 2 and so on."""
    if s.symbols[given][-2] is None:
        return s.integers(f"{what}_places", range(s.shapes[given].size(-2)))
    count = s.call(f"{what}_count", "Shape", s.inputs[given], start=-2, end=-1)
    end = s.call(f"{what}_end", "Squeeze", count, s.integers(f"{what}_axis", [0]))
    return s.call(f"{what}_places", "Range", s.integer(f"{what}_start", 0), end, s.integer(f"{what}_step", 1))
