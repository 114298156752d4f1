"""Pooling in ONNX.

ONNX's `ceil_mode` has meant different things to different versions and runtimes, so it is never written: growir knows
every size, and a window that runs over the edge becomes padding at the end.
"""

from __future__ import annotations

import math

import numpy as np

from growir.backends.onnx_ir.reductions import over
from growir.backends.onnx_ir.scope import Array, Attribute, Scope
from growir.ops.pool import AdaptivePool, AvgPool, MaxPool


def _tails(s: Scope, op: MaxPool | AvgPool) -> list[int]:
    """The padding behind the last position of each axis that the output size asks for."""
    tails: list[int] = []
    for k, (kernel, pad, step, space) in enumerate(zip(op.kernel(), op.pads(), op.steps(), op.spacing(), strict=True)):
        size, count = s.shapes[0].size(2 + k), s.shape.size(2 + k)
        tails.append(max(pad, (count - 1) * step + space * (kernel - 1) + 1 - size - pad))
    return tails


def max_pool(s: Scope, op: MaxPool) -> None:
    kernel, tails = op.kernel(), _tails(s, op)
    pads = [*op.pads(), *tails]
    x = s.x
    if any(tail >= size for tail, size in zip(tails, kernel)):
        # A dilated window can run over by more than the kernel's size, which ONNX Runtime refuses as padding.
        around = s.integers("around", [0, 0, *op.pads(), 0, 0, *tails])
        x = s.call("padded", "Pad", x, around, s.floats("lowest", -math.inf))
        pads = [0] * len(pads)
    s.result("MaxPool", x, kernel_shape=kernel, strides=op.steps(), pads=pads, dilations=op.spacing())


def avg_pool(s: Scope, op: AvgPool) -> None:
    kernel, divisor = op.kernel(), op.divisor()
    window: dict[str, Attribute] = {
        "kernel_shape": kernel,
        "strides": op.steps(),
        "pads": [*op.pads(), *_tails(s, op)],
    }
    counts_zeros = op.count_include_pad and op.padding != 0
    if divisor is None and not counts_zeros:
        s.result("AveragePool", s.x, **window)
        return
    area = math.prod(kernel)
    factors = np.array(area / divisor) if divisor is not None else area / _counts(s, op)
    if (factors == 1).all():
        s.result("AveragePool", s.x, **window, count_include_pad=1)
        return
    mean = s.call("mean", "AveragePool", s.x, **window, count_include_pad=1)
    s.result("Mul", mean, s.floats("factors", factors))


def _counts(s: Scope, op: AvgPool) -> Array:
    """How many positions each window counts by torch's rule: up to the padding's end, not beyond."""
    counts = np.ones(())
    for k, (kernel, pad, step) in enumerate(zip(op.kernel(), op.pads(), op.steps(), strict=True)):
        starts = np.arange(s.shape.size(2 + k)) * step
        whole = s.shapes[0].size(2 + k) + 2 * pad
        counts = np.multiply.outer(counts, np.minimum(starts + kernel, whole) - starts)
    return counts


def _even_cells(s: Scope, op: AdaptivePool) -> list[int] | None:
    """The size of a cell per axis where all cells are of one size, so that an ordinary pool does the same."""
    sizes = [s.shapes[0].size(2 + k) for k in range(s.shape.rank - 2)]
    if any(size % count for size, count in zip(sizes, op.cells())):
        return None
    return [size // count for size, count in zip(sizes, op.cells())]


def adaptive_avg_pool(s: Scope, op: AdaptivePool) -> None:
    kernel = _even_cells(s, op)
    if set(op.cells()) == {1}:
        s.result("GlobalAveragePool", s.x)
    elif kernel is not None:
        s.result("AveragePool", s.x, kernel_shape=kernel, strides=kernel)
    else:
        # The cells differ in size and overlap; a mean over them is linear along each axis. The product with the last
        # axis turns it to the front, so that after all of them the axes are in order again.
        value, axes = s.x, op.spatial
        turn = [0, 1, axes + 1, *range(2, axes + 1)]
        for k in reversed(range(axes)):
            means = s.floats(f"means_{k}", _averages(s.shapes[0].size(2 + k), op.cells()[k]).T)
            if axes == 1:
                s.result("MatMul", value, means)
                return
            value = s.call(f"mean_{k}", "MatMul", value, means)
            if k:
                value = s.call(f"turned_{k}", "Transpose", value, perm=turn)
        s.result("Transpose", value, perm=turn)


def adaptive_max_pool(s: Scope, op: AdaptivePool) -> None:
    kernel = _even_cells(s, op)
    if set(op.cells()) == {1}:
        s.result("GlobalMaxPool", s.x)
    elif kernel is not None:
        s.result("MaxPool", s.x, kernel_shape=kernel, strides=kernel)
    else:
        # The cells differ in size and overlap: each is gathered, a short one with its last position again.
        value = s.x
        for k in range(op.spatial):
            cells = s.matrix(f"cells_{k}", _cells(s.shapes[0].size(2 + k), op.cells()[k]))
            value = s.call(f"gathered_{k}", "Gather", value, cells, axis=2 + k)
            inputs, attributes = over(s, "ReduceMax", [3 + k], f"axis_{k}")
            if k < op.spatial - 1:
                value = s.call(f"max_{k}", "ReduceMax", value, *inputs, **attributes, keepdims=0)
            else:
                s.result("ReduceMax", value, *inputs, **attributes, keepdims=0)


def _bounds(size: int, cells: int) -> list[tuple[int, int]]:
    """Where each of torch's adaptive cells starts and ends."""
    return [(cell * size // cells, -(-(cell + 1) * size // cells)) for cell in range(cells)]


def _cells(size: int, cells: int) -> list[list[int]]:
    """The positions of each cell, the last one repeated so that all are of one length."""
    longest = max(end - start for start, end in _bounds(size, cells))
    return [[min(start + k, end - 1) for k in range(longest)] for start, end in _bounds(size, cells)]


def _averages(size: int, cells: int) -> Array:
    """The matrix (cells, size) that takes the mean over each cell."""
    matrix = np.zeros((cells, size))
    for cell, (start, end) in enumerate(_bounds(size, cells)):
        matrix[cell, start:end] = 1 / (end - start)
    return matrix
