"""Windows of images as columns, and columns that do not overlap put back: torch's unfold and fold of (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable

from growir.backends.torch_export.calls import Call
from growir.backends.torch_export.layout import framed, row_by_row
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Unsupported, Value
from growir.ops import Pad, Permute, Select

Handler = Callable[[Reader, Call], Value]


def im2col(r: Reader, c: Call) -> Value:
    """(N, C, H, W) to (N, C kh kw, places): at each place the window's numbers, those of a channel side by side."""
    x = c.value("self")
    if x.rank != 4 or framed(x):
        raise Unsupported("makes columns of what is no (N, C, H, W)")
    pads = _two(c, "padding")
    if any(pads):
        x = r.emit(Pad(padding=(pads[1], pads[1], pads[0], pads[0])), x)
    channels = x.shape.sizes[0]
    kernel, counts = _two(c, "kernel_size"), [0, 0]
    for k in (1, 0):  # the last axis first, so that the axes before it keep their places
        size, step, gap = x.shape.sizes[1 + k], _two(c, "stride")[k], _two(c, "dilation")[k]
        counts[k] = (size - gap * (kernel[k] - 1) - 1) // step + 1
        at = tuple(place * step + tap * gap for tap in range(kernel[k]) for place in range(counts[k]))
        picked = x if at == tuple(range(size)) else r.emit(Select(axis=2 + k, indices=at), x)
        sizes = [*x.shape.sizes[: 1 + k], kernel[k], counts[k], *x.shape.sizes[2 + k :]]
        x = row_by_row(r, picked, sizes, -1)
    turned = r.emit(Permute(dims=(0, 1, 2, 4, 3, 5)), x)
    return row_by_row(r, turned, (channels * kernel[0] * kernel[1], counts[0] * counts[1]), -1)


def col2im(r: Reader, c: Call) -> Value:
    """(N, C kh kw, places) to (N, C, H, W), where each pixel stands in one window."""
    x = c.value("self")
    kernel, size = _two(c, "kernel_size"), _two(c, "output_size")
    alone = _two(c, "stride") == kernel and _two(c, "padding") == [0, 0] and _two(c, "dilation") == [1, 1]
    if not alone or size[0] % kernel[0] or size[1] % kernel[1]:
        raise Unsupported("sums up windows that overlap; a graph puts together those that do not")
    if x.rank != 3 or framed(x):
        raise Unsupported("makes an image of what is no (N, C kh kw, places)")
    channels = x.shape.sizes[0] // (kernel[0] * kernel[1])
    high, wide = size[0] // kernel[0], size[1] // kernel[1]
    parts = row_by_row(r, x, (channels, *kernel, high, wide), -1)
    turned = r.emit(Permute(dims=(0, 1, 4, 2, 5, 3)), parts)
    return row_by_row(r, turned, (channels, *size), -1)


def _two(c: Call, name: str) -> list[int]:
    """A size for each axis; one given stands for both."""
    found = c.ints(name)
    return found * 2 if len(found) == 1 else found


TABLE: dict[str, Handler] = {"im2col": im2col, "col2im": col2im}
