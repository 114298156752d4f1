"""Calls that give the same numbers in another order or shape: views, permutations, shuffles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from growir.backends.torch_export.calls import Call, tensor_of
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Held, Layout, Unsupported, Value
from growir.ops import (
    Affine,
    Cast,
    Detach,
    Equal,
    Flatten,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Reshape,
    Squeeze,
    Unsqueeze,
)

Handler = Callable[[Reader, Call], Any]
Sizes = Sequence[int]


def permuted(r: Reader, x: Value, dims: Sequence[int]) -> Value:
    """The model's axes in another order; only those that are not the batch move in the graph."""
    dims = [x.dim(d) for d in dims]
    if not x.batched:
        return x if dims == sorted(dims) else r.emit(Permute(dims=tuple(dims)), x)
    place = dims.index(x.layout.place)
    front = 1 + x.layout.merged
    order = [*range(front), *(x.axis(d, "moves") for k, d in enumerate(dims) if k != place)]
    moved = x if order == sorted(order) else r.emit(Permute(dims=tuple(order)), x)
    layout = Layout(place, x.layout.outer, x.layout.inner)
    return x if moved is x and layout == x.layout else moved.at(layout)


def permute(r: Reader, c: Call) -> Value:
    return permuted(r, c.value("self"), c.ints("dims"))


def transpose(r: Reader, c: Call) -> Value:
    x = c.value("self")
    names = ("dim0", "dim1") if "dim0" in c.arguments else ("axis0", "axis1")
    return _exchanged(r, x, *(x.dim(c.whole(name)) for name in names))


def matrix_transpose(r: Reader, c: Call) -> Value:
    return matrix_transposed(r, c.value("self"))


def matrix_transposed(r: Reader, x: Value) -> Value:
    """The last two of the model's axes exchanged, where there are two."""
    return x if x.rank < 2 else _exchanged(r, x, x.rank - 2, x.rank - 1)


def reversed_axes(r: Reader, c: Call) -> Value:
    x = c.value("self")
    return permuted(r, x, range(x.rank - 1, -1, -1))


def _exchanged(r: Reader, x: Value, one: int, two: int) -> Value:
    dims = list(range(x.rank))
    dims[one], dims[two] = two, one
    return permuted(r, x, dims)


def movedim(r: Reader, c: Call) -> Value:
    x = c.value("self")
    sources = [x.dim(d) for d in c.ints("source")]
    places = [x.dim(d) for d in c.ints("destination")]
    rest = iter(d for d in range(x.rank) if d not in sources)
    put = dict(zip(places, sources, strict=True))
    return permuted(r, x, [put[k] if k in put else next(rest) for k in range(x.rank)])


def view(r: Reader, c: Call) -> Value:
    """Any call that gives the same numbers, row by row, in another shape."""
    x = c.value("self")
    given = c.arguments.get("size", c.arguments.get("shape"))
    entries = cast("Sequence[Any]", given) if isinstance(given, (list, tuple)) else ()
    return reshaped(r, x, c.result.shape, entries)


def reshaped(r: Reader, x: Value, target: Sequence[Any], given: Sequence[Any] = ()) -> Value:
    """x in the shape that export reports; `given` are the sizes as the model asks for them, with its -1."""
    sizes, place, factor = r.batch.split(target)
    opened = next((k for k, size in enumerate(given) if isinstance(size, int) and size == -1), -1)
    if not x.batched:
        if place != -1:
            raise Unsupported("makes a batch axis of a tensor that does not depend on the inputs")
        return row_by_row(r, x, sizes, opened)
    if place == -1:
        raise Unsupported("has no batch axis any more; a graph never mixes samples")
    before, after = sizes[:place], sizes[place:]
    slow = x.factor[0]
    ahead = math.prod(x.others[: x.layout.place]) * slow
    outer, rest = divmod(ahead, math.prod(before))
    inner, rest2 = divmod(factor, outer) if outer else (0, 1)
    if rest or rest2:
        raise Unsupported("mixes the batch with a part of another axis; a graph never mixes samples")
    layout = Layout(place, outer > 1, inner > 1)
    # In the graph: N, what lies before the batch, what lies behind it, both in the model's order.
    merged = [size for size, there in ((outer, layout.outer), (inner, layout.inner)) if there]
    wanted = (*merged, *before, *after)
    if x.shape.sizes == wanted:
        return x if layout == x.layout else x.at(layout)
    if opened != -1:
        opened = -1 if opened == place else opened - (opened > place) + len(merged)
    if not ahead > 1 and not layout.outer:
        return row_by_row(r, x, wanted, opened).at(layout)
    # The sizes before the batch stand behind those merged with it in the graph: put them in the model's order, cut
    # them anew, and put them back.
    rows = _in_model_order(r, x)
    shaped = row_by_row(r, rows, (*before, *merged, *after), -1)
    front, count = len(before), len(merged)
    order = [
        0,
        *range(1 + front, 1 + front + count),
        *range(1, 1 + front),
        *range(1 + front + count, shaped.shape.rank),
    ]
    put = shaped if order == sorted(order) else r.emit(Permute(dims=tuple(order)), shaped)
    return put.at(layout)


def _in_model_order(r: Reader, x: Value) -> Value:
    """The graph's axes as they lie in the model's memory, the batch taken out: before, outer, inner, after."""
    merged = x.layout.merged
    order = [0, *range(1 + merged, 1 + merged + x.layout.place), *range(1, 1 + merged)]
    order += range(1 + merged + x.layout.place, x.shape.rank)
    return x if order == sorted(order) else r.emit(Permute(dims=tuple(order)), x)


def row_by_row(r: Reader, x: Value, sizes: Sizes, opened: int) -> Value:
    """The numbers of each sample in another shape, by the plainest operator there is for it."""
    old, new = x.shape.sizes, tuple(sizes)
    front = int(x.batched)
    if old == new:
        return x
    if len(old) == len(new) + 1:
        for k, size in enumerate(old):
            if size == 1 and old[:k] + old[k + 1 :] == new and _is_last(old, k):
                return r.emit(Squeeze(dim=front + k), x)
    if x.shape.rank > len(new) + front and (found := _flattened(old, new)) and x.batched:
        first, last = found
        ends: dict[str, Any] = {"start_dim": front + first, "end_dim": last - len(old)}
        return r.emit(Flatten.model_validate(ends), x)
    if len(new) == len(old) + 1:
        for k, size in enumerate(new):
            if size == 1 and new[:k] + new[k + 1 :] == old and _is_last(new, k):
                return r.emit(Unsqueeze(dim=front + k), x)
    if not new:
        if not x.batched:
            raise Unsupported("leaves one number without an axis")
        return r.emit(Squeeze(dim=1), x if x.shape.rank == 2 else r.emit(Flatten(), x))
    shape = tuple(-1 if k == opened else size for k, size in enumerate(new))
    return r.emit(Reshape(shape=shape), x)


def _is_last(sizes: Sizes, k: int) -> bool:
    """Whether nothing but ones stands behind an axis of one: before others it is a single head, or group, of many."""
    return all(size == 1 for size in sizes[k:])


def _flattened(old: Sizes, new: Sizes) -> tuple[int, int] | None:
    """The one range of adjacent axes that is joined, if that is all that happens."""
    count = len(old) - len(new) + 1
    for k in range(len(new)):
        joined = math.prod(old[k : k + count])
        if (*old[:k], joined, *old[k + count :]) == tuple(new) and (joined > 1 or count == len(old)):
            return k, k + count - 1
    return None


def squeeze(r: Reader, c: Call) -> Value:
    return reshaped(r, c.value("self"), c.result.shape)


def same(r: Reader, c: Call) -> Value:
    """A call that gives the same numbers in the same shape, in another dtype perhaps.

    Truth values are 0 and 1 in a graph, and whole numbers that were computed with are floats there: only floats lose
    something as whole numbers, and only what looks rows up asks for int64.
    """
    x = c.value("self")
    old, new = tensor_of(c.arguments["self"]).dtype, c.result.dtype
    if new == torch.bool and old != torch.bool:
        return not_(r, r.emit(Equal(), r.floats(x), r.constant(0.0), layout=x.layout))
    if new.is_floating_point and not old.is_floating_point:
        return r.floats(x)
    if old.is_floating_point and not new.is_floating_point:
        return r.emit(Cast(dtype="int64"), x, layout=x.layout)
    r.computes_in(new)
    return x


def detach(r: Reader, c: Call) -> Any:
    """The same numbers, through which no gradient goes back. What has none anyway stays as it is."""
    item = c.item("self")
    if not c.result.is_floating_point() or not (isinstance(item, Value) or (isinstance(item, Held) and item.trained)):
        return item
    x = c.value("self")
    return r.emit(Detach(), x, layout=x.layout)


def not_(r: Reader, x: Value) -> Value:
    """Truth values the other way round."""
    return r.emit(Affine(scale=-1.0, shift=1.0), x, layout=x.layout)


def with_axis(r: Reader, x: Value, dim: int) -> Value:
    if not x.batched:
        return r.emit(Unsqueeze(dim=dim), x)
    front = dim <= x.layout.place
    axis = dim + x.layout.merged + int(front)
    found = r.emit(Unsqueeze(dim=axis), x)
    return found.at(Layout(x.layout.place + int(front), x.layout.outer, x.layout.inner))


def unsqueeze(r: Reader, c: Call) -> Value:
    x = c.value("self")
    return with_axis(r, x, c.whole("dim") % (x.rank + 1))


def pixel_shuffle(r: Reader, c: Call) -> Value:
    x = c.value("self")
    return r.emit(PixelShuffle(upscale_factor=c.whole("upscale_factor"), frames=framed(x)), x, layout=x.layout)


def pixel_unshuffle(r: Reader, c: Call) -> Value:
    x = c.value("self")
    return r.emit(PixelUnshuffle(downscale_factor=c.whole("downscale_factor"), frames=framed(x)), x, layout=x.layout)


def channel_shuffle(r: Reader, c: Call) -> Value:
    x, groups = plain(c.value("self")), c.whole("groups")
    channels, *rest = x.shape.sizes
    wide = r.emit(Reshape(shape=(groups, channels // groups, *rest)), x)
    turned = r.emit(Permute(dims=(0, 2, 1, *range(3, wide.shape.rank))), wide)
    return r.emit(Reshape(shape=(-1, *rest)), turned)


def framed(x: Value) -> int:
    """How many axes are merged with the batch, each of whose positions an operator on samples may take for one.

    Raises:
        Unsupported: The batch is not the first axis.
    """
    if not x.batched and x.shape.alike:  # a table with one row in the batch's place
        return 0
    if not x.batched or x.layout.place:
        plain(x)
    return x.layout.merged


def plain(x: Value) -> Value:
    """The value, if the batch is its first axis. Raises Unsupported otherwise."""
    if not x.batched:
        raise Unsupported("is given a parameter where a value with a batch is needed")
    if not x.layout.plain:
        raise Unsupported("needs the batch as the first axis, but it was moved or merged with another axis")
    return x


TABLE: dict[str, Handler] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as"), view),
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "permute": permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), transpose),
    **dict.fromkeys(("mT", "matrix_transpose", "t", "adjoint"), matrix_transpose),
    "numpy_T": reversed_axes,
    **dict.fromkeys(("movedim", "moveaxis"), movedim),
    **dict.fromkeys(
        (
            "bool",
            "int",
            "long",
            "contiguous",
            "clone",
            "alias",
            "lift_fresh_copy",
            "to",
            "_to_copy",
            "type_as",
            "float",
            "double",
        ),
        same,
    ),
    "detach": detach,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "channel_shuffle": channel_shuffle,
}
