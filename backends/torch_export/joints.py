"""Calls that put values together: broadcasting, concatenation, repetition, padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

from torch import fx

from growir.backends.torch_export.calls import Call
from growir.backends.torch_export.cuts import cut, pieces
from growir.backends.torch_export.layout import row_by_row, with_axis
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import PLAIN, Layout, Unsupported, Value
from growir.ops import Concat, Expand, Pad, Unsqueeze

Handler = Callable[[Reader, Call], Any]
Sizes = Sequence[int]
_Mode = Literal["constant", "reflect", "replicate", "circular"]


def aligned(r: Reader, xs: Sequence[Value]) -> tuple[list[Value], Layout]:
    """Values that the model broadcasts to each other, so that the graph does it too; and the layout of the result."""
    found, layout = _lined_up(r, xs)
    # What only repeats something for every sample is left out where the other values have the batch.
    rows = [_row(r, x) for x in found]
    full = [x.shape.rank for x, row in zip(found, rows, strict=True) if row is None and x.batched]
    if full and max(full) == max(x.shape.rank for x in found):
        found = [x if row is None else row for x, row in zip(found, rows, strict=True)]
    return found, layout


def _row(r: Reader, x: Value) -> Value | None:
    """What a value repeats for every sample, (1, ...), if it does nothing else."""
    draft = r.drafts[x.source - len(r.inputs)] if x.source >= len(r.inputs) else None
    if draft is None or not isinstance(draft.op, Expand) or len(draft.inputs) != 2 or set(draft.op.shape) != {-1}:
        return None
    shape = r.drafts[draft.inputs[0] - len(r.inputs)].shape
    return Value(draft.inputs[0], shape) if not shape.batched and shape.rank == x.shape.rank else None


def _lined_up(r: Reader, xs: Sequence[Value]) -> tuple[list[Value], Layout]:
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
            x = row_by_row(r, x, sizes or (1,), -1)
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
    return concatenated(r, [with_axis(r, x, dim) for x in xs], dim)


def expand(r: Reader, c: Call) -> Value:
    """expand, expand_as, broadcast_to: over the batch it takes the batch from the input it was computed from."""
    x = c.value("self")
    sizes, place, factor = r.batch.split(c.result.shape)
    if x.batched:
        if sizes == x.others and place == x.layout.place:
            return x
        if x.rank != len(sizes) + 1 or place != x.layout.place:
            raise Unsupported("expands a value by axes in front of the batch")
        return r.emit(Expand(shape=(*(-1,) * x.layout.merged, *_kept(x.others, sizes))), x, layout=x.layout)
    if place == -1:
        return r.emit(Expand(shape=_kept((*(0,) * (len(sizes) - x.rank), *x.others), sizes)), x)
    if place != 0 or factor != 1:
        raise Unsupported("repeats a tensor over a batch that is not the first axis")
    known = x.others[1:] if x.rank == len(sizes) + 1 else (*(0,) * (len(sizes) - x.rank), *x.others)
    return r.emit(Expand(shape=_kept(known, sizes)), x, r.value(r.env[r.first_input]))


def copy(r: Reader, c: Call) -> Value:
    """What is copied over a tensor of the same size."""
    if c.shape("src") != c.result.shape:
        raise Unsupported("writes into a tensor in place; put the parts together with torch.cat, or use a mask")
    return c.value("src")


def _kept(old: Sizes, new: Sizes) -> tuple[int, ...]:
    """The sizes of an expand, with -1 for those that stay."""
    return tuple(-1 if a == b else b for a, b in zip(old, new, strict=True))


def repeat(r: Reader, c: Call) -> Value:
    """Copies one after the other: concatenations, and an expansion over the batch."""
    x = c.value("self")
    name = "repeats" if "repeats" in c.arguments else "dims"
    counts = cast("Sequence[Any]", c.arguments[name])
    for _ in range(len(counts) - x.rank):
        x = with_axis(r, x, 0)
    for dim, count in enumerate(counts[len(counts) - x.rank :]):
        if isinstance(count, int) and count == 1:
            continue
        times = count.meta["val"] if isinstance(count, fx.Node) else count
        if not x.batched and r.batch.factor(times) == 1 and dim == 0:
            x = _for_each_sample(r, x)
        else:
            x = concatenated(r, [x] * _at_least_one(int(r.number(count))), dim)
    return x


def _for_each_sample(r: Reader, x: Value) -> Value:
    """All rows of a value without a batch, once for each sample: they are merged with the batch, behind it."""
    row = x if x.shape.sizes[0] == 1 else r.emit(Unsqueeze(dim=0), x)
    many = r.emit(Expand(shape=(-1,) * (row.rank - 1)), row, r.value(r.env[r.first_input]))
    return many if row is x else many.at(Layout(0, outer=False, inner=True))


def _at_least_one(count: int) -> int:
    if count < 1:
        raise Unsupported("repeats something no times at all; a graph has no empty axes")
    return count


def interleaved(r: Reader, x: Value, dim: int, times: int) -> Value:
    """Each position of one of the model's axes this many times in a row."""
    axis = x.axis(dim, "repeats")
    if times == 1:
        return x
    wide = r.emit(Unsqueeze(dim=axis + 1), x)
    counted = [times if k == axis + 1 else -1 for k in range(int(x.batched), wide.shape.rank)]
    many = r.emit(Expand(shape=tuple(counted)), wide)
    sizes = list(x.shape.sizes)
    sizes[axis - int(x.batched)] *= times
    return row_by_row(r, many, sizes, -1).at(x.layout)


def repeat_interleave(r: Reader, c: Call) -> Value:
    if c.is_tensor("repeats") or c.arguments.get("dim") is None:
        raise Unsupported("repeats each number another number of times, or of all axes; give one number and an axis")
    x = c.value("self")
    return interleaved(r, x, c.whole("dim"), c.whole("repeats"))


def pad(r: Reader, c: Call) -> Value:
    x = c.value("self")
    modes: dict[str, _Mode] = {"reflection": "reflect", "replication": "replicate"}
    mode: _Mode = c.arguments["mode"] if c.name == "pad" else modes.get(c.name.split("_")[0], "constant")
    number = c.get("value")
    amounts = c.ints("padding" if "padding" in c.arguments else "pad")
    for k in range(len(amounts) // 2):
        if any(amounts[2 * k : 2 * k + 2]):
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


def roll(r: Reader, c: Call) -> Value:
    """Along axes, or, without any, along the numbers in a row."""
    x, shifts, dims = c.value("self"), c.ints("shifts"), c.ints("dims")
    if not dims:
        if x.batched:
            raise Unsupported("rolls over all axes as one, the batch too; a graph never mixes samples. Give it dims")
        (shift,) = shifts
        count = math.prod(x.others)
        at = -shift % count
        flat = row_by_row(r, x, (count,), -1)
        rolled = concatenated(r, pieces(r, flat, 0, [at, count - at])[::-1], 0) if at else flat
        return row_by_row(r, rolled, x.others, -1)
    for shift, dim in zip(shifts, dims, strict=True):  # torch itself asks for one shift for each axis
        size = x.size(dim)
        at = -shift % size
        if at:
            x = concatenated(r, pieces(r, x, dim, [at, size - at])[::-1], dim)
    return x


TABLE: dict[str, Handler] = {
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    "stack": stack,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand),
    **dict.fromkeys(("repeat", "tile"), repeat),
    "repeat_interleave": repeat_interleave,
    **dict.fromkeys(
        ("pad", "constant_pad_nd", *(f"{m}_pad{n}d" for m in ("reflection", "replication") for n in (1, 2, 3))), pad
    ),
    "roll": roll,
    "copy": copy,
}
