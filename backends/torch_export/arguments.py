"""Whether a function of the table has understood a call: no argument passed over, the result as torch has it.

A function of the table asks a call for the arguments that it knows. torch has more of them than anybody thinks of:

    torch.roll(x, 1)               without dims: over all axes as one
    F.batch_norm(x, mean, var, training=True)

Here the call is refused if it says something, unlike its default, that nobody has looked at, or if what came of it is
of another shape or kind than export reports.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import fx

from growir.backends.torch_export.calls import Call, default_of
from growir.backends.torch_export.values import Unsupported, Value

# What changes no number of the result: where and how it lies in memory, which kernel computes it, and its gradients,
# which are compared. The dtype is looked at in the result; that the call draws no random numbers was looked at before.
_WITHOUT_EFFECT = frozenset((
    *("memory_format", "layout", "device", "pin_memory", "non_blocking", "copy", "implicit", "path"),
    *("cudnn_enabled", "cudnn_enable", "dtype", "out_dtype", "half_to_float"),
    *("padding_idx", "scale_grad_by_freq", "sparse", "momentum", "train", "dropout_p"),
))  # fmt: skip
# Calls whose arguments say the shape of the result, and no more. What copy_ writes over is forgotten.
_SHAPED = frozenset((
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as", "squeeze"),
    *("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split"),
    *("expand", "expand_as", "broadcast_to", "type_as", "copy", "logsumexp", "special_logsumexp"),
))  # fmt: skip


def looked_through(call: Call) -> None:
    """Check that every argument that says something was looked at. Raises Unsupported if not."""
    if call.name in _SHAPED:
        return
    defaults = default_of(call.node)
    for name in call.arguments:
        if name in call.arguments.looked_at or name in _WITHOUT_EFFECT:
            continue
        given = call.arguments.unseen(name)
        if name not in defaults or given != defaults[name]:
            raise Unsupported(f"is given {name}={_shown(given)}, which growir does not know here; leave it out")


def agrees(call: Call, found: object) -> None:
    """Check that what came of a call is of the shape and kind that export reports. Raises Unsupported if not."""
    reported = call.node.meta["val"]
    values = cast("tuple[object, ...]", found) if isinstance(found, tuple) else (found,)
    results = cast("Sequence[object]", reported) if isinstance(found, tuple) else (reported,)
    for value, result in zip(values, results, strict=True):
        if isinstance(value, Value) and isinstance(result, torch.Tensor):
            _agrees(call, value, result)


def _agrees(call: Call, value: Value, result: torch.Tensor) -> None:
    if result.device.type != "cpu":
        raise Unsupported(f"is on {result.device}, but the model is imported on the CPU; use the device of its input")
    if result.is_complex():
        raise Unsupported("uses complex numbers; write the real and the imaginary parts")
    sizes, place, factor = call.reader.batch.split(result.shape)
    found = (value.others, value.layout.place, math.prod(value.factor)) if value.batched else (value.others, -1, 1)
    if found != (sizes, place, factor) and not (result.dim() == 0 and value.shape.sizes == (1,)):
        raise Unsupported(
            f"gives a tensor of the shape {list(result.shape)}, but is read as one of {list(value.shape.dims)}: growir "
            "does not know this way to call it. Write it in another way, and please report it"
        )
    # Whole numbers that are computed with, and truth values, are floats in a graph, and come of their like alone.
    counts = not result.is_floating_point() and value.shape.dtype == "float32" and result.dtype != torch.bool
    if (result.is_floating_point() and value.shape.dtype != "float32") or (counts and _reads_floats(call)):
        raise Unsupported(f"gives {result.dtype}, which growir does not know here; convert after it, or before")
    call.reader.computes_in(result.dtype)


def _reads_floats(call: Call) -> bool:
    read = (node.meta.get("val") for node in call.node.all_input_nodes)
    return any(isinstance(value, torch.Tensor) and value.is_floating_point() for value in read)


def _shown(given: Any) -> str:
    return "a tensor" if isinstance(given, fx.Node) else str(given)[:60]
