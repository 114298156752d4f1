"""Calls that move numbers without changing them: views, permutations, cuts, joints, padding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import fx

from growir.backends.torch_export.calls import Call, bound, name_of, tensor_of
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import PLAIN, Held, Layout, Unsupported, Value
from growir.ops import (
    Concat,
    Expand,
    Flatten,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Reshape,
    Select,
    Slice,
    Squeeze,
    Unsqueeze,
)

Handler = Callable[[Reader, Call], Any]
Sizes = Sequence[int]
_Mode = Literal["constant", "reflect", "replicate", "circular"]

# -- axes ---------------------------------------------------------------------------------------------------------


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
    x = c.value("self")
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


# -- shapes -------------------------------------------------------------------------------------------------------


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
        return _row_by_row(r, x, sizes, opened)
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
        return _row_by_row(r, x, wanted, opened).at(layout)
    # The sizes before the batch stand behind those merged with it in the graph: put them in the model's order, cut
    # them anew, and put them back.
    rows = _in_model_order(r, x)
    shaped = _row_by_row(r, rows, (*before, *merged, *after), -1)
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


def _row_by_row(r: Reader, x: Value, sizes: Sizes, opened: int) -> Value:
    """The numbers of each sample in another shape, by the plainest operator there is for it."""
    old, new = x.shape.sizes, tuple(sizes)
    front = int(x.batched)
    if old == new:
        return x
    if len(old) == len(new) + 1:
        for k, size in enumerate(old):
            if size == 1 and old[:k] + old[k + 1 :] == new:
                return r.emit(Squeeze(dim=front + k), x)
    if x.shape.rank > len(new) + front and (found := _flattened(old, new)) and x.batched:
        first, last = found
        ends: dict[str, Any] = {"start_dim": front + first, "end_dim": last - len(old)}
        return r.emit(Flatten.model_validate(ends), x)
    if len(new) == len(old) + 1:
        for k, size in enumerate(new):
            if size == 1 and new[:k] + new[k + 1 :] == old:
                return r.emit(Unsqueeze(dim=front + k), x)
    if not new:
        raise Unsupported("leaves one number without an axis")
    shape = tuple(-1 if k == opened else size for k, size in enumerate(new))
    return r.emit(Reshape(shape=shape), x)


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
    """A call that gives the same numbers in the same shape."""
    x = c.value("self")
    old, new = tensor_of(c.arguments["self"]).dtype, c.result.dtype
    if old != new and (old.is_floating_point != new.is_floating_point):
        raise Unsupported(f"turns {old} into {new}; give the model numbers of the right kind")
    if old != new:
        r.notices[f"the model computes a part in {new}; the network computes it in one dtype"] = None
    return x


# -- cuts ---------------------------------------------------------------------------------------------------------


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


def cut_of(node: fx.Node) -> tuple[int, int, int]:
    """The axis, start and stop of a slice, narrow or select call, as far as they are plain numbers."""
    arguments, name = bound(node), name_of(node)
    source = tensor_of(cast(fx.Node, node.args[0]))
    dim = arguments["dim"] % source.dim()
    size = cast(object, source.shape[dim])
    if not isinstance(size, int):  # the batch
        return dim, 0, 2**62
    if name == "select":
        start = int(arguments["index"]) % size
        return dim, start, start + 1
    if name == "narrow":
        start = int(arguments["start"]) % size
        return dim, start, start + int(arguments["length"])
    start, stop, _ = slice(arguments["start"], arguments["end"]).indices(size)
    return dim, start, stop


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
        raise Unsupported("takes a single number out of a parameter")
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
    """x[..., constant, ...] with one tensor of fixed positions."""
    x = c.value("self")
    entries = cast("Sequence[fx.Node | None]", c.arguments["indices"])
    given = [(dim, entry) for dim, entry in enumerate(entries) if entry is not None]
    if len(given) != 1:
        raise Unsupported("indexes by several tensors at once; growir selects fixed positions of one axis")
    dim, entry = given[0]
    held = r.env[entry]
    if not isinstance(held, Held) or held.trained or held.tensor.dtype == torch.bool:
        raise Unsupported("takes positions that are computed from the inputs; growir selects fixed positions")
    size = x.size(dim)
    found = _positions(r, x, dim, [int(k) % size for k in held.tensor.reshape(-1)])
    return found if held.tensor.dim() == 1 else reshaped(r, found, c.result.shape)


def flip(r: Reader, c: Call) -> Value:
    x = c.value("self")
    for dim in c.ints("dims"):
        x = _positions(r, x, dim, list(range(x.size(dim)))[::-1])
    return x


def roll(r: Reader, c: Call) -> Value:
    x = c.value("self")
    for shift, dim in zip(c.ints("shifts"), c.ints("dims"), strict=True):
        size = x.size(dim)
        at = -shift % size
        if at:
            x = concatenated(r, pieces(r, x, dim, [at, size - at])[::-1], dim)
    return x


# -- joints -------------------------------------------------------------------------------------------------------


def aligned(r: Reader, xs: Sequence[Value]) -> tuple[list[Value], Layout]:
    """Values that the model broadcasts to each other, so that the graph does it too; and the layout of the result."""
    layouts = {(x.rank - x.layout.place, x.layout.outer, x.layout.inner): x for x in xs if x.batched}
    if all(x.layout.plain for x in xs if x.batched) and len(layouts) <= 1:
        rank = max(x.rank for x in xs)
        batched = [x for x in xs if x.batched]
        if not batched or batched[0].rank == rank:
            return list(xs), PLAIN
    if len(layouts) > 1:
        raise Unsupported("joins values whose batch axes do not line up")
    (whole,) = layouts.values()
    rank = max(x.rank for x in xs)
    if rank > whole.rank:
        raise Unsupported("broadcasts the batch behind another axis; put the batch first")
    found: list[Value] = []
    for x in xs:
        if x.batched:
            found.append(x)
            continue
        # Without a batch: one where the batch is, so that it is broadcast there.
        place = whole.layout.place - (rank - x.rank)
        if place >= 0:
            if x.shape.sizes[place] != 1:
                raise Unsupported("has a size where the other value has its batch")
            sizes = (*(1,) * whole.layout.merged, *x.shape.sizes[:place], *x.shape.sizes[place + 1 :])
            # Sizes missing in front of the batch are broadcast; those merged with it have to stand before the others.
            sizes = (*(1,) * whole.layout.merged, *(1,) * (rank - x.rank), *sizes[whole.layout.merged :])
            x = _row_by_row(r, x, sizes or (1,), -1)
        found.append(x)
    return found, whole.layout


def concatenated(r: Reader, xs: Sequence[Value], dim: int) -> Value:
    """Values one after the other along one of the model's axes."""
    whole = next((x for x in xs if x.batched), xs[0])
    xs = [x if x.batched == whole.batched else for_each_sample(r, x, whole) for x in xs]
    if len({(x.layout, x.rank) for x in xs}) > 1:
        raise Unsupported("joins values whose batch axes do not line up")
    axis = whole.axis(dim, "concatenates along")
    return xs[0] if len(xs) == 1 else r.emit(Concat(dim=axis), *xs, layout=whole.layout)


def for_each_sample(r: Reader, x: Value, like: Value) -> Value:
    """A value without a batch, given to every sample of another value of its rank."""
    if not like.layout.plain or x.rank != like.rank or x.shape.sizes[0] != 1:
        raise Unsupported("joins a value without a batch to one with a batch; expand it over the batch first")
    return r.emit(Expand(shape=(-1,) * (x.rank - 1)), x, like)


def cat(r: Reader, c: Call) -> Value:
    xs = c.values("tensors")
    name = "dim" if "dim" in c.arguments else "axis"
    return concatenated(r, xs, c.whole(name))


def stack(r: Reader, c: Call) -> Value:
    xs = c.values("tensors")
    dim = c.whole("dim") % (xs[0].rank + 1)
    return concatenated(r, [_with_axis(r, x, dim) for x in xs], dim)


def _with_axis(r: Reader, x: Value, dim: int) -> Value:
    if not x.batched:
        return r.emit(Unsqueeze(dim=dim), x)
    front = dim <= x.layout.place
    axis = dim + x.layout.merged + int(front)
    found = r.emit(Unsqueeze(dim=axis), x)
    return found.at(Layout(x.layout.place + int(front), x.layout.outer, x.layout.inner))


def unsqueeze(r: Reader, c: Call) -> Value:
    x = c.value("self")
    return _with_axis(r, x, c.whole("dim") % (x.rank + 1))


def expand(r: Reader, c: Call) -> Value:
    """expand, expand_as, broadcast_to: over the batch it takes the batch from the input it was computed from."""
    x = c.value("self")
    sizes, place, factor = r.batch.split(c.result.shape)
    if x.batched:
        if sizes == x.others and place == x.layout.place:
            return x
        if x.rank != len(sizes) + 1 or not x.layout.plain:
            raise Unsupported("expands a value whose batch is not its first axis, or by axes in front of the batch")
        return r.emit(Expand(shape=_kept(x.others, sizes)), x)
    if place == -1:
        return r.emit(Expand(shape=_kept((*(0,) * (len(sizes) - x.rank), *x.others), sizes)), x)
    if place != 0 or factor != 1:
        raise Unsupported("repeats a tensor over a batch that is not the first axis")
    known = x.others[1:] if x.rank == len(sizes) + 1 else (*(0,) * (len(sizes) - x.rank), *x.others)
    return r.emit(Expand(shape=_kept(known, sizes)), x, r.value(r.env[r.first_input]))


def _kept(old: Sizes, new: Sizes) -> tuple[int, ...]:
    """The sizes of an expand, with -1 for those that stay."""
    return tuple(-1 if a == b else b for a, b in zip(old, new, strict=True))


def repeat(r: Reader, c: Call) -> Value:
    """Copies one after the other: concatenations, and an expansion over the batch."""
    x = c.value("self")
    name = "repeats" if "repeats" in c.arguments else "dims"
    counts = cast("Sequence[Any]", c.arguments[name])
    for _ in range(len(counts) - x.rank):
        x = _with_axis(r, x, 0)
    for dim, count in enumerate(counts[len(counts) - x.rank :]):
        if isinstance(count, int) and count == 1:
            continue
        times = count.meta["val"] if isinstance(count, fx.Node) else count
        if not x.batched and r.batch.factor(times) == 1 and dim == 0 and x.shape.sizes[0] == 1:
            x = r.emit(Expand(shape=(-1,) * (x.rank - 1)), x, r.value(r.env[r.first_input]))
        else:
            x = concatenated(r, [x] * int(r.number(count)), dim)
    return x


def filled(number: float | None) -> Handler:
    """zeros, ones, full and their like, of a size that has the batch in it."""

    def handle(r: Reader, c: Call) -> Value:
        sizes, place, factor = r.batch.split(c.result.shape)
        if place != 0 or factor != 1 or not sizes or not c.result.is_floating_point():
            raise Unsupported("makes a constant whose first axis is not the batch")
        fill = c.real("fill_value") if number is None else number
        one = Held(torch.full((1,) * (len(sizes) + 1), fill, dtype=c.result.dtype))
        return r.emit(Expand(shape=_kept((1,) * len(sizes), sizes)), r.value(one), r.value(r.env[r.first_input]))

    return handle


def pad(r: Reader, c: Call) -> Value:
    x = c.value("self")
    modes: dict[str, _Mode] = {"reflection": "reflect", "replication": "replicate"}
    mode: _Mode = c.arguments["mode"] if c.name == "pad" else modes.get(c.name.split("_")[0], "constant")
    number = c.get("value")
    amounts = c.ints("padding" if "padding" in c.arguments else "pad")
    for k in range(len(amounts) // 2):
        x.axis(x.rank - 1 - k, "pads")
    while len(amounts) > 2 and not any(amounts[-2:]) and mode == "constant":
        amounts = amounts[:-2]
    if not any(amounts):
        return x
    negative = [min(a, 0) for a in amounts]
    for k in range(0, len(amounts), 2):  # negative padding crops
        dim = x.rank - 1 - k // 2
        if negative[k] or negative[k + 1]:
            x = cut(r, x, dim, -negative[k], x.size(dim) + negative[k] + negative[k + 1])
    amounts = [max(a, 0) for a in amounts]
    if not any(amounts):
        return x
    return r.emit(Pad(padding=tuple(amounts), mode=mode, value=float(number or 0.0)), x, layout=x.layout)


# -- between channels and positions ---------------------------------------------------------------------------------


def pixel_shuffle(r: Reader, c: Call) -> Value:
    return r.emit(PixelShuffle(upscale_factor=c.whole("upscale_factor")), plain(c.value("self")))


def pixel_unshuffle(r: Reader, c: Call) -> Value:
    return r.emit(PixelUnshuffle(downscale_factor=c.whole("downscale_factor")), plain(c.value("self")))


def channel_shuffle(r: Reader, c: Call) -> Value:
    x, groups = plain(c.value("self")), c.whole("groups")
    channels, *rest = x.shape.sizes
    wide = r.emit(Reshape(shape=(groups, channels // groups, *rest)), x)
    turned = r.emit(Permute(dims=(0, 2, 1, *range(3, wide.shape.rank))), wide)
    return r.emit(Reshape(shape=(-1, *rest)), turned)


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
        ("contiguous", "clone", "detach", "alias", "lift_fresh_copy", "to", "_to_copy", "type_as", "float", "double"),
        same,
    ),
    "slice": slice_,
    "narrow": narrow,
    "select": select,
    "unbind": unbind,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split"), split),
    "index_select": index_select,
    "index": index,
    "flip": flip,
    "roll": roll,
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    "stack": stack,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand),
    **dict.fromkeys(("repeat", "tile"), repeat),
    **dict.fromkeys(("zeros", "new_zeros", "zeros_like"), filled(0.0)),
    **dict.fromkeys(("ones", "new_ones", "ones_like"), filled(1.0)),
    **dict.fromkeys(("full", "new_full", "full_like"), filled(None)),
    **dict.fromkeys(
        ("pad", "constant_pad_nd", *(f"{m}_pad{n}d" for m in ("reflection", "replication") for n in (1, 2, 3))), pad
    ),
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "channel_shuffle": channel_shuffle,
}
