"""Calls that write in place, read as calls that give new values.

Export keeps the writes and, in its fake tensors, which tensors share memory. A call that writes gives a new value, and
every other name of the written tensor means that value from then on. Where another view of the same memory is read
later, it is read again from the new value if it was made from the written one. If the written one is a slice of it,
along one axis, its value is the slices that were written and what is left of it, one after the other:

    keys = empty(N, 6)    keys[:, :4] = a    keys[:, 4:] = b        keys is concat(a, b)

All else is refused.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import fx
from torch._C._functorch import is_functorch_wrapped_tensor

from growir.backends.torch_export.calls import Call, bound, cut_of, name_of, overload, tensor_of, writes
from growir.backends.torch_export.causes import no_operator
from growir.backends.torch_export.values import Spread, Unsupported, Value
from growir.ops import Concat, Slice

if TYPE_CHECKING:
    from growir.backends.torch_export.reading import Reader


def read(reader: Reader, call: Call) -> Any:
    """Read one call by the table, and let what it writes be seen by all that share its memory."""
    node = call.node
    if call.name not in reader.table:
        raise Unsupported(no_operator(node))
    if not writes(node):
        return reader.table[call.name](reader, call)
    written = cast(fx.Node, node.args[0])
    before = reader.env[written]
    if isinstance(before, Spread):
        before = reader.env[written] = reader.value(before)
    if not isinstance(before, Value):
        raise Unsupported("writes into a parameter or buffer; a graph changes buffers only in batch norm")
    result = reader.table[call.name](reader, call)
    reader.env[written] = result
    for other in _later_views(reader, node, written):
        if reader.env.get(other) is before or other is written:
            reader.env[other] = result
        elif not (
            _apart(_region(other), _region(written))
            or _remade(reader, other, written)
            or _put_back(reader, other, written, result)
        ):
            raise Unsupported(
                "writes into a part or view of a tensor that is read again later; "
                "write it without the in-place form, or put the parts together with torch.cat"
            )
    return result


def storage(node: fx.Node) -> int | None:
    """What tells apart the memory that tensors of the program lie in; None for what is no tensor."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or is_functorch_wrapped_tensor(value) or value.layout != torch.strided:
        return None
    # A fake tensor's memory has no address; the object that stands for it has.
    found: int = value.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
    return found


def _later_views(reader: Reader, node: fx.Node, written: fx.Node) -> list[fx.Node]:
    """Every tensor made before the call that shares the written memory and is read after it, oldest first."""
    order, now = reader.order, reader.order[node]
    shown = reader.sharing.get(storage(written), [])
    return [other for other in shown if order[other] < now and any(order[user] > now for user in other.users)]


Region = tuple[tuple[fx.Node, object, int, int], ...]


def _region(node: fx.Node) -> Region:
    """The cuts by which a view was made from the tensor it shows: (tensor cut, axis or call, from, to)."""
    cuts: list[tuple[fx.Node, object, int, int]] = []
    while node.op == "call_function":
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        if source is None or (storage(source) != storage(node) and node.target is not operator.getitem):
            break
        if node.target is operator.getitem:
            cuts.append((source, "part", cast(int, node.args[1]), cast(int, node.args[1]) + 1))
            source = source.all_input_nodes[0]
        elif overload(node) is not None and name_of(node) in ("slice", "narrow", "select"):
            cuts.append((_whole(source), *cut_of(node)))
        node = source
    return tuple(cuts)


def _whole(node: fx.Node) -> fx.Node:
    """The tensor that a view shows all of: x[:, 2:] is a cut of x[:], which is x."""
    while overload(node) is not None and name_of(node) == "slice":
        source = node.all_input_nodes[0]
        if tensor_of(source).shape != tensor_of(node).shape:
            break
        node = source
    return node


def _apart(one: Region, two: Region) -> bool:
    """Whether two views cannot show the same number."""
    return any(a[:2] == b[:2] and (a[3] <= b[2] or b[3] <= a[2]) for a in one for b in two)


@dataclass(frozen=True, slots=True)
class Pieces:
    """A tensor of which slices were written.

    Attributes:
        value: What it is since the last of these writes.
        before: What it was before the first.
        axis: The axis that they cut.
        written: What stands in it, by (from, to).
    """

    value: Value
    before: Value
    axis: int
    written: Mapping[tuple[int, int], Value]


def _put_back(reader: Reader, whole: fx.Node, written: fx.Node, new: Value) -> bool:
    """Put the new value of a slice into the tensor that it is a slice of; False if it is none, along one axis."""
    cuts: list[fx.Node] = []
    node = written
    while node is not whole:
        if node.op != "call_function" or overload(node) is None or name_of(node) not in ("slice", "narrow"):
            return False
        if bound(node).get("step", 1) not in (None, 1):
            return False
        if _whole(node) is node:
            cuts.append(node)
        node = node.all_input_nodes[0]
    if len(cuts) != 1 or whole not in reader.env:
        return False
    axis, start, stop = cut_of(cuts[0])
    size: Any = tensor_of(whole).shape[axis]  # a symbol where it is open
    if not isinstance(size, int):
        return False
    item = reader.env[whole]
    known = reader.pieces.get(whole)
    if known is None or known.value is not item or known.axis != axis:
        if not isinstance(item, (Value, Spread)):
            return False
        value = reader.value(item)
        known = Pieces(value, value, axis, {})
    kept = {at: piece for at, piece in known.written.items() if at[1] <= start or stop <= at[0]}
    if any(start < at[1] and at[0] < stop and not (start <= at[0] and at[1] <= stop) for at in known.written):
        known, kept = Pieces(known.value, known.value, axis, {}), {}
    now = {**kept, (start, stop): new}
    if any((piece.layout, piece.rank) != (known.before.layout, known.before.rank) for piece in now.values()):
        return False
    place = known.before.axis(axis, "writes into")
    parts: list[Value] = []
    at = 0
    for (first, last), piece in [*sorted(now.items(), key=itemgetter(0)), ((size, size), None)]:
        if at < first:
            left = Slice(axis=place, start=at, length=first - at)
            parts.append(reader.emit(left, known.before, layout=known.before.layout))
        parts += [] if piece is None else [piece]
        at = last
    value = parts[0] if len(parts) == 1 else reader.emit(Concat(dim=place), *parts, layout=known.before.layout)
    reader.env[whole] = value
    reader.pieces[whole] = Pieces(value, known.before, axis, now)
    return True


def _remade(reader: Reader, view: fx.Node, written: fx.Node) -> bool:
    """Read a view of the written tensor again, from its new value; False if it is no such view."""
    chain: list[fx.Node] = []
    node = view
    while node is not written:
        if node.op != "call_function" or not node.all_input_nodes:
            return False
        chain.append(node)
        node = node.all_input_nodes[0]
    before = reader.call
    for step in reversed(chain):
        reader.call = step
        reader.folded.forget(step)
        reader.env[step] = reader.called(step)
    reader.call = before
    return True
