"""Normalisation in ONNX, in its inference form."""

from __future__ import annotations

import numpy as np

from growir import ops
from growir.backends.onnx_ir.reductions import over
from growir.backends.onnx_ir.scope import Array, Attribute, Scope


def batch_norm(s: Scope, op: ops.BatchNorm) -> None:
    if not op.track_running_stats:
        _batch_statistics(s, op)
        return
    _kept_statistics(s, op)


def _kept_statistics(s: Scope, op: ops.BatchNorm | ops.InstanceNorm) -> None:
    kept = s.param("running_mean"), s.param("running_var")
    s.result("BatchNormalization", s.x, *_scale_and_shift(s, op.affine), *kept, epsilon=op.eps)


def _scale_and_shift(s: Scope, affine: bool) -> tuple[str, str]:
    """A scale and an offset for each channel, which ONNX demands."""
    if affine:
        return s.param("weight"), s.param("bias")
    width = s.shape.size(1)
    return s.floats("scale", np.ones(width)), s.floats("shift", np.zeros(width))


def _scaled_and_shifted(s: Scope, normal: str) -> None:
    """The result: a normalised value times the weight plus the bias of each channel."""
    trailing = s.shape.rank - 2
    scaled = s.call("scaled", "Mul", normal, s.column("weight", trailing))
    s.result("Add", scaled, s.column("bias", trailing))


def instance_norm(s: Scope, op: ops.InstanceNorm) -> None:
    if op.track_running_stats:
        _kept_statistics(s, op)
    else:
        s.result("InstanceNormalization", s.x, *_scale_and_shift(s, op.affine), epsilon=op.eps)


def group_norm(s: Scope, op: ops.GroupNorm) -> None:
    if s.opset >= 21:  # before, it took one scale per group
        scale = _scale_and_shift(s, op.affine)
        s.result("GroupNormalization", s.x, *scale, num_groups=op.num_groups, epsilon=op.eps)
        return
    # A group is one channel with more positions.
    rows = s.call("rows", "Reshape", s.x, s.integers("row_shape", [0, op.num_groups, -1]))
    ones = s.floats("ones", np.ones(op.num_groups)), s.floats("zeros", np.zeros(op.num_groups))
    normal = s.call("normal", "InstanceNormalization", rows, *ones, epsilon=op.eps)
    shape = s.integers("shape", [0, *s.shape.sizes])
    if not op.affine:
        s.result("Reshape", normal, shape)
        return
    _scaled_and_shifted(s, s.call("shaped", "Reshape", normal, shape))


def _batch_statistics(s: Scope, op: ops.BatchNorm) -> None:
    """Normalise by the batch at hand, which is what torch does in eval mode too when nothing was tracked."""
    centred = s.call("centred", "Sub", s.x, _batch_mean(s, "mean", s.x))
    variance = _batch_mean(s, "variance", s.call("square", "Mul", centred, centred))
    deviation = s.call("deviation", "Sqrt", s.call("floored", "Add", variance, s.floats("eps", op.eps)))
    if not op.affine:
        s.result("Div", centred, deviation)
        return
    _scaled_and_shifted(s, s.call("normal", "Div", centred, deviation))


def _batch_mean(s: Scope, what: str, value: str) -> str:
    """The mean of every channel over batch and positions."""
    axes = [axis for axis in range(s.shape.rank) if axis != 1]
    inputs, attributes = over(s, "ReduceMean", axes)
    return s.call(what, "ReduceMean", value, *inputs, **attributes)


def layer_norm(s: Scope, op: ops.LayerNorm) -> None:
    if op.elementwise_affine:
        affine = [s.param("weight"), *([s.param("bias")] if op.bias else [])]
    else:
        affine = [s.floats("scale", np.ones(s.shape.sizes[-op.dims :]))]  # ONNX demands one
    s.result("LayerNormalization", s.x, *affine, axis=-op.dims, epsilon=op.eps)


def rms_norm(s: Scope, op: ops.RmsNorm) -> None:
    eps = float(np.finfo(np.float32).eps) if op.eps is None else op.eps
    if s.opset >= 23:
        scale = s.param("weight") if op.elementwise_affine else s.floats("scale", np.ones(s.shape.sizes[-op.dims :]))
        s.result("RMSNormalization", s.x, scale, axis=-op.dims, epsilon=eps)
        return
    inputs, attributes = over(s, "ReduceMean", list(range(s.shape.rank - op.dims, s.shape.rank)))
    mean = s.call("mean", "ReduceMean", s.call("square", "Mul", s.x, s.x), *inputs, **attributes)
    root = s.call("root", "Sqrt", s.call("floored", "Add", mean, s.floats("eps", eps)))
    if op.elementwise_affine:
        s.result("Mul", s.call("normal", "Div", s.x, root), s.param("weight"))
    else:
        s.result("Div", s.x, root)


def local_response_norm(s: Scope, op: ops.LocalResponseNorm) -> None:
    if op.size % 2 and s.shape.rank == 4:
        s.result("LRN", s.x, size=op.size, alpha=op.alpha, beta=op.beta, bias=op.k)
        return
    # An even window leans to the other side in ONNX. The mean of the squares is a pool along the channels.
    square = s.call("square", "Mul", s.x, s.x)
    plane = s.call("plane", "Reshape", square, s.integers("plane_shape", [0, 1, s.shape.size(1), -1]))
    window: dict[str, Attribute] = {
        "kernel_shape": [op.size, 1],
        "pads": [op.size // 2, 0, (op.size - 1) // 2, 0],
        "count_include_pad": 1,
    }
    mean = s.call("mean", "AveragePool", plane, **window)
    shaped = s.call("shaped", "Reshape", mean, s.integers("shape", [0, *s.shape.sizes]))
    inner = s.call("inner", "Add", s.call("scaled", "Mul", shaped, s.floats("alpha", op.alpha)), s.floats("k", op.k))
    s.result("Div", s.x, s.call("divisor", "Pow", inner, s.floats("beta", op.beta)))


def standardise(s: Scope, op: ops.Standardise) -> None:
    if op.inverse:
        s.result("Add", s.call("scaled", "Mul", s.x, s.param("std")), s.param("mean"))
        return
    centred = s.call("centred", "Sub", s.x, s.param("mean"))
    s.result("Mul", centred, s.floats("reciprocal", _reciprocal(s.array("std"), op.eps)))


def _reciprocal(std: Array, eps: float) -> Array:
    """1 / std, and 0 where an entry counts as constant."""
    # The comparison runs in the array's own precision, as it does in torch: both must drop the same entries.
    alive = std > std.max() * std.dtype.type(eps)
    exact = std.astype(np.float64)  # 1 / std may lie beyond float16
    return np.divide(1.0, exact, out=np.zeros_like(exact), where=alive)
