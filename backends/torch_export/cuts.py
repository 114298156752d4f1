"""Calls that take a part of an axis: slices, pieces, fixed positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import fx

from growir.backends.torch_export.calls import Call, tensor_of
from growir.backends.torch_export.layout import permuted, reshaped, row_by_row
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Held, Layout, Spread, Unsupported, Value, Varied
from growir.ops import Affine, Equal, Greater, MatMul, Mul, Permute, Select, Slice, Squeeze, Sum, Unsqueeze, Where

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
    if entries and entries[0] is not None and isinstance(r.env[entries[0]], Varied):
        return _of_each_sample(r, c, x, entries)
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


def _of_each_sample(r: Reader, c: Call, x: Value, entries: Sequence[fx.Node | None]) -> Value:
    """x[samples, ...], with the numbers of the samples first: something of each sample.

    The other indices are fixed, as in a mask of tokens that is laid along the keys, seen[samples[:, None], keys[None]],
    or one is computed, as where a token stands that says what the text comes to, h[samples, last].
    """
    rank = max(tensor_of(entry).dim() for entry in entries if entry is not None)
    numbers = cast(Varied, r.env[cast(fx.Node, entries[0])])
    own = numbers.numbers + rank - tensor_of(cast(fx.Node, entries[0])).dim()
    others = entries[1:]
    if None in others or own or not x.layout.plain or not x.batched:
        raise Unsupported("indexes by the number of each sample, but not the first axes alone, side by side")
    items = [r.env[cast(fx.Node, entry)] for entry in others]
    computed = [item for item in items if isinstance(item, Value)]
    if len(items) == 1 and len(computed) == 1:
        return reshaped(r, taken(r, x, computed[0]), c.result.shape)
    if computed:
        raise Unsupported("takes positions of several axes that are computed from the inputs")
    sizes = [x.size(1 + k) for k in range(len(items))]
    places = torch.zeros((1,) * rank, dtype=torch.int64)
    for item, size in zip(items, sizes, strict=True):
        if not isinstance(item, Held) or item.trained or item.tensor.is_floating_point():
            raise Unsupported("indexes by what is no fixed positions")
        (positions,) = _index_tensors(item)
        places = places * size + positions % size
    flat = reshaped(r, x, [c.shape("self")[0], math.prod(sizes), *c.shape("self")[1 + len(sizes) :]])
    return reshaped(r, _positions(r, flat, 1, [int(k) for k in places.reshape(-1)]), c.result.shape)


def taken(r: Reader, x: Value, at: Value) -> Value:
    """Of each sample (T, ...) those positions of T that computed whole numbers (...) say, as (their number, ...).

    It is the product of x with a matrix that has a one where a position is asked for. x holds finite numbers, so the
    zeros leave nothing of the others.
    """
    count, rest = x.size(1), x.shape.sizes[1:]
    rows = row_by_row(r, r.floats(at), (math.prod(at.shape.sizes), 1), -1)
    rows = r.emit(Where(), r.emit(Greater(), r.constant(0.0), rows), shifted(r, rows, count), rows)
    found = r.emit(Equal(), rows, r.value(Held(torch.arange(count).to(r.dtype))))
    table = row_by_row(r, r.floats(x), (count, math.prod(rest)), -1)
    return r.emit(MatMul(), found, table)


def shifted(r: Reader, x: Value, by: float) -> Value:
    """x + by."""
    return r.emit(Affine(scale=1.0, shift=float(by)), x, layout=x.layout)


def _index_tensors(item: object) -> tuple[torch.Tensor, ...]:
    """What an index says, as one tensor of positions for each axis that it covers: a mask covers all of its own."""
    if not isinstance(item, Held) or item.trained:
        raise Unsupported("takes positions that are computed from the inputs; growir selects fixed positions")
    if item.tensor.dtype in (torch.bool, torch.uint8):
        return item.tensor.nonzero(as_tuple=True)
    return (item.tensor,)


def gather(r: Reader, c: Call) -> Value:
    """out[a, b] = x[a, index[a, b]]: at fixed positions, or at computed ones."""
    x, dim = c.value("self"), c.value("self").dim(c.whole("dim"))
    fixed = c.constant("index")
    if fixed is None:
        return _gathered(r, c, x, c.value("index"), dim)
    if not isinstance(fixed, Spread) or not x.batched or fixed.layout != x.layout:
        raise Unsupported("gathers from other samples, or from what has none; a graph never mixes samples")
    index, sizes, along = fixed.tensor[0], x.shape.sizes, x.axis(dim, "gathers along") - 1
    others = [k for k in range(len(sizes)) if k != along]
    if any(index.shape[k] != sizes[k] for k in others):
        raise Unsupported("gathers from a part of the other axes; cut them out first")
    # Positions that are the same all along an axis leave it as it is; the others are taken together with it.
    kept = [k for k in others if bool((index == index.narrow(k, 0, 1)).all())]
    moving = [k for k in others if k not in kept]
    order = [*kept, *moving, along]
    places = index.permute(order)[(0,) * len(kept)]
    rows = torch.arange(math.prod(sizes[k] for k in moving)).reshape(*(sizes[k] for k in moving), 1)
    places = rows * sizes[along] + places
    front = [sizes[k] for k in kept]
    flat = row_by_row(r, _turned(r, x, order), (*front, math.prod(sizes[k] for k in (*moving, along))), -1)
    chosen = r.emit(Select(axis=1 + len(kept), indices=tuple(int(k) for k in places.reshape(-1))), flat)
    shaped = row_by_row(r, chosen, (*front, *(sizes[k] for k in moving), index.shape[along]), -1)
    return _turned(r, shaped, [order.index(k) for k in range(len(sizes))]).at(x.layout)


def _turned(r: Reader, x: Value, order: Sequence[int]) -> Value:
    """The axes of each sample in another order."""
    return x if list(order) == sorted(order) else r.emit(Permute(dims=(0, *(1 + k for k in order))), x)


def _gathered(r: Reader, c: Call, x: Value, index: Value, dim: int) -> Value:
    """At computed positions: the sum over all, each times whether it is the one that is asked for."""
    if not (x.batched and index.batched and x.layout.plain and index.layout.plain and dim == x.rank - 1):
        raise Unsupported("gathers at computed positions of another axis than the last; move it there first")
    if x.shape.sizes[:-1] != index.shape.sizes[:-1]:
        raise Unsupported("gathers from a part of the other axes; cut them out first")
    asked = r.emit(Unsqueeze(dim=index.rank), r.floats(index))
    found = r.emit(Equal(), asked, r.value(Held(torch.arange(x.size(dim)).to(r.dtype))))
    spread = r.emit(Unsqueeze(dim=x.rank - 1), r.floats(x))
    return r.emit(Sum(dim=(x.rank,), keepdim=False), r.emit(Mul(), spread, found))


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
    "index": index,
    "flip": flip,
    "gather": gather,
    "unfold": unfold,
}
