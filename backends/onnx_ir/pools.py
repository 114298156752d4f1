"""Pooling in ONNX.

ONNX's `ceil_mode` has meant different things to different versions and runtimes, so it is never written: growir knows
every size, and a window that runs over the edge becomes padding at the end.
"""

from __future__ import annotations

import math

import numpy as np

from growir import ops
from growir.backends.onnx_ir.scope import Array, Attribute, Scope
from growir.ops.base import pair


def _tails(s: Scope, op: ops.MaxPool2d | ops.AvgPool2d) -> list[int]:
    """The padding behind the last row and column that the output size asks for."""
    tails: list[int] = []
    for k in (0, 1):
        size, count = s.shapes[0].size(2 + k), s.shape.size(2 + k)
        span = op.spacing()[k] * (pair(op.kernel_size)[k] - 1) + 1
        pad = pair(op.padding)[k]
        tails.append(max(pad, (count - 1) * op.steps()[k] + span - size - pad))
    return tails


def max_pool2d(s: Scope, op: ops.MaxPool2d) -> None:
    kernel, tails = pair(op.kernel_size), _tails(s, op)
    pads = [*pair(op.padding), *tails]
    x = s.x
    if any(tail >= size for tail, size in zip(tails, kernel)):
        # A dilated window can run over by more than the kernel's size, which ONNX Runtime refuses as padding.
        around = s.integers("around", [0, 0, *pads[:2], 0, 0, *pads[2:]])
        x = s.call("padded", "Pad", x, around, s.floats("lowest", -math.inf))
        pads = [0, 0, 0, 0]
    s.result("MaxPool", x, kernel_shape=kernel, strides=op.steps(), pads=pads, dilations=pair(op.dilation))


def avg_pool2d(s: Scope, op: ops.AvgPool2d) -> None:
    tails = _tails(s, op)
    window: dict[str, Attribute] = {
        "kernel_shape": pair(op.kernel_size),
        "strides": op.steps(),
        "pads": [*pair(op.padding), *tails],
    }
    counts_zeros = op.count_include_pad and op.padding != 0
    if op.divisor_override is None and not counts_zeros:
        s.result("AveragePool", s.x, **window)
        return
    area = math.prod(pair(op.kernel_size))
    if op.divisor_override is not None:
        factors = np.array(area / op.divisor_override)
    else:
        factors = area / np.outer(*_counts(s, op))
    if (factors == 1).all():
        s.result("AveragePool", s.x, **window, count_include_pad=1)
        return
    mean = s.call("mean", "AveragePool", s.x, **window, count_include_pad=1)
    s.result("Mul", mean, s.floats("factors", factors))


def _counts(s: Scope, op: ops.AvgPool2d) -> list[Array]:
    """How many rows and columns each window counts by torch's rule: up to the padding's end, not beyond."""
    counts: list[Array] = []
    for k in (0, 1):
        starts = np.arange(s.shape.size(2 + k)) * op.steps()[k]
        whole = s.shapes[0].size(2 + k) + 2 * pair(op.padding)[k]
        counts.append(np.minimum(starts + pair(op.kernel_size)[k], whole) - starts)
    return counts


def adaptive_avg_pool2d(s: Scope, op: ops.AdaptiveAvgPool2d) -> None:
    sizes, cells = s.shapes[0].sizes[-2:], pair(op.output_size)
    if cells == (1, 1):
        s.result("GlobalAveragePool", s.x)
    elif not any(size % count for size, count in zip(sizes, cells)):
        kernel = [size // count for size, count in zip(sizes, cells)]
        s.result("AveragePool", s.x, kernel_shape=kernel, strides=kernel)
    else:
        # The cells differ in size and overlap; a mean over them is linear along each axis.
        rows, columns = (_averages(size, count) for size, count in zip(sizes, cells))
        across = s.call("across", "MatMul", s.x, s.floats("columns", columns.T))
        s.result("MatMul", s.floats("rows", rows), across)


def _averages(size: int, cells: int) -> Array:
    """The matrix (cells, size) that takes the mean over each of torch's adaptive cells."""
    matrix = np.zeros((cells, size))
    for cell in range(cells):
        start, end = cell * size // cells, -(-(cell + 1) * size // cells)
        matrix[cell, start:end] = 1 / (end - start)
    return matrix
