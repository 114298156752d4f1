"""Calls that take a part of an axis: slices, pieces, fixed positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import fx

from growir.backends.torch_export.calls import Call
from growir.backends.torch_export.layout import permuted, reshaped
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Held, Layout, Unsupported, Value
from growir.ops import Select, Slice, Squeeze

Handler = Callable[[Reader, Call], Any]
Sizes = Sequence[int]


def pieces(r: Reader, x: Value, dim: int, sizes: Sizes) -> list[Value]:
    """Adjacent pieces of an axis."""
    starts = itertools.accumulate(sizes, initial=0)
    return [cut(r, x, dim, start, size) for start, size in zip(starts, sizes, strict=False)]


def cut(r: Reader, x: Value, dim: int, start: int, length: int) -> Value:
    """`length` positions of one of the model's axes."""
    axis = x.axis(dim, "cuts")
    if (start, length) == (0, x.shape.size(axis)):
        return x
    if length < 1:
        raise Unsupported("cuts out nothing; a graph has no empty axes")
    return r.emit(Slice(axis=axis, start=start, length=length), x, layout=x.layout)


def slice_(r: Reader, c: Call) -> Value:
    x = c.value("self")
    dim = x.dim(c.whole("dim"))
    start, end, step = (c.arguments.get(name) for name in ("start", "end", "step"))
    step = 1 if step is None else int(r.number(step))
    if x.is_batch(dim):
        if start in (None, 0) and r.batch.split(c.result.shape) == r.batch.split(c.shape("self")) and step == 1:
            return x
        raise Unsupported("takes a part of the batch; a graph treats each sample alike")
    bounds = range(*slice(r.number(start), r.number(end), step).indices(x.size(dim)))
    if step == 1:
        return cut(r, x, dim, bounds.start, len(bounds))
    return _positions(r, x, dim, list(bounds))


def narrow(r: Reader, c: Call) -> Value:
    x = c.value("self")
    return cut(r, x, c.whole("dim"), c.whole("start") % x.size(c.whole("dim")), c.whole("length"))


def select(r: Reader, c: Call) -> Value:
    x = c.value("self")
    dim = x.dim(c.whole("dim"))
    axis = x.axis(dim, "selects from")
    return _picked(r, x, axis, dim, c.whole("index") % x.shape.size(axis))


def _picked(r: Reader, x: Value, axis: int, dim: int, index: int) -> Value:
    one = cut(r, x, dim, index, 1)
    if not x.batched and x.rank == 1:
        return one  # one number has no axes in torch; in a graph it is (1,), and broadcast all the same
    found = r.emit(Squeeze(dim=axis), one)
    if not x.batched:
        return found
    return found.at(Layout(x.layout.place - (dim < x.layout.place), x.layout.outer, x.layout.inner))


def unbind(r: Reader, c: Call) -> tuple[Value, ...]:
    x = c.value("self")
    dim = x.dim(c.whole("dim"))
    axis = x.axis(dim, "unbinds")
    return tuple(_picked(r, x, axis, dim, k) for k in range(x.shape.size(axis)))


def split(r: Reader, c: Call) -> tuple[Value, ...]:
    """chunk, split and their like: the pieces that export reports."""
    x = c.value("self")
    dim = x.dim(c.whole("dim"))
    x.axis(dim, "splits")
    reported = cast("Sequence[torch.Tensor]", c.node.meta["val"])
    return tuple(pieces(r, x, dim, [int(r.number(part.shape[dim])) for part in reported]))


def _positions(r: Reader, x: Value, dim: int, indices: list[int]) -> Value:
    axis = x.axis(dim, "selects from")
    if not indices:
        raise Unsupported("selects nothing; a graph has no empty axes")
    if indices == list(range(x.shape.size(axis))):
        return x
    if indices == list(range(indices[0], indices[0] + len(indices))):
        return cut(r, x, dim, indices[0], len(indices))
    return r.emit(Select(axis=axis, indices=tuple(indices)), x, layout=x.layout)


def _constant_indices(c: Call, name: str) -> list[int]:
    held = c.held(name)
    if held is None or held.trained:
        raise Unsupported("takes positions that are computed from the inputs; growir selects fixed positions")
    return [int(k) for k in held.tensor.reshape(-1)]


def index_select(r: Reader, c: Call) -> Value:
    return _positions(r, c.value("self"), c.whole("dim"), _constant_indices(c, "index"))


def index(r: Reader, c: Call) -> Value:
    """x[..., constants, ...]: fixed positions of one axis, or of several adjacent ones taken together."""
    x = c.value("self")
    entries = cast("Sequence[fx.Node | None]", c.arguments["indices"])
    given: dict[int, torch.Tensor] = {}
    dim = 0
    for entry in entries:
        for positions in () if entry is None else _index_tensors(r.env[entry]):
            given[dim] = positions
            dim += 1
        dim += entry is None
    dims = list(given)
    if dims != list(range(dims[0], dims[0] + len(dims))):
        raise Unsupported("indexes axes that do not lie side by side; growir selects fixed positions of adjacent axes")
    # x[:, rows, columns] is x.flatten(1, 2)[:, rows * width + columns].
    sizes = [x.size(d) for d in dims]
    places = torch.zeros((), dtype=torch.int64)
    for positions, size in zip(given.values(), sizes, strict=True):
        places = places * size + positions % size
    if len(dims) > 1:
        shape = list(c.shape("self"))
        x = reshaped(r, x, [*shape[: dims[0]], math.prod(sizes), *shape[dims[-1] + 1 :]])
    if not places.numel():
        raise Unsupported("selects nothing; a graph has no empty axes")
    found = _positions(r, x, dims[0], [int(k) for k in places.reshape(-1)])
    return found if places.dim() == 1 else reshaped(r, found, c.result.shape)


def _index_tensors(item: object) -> tuple[torch.Tensor, ...]:
    """What an index says, as one tensor of positions for each axis that it covers: a mask covers all of its own."""
    if not isinstance(item, Held) or item.trained:
        raise Unsupported("takes positions that are computed from the inputs; growir selects fixed positions")
    if item.tensor.dtype in (torch.bool, torch.uint8):
        return item.tensor.nonzero(as_tuple=True)
    return (item.tensor,)


def unfold(r: Reader, c: Call) -> Value:
    """Windows of `size` positions along an axis, `step` apart, as a new last axis."""
    x, size, step = c.value("self"), c.whole("size"), c.whole("step")
    dim = x.dim(c.whole("dimension"))
    starts = range(0, x.size(dim) - size + 1, step)
    found = _positions(r, x, dim, [start + k for start in starts for k in range(size)])
    shape = list(c.shape("self"))
    windows = reshaped(r, found, [*shape[:dim], len(starts), size, *shape[dim + 1 :]])
    return permuted(r, windows, [*range(dim + 1), *range(dim + 2, len(shape) + 1), dim + 1])


def flip(r: Reader, c: Call) -> Value:
    x = c.value("self")
    for dim in c.ints("dims"):
        x = _positions(r, x, dim, list(range(x.size(dim)))[::-1])
    return x


TABLE: dict[str, Handler] = {
    "slice": slice_,
    "narrow": narrow,
    "select": select,
    "unbind": unbind,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split"), split),
    "index_select": index_select,
    "index": index,
    "flip": flip,
    "unfold": unfold,
}
