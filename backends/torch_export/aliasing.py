"""Calls that write in place, read as calls that give new values.

Export keeps the writes and, in its fake tensors, which tensors share memory. A call that writes gives a new value, and
every other name of the written tensor means that value from then on. Where another view of the same memory is read
later, it is read again from the new value if it was made from the written one, and refused otherwise.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import fx
from torch._C._functorch import is_functorch_wrapped_tensor

from growir.backends.torch_export.calls import Call, cut_of, name_of, overload, tensor_of, writes
from growir.backends.torch_export.causes import no_operator
from growir.backends.torch_export.values import Spread, Unsupported, Value

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
        elif not _apart(_region(other), _region(written)) and not _remade(reader, other, written):
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
