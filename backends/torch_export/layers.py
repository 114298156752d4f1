"""Calls with weights: linear and convolutional layers, norms, embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]  # the base of all of them
from torch.nn.modules.instancenorm import _InstanceNorm  # pyright: ignore[reportPrivateUsage]

from growir.backends.torch_export import cuts
from growir.backends.torch_export.calls import Call
from growir.backends.torch_export.exporting import module_of
from growir.backends.torch_export.layout import framed, matrix_transposed, plain, row_by_row
from growir.backends.torch_export.pointwise import joined
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Held, Spread, Unsupported, Value
from growir.ops import (
    Add,
    BatchNorm,
    Cast,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Embedding,
    Expand,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    MatMul,
    Mul,
    Op,
    Permute,
    RmsNorm,
    Select,
    Slice,
    Unsqueeze,
)

Handler = Callable[[Reader, Call], Any]


def own(c: Call, name: str) -> Held | None:
    """An argument as a parameter that the layer's own node stores, or None if it has to be a value."""
    held = c.held(name)
    return held if held is not None and held.trained else None


# -- linear -------------------------------------------------------------------------------------------------------


def linear(r: Reader, c: Call) -> Value:
    return affine_map(r, c, c.value("input"), own(c, "weight"), "weight", "bias")


def affine_map(r: Reader, c: Call, x: Value, weight: Held | None, weight_name: str, bias_name: str) -> Value:
    """x W^T + b over the last axis, W stored with the layer or another value."""
    if x.is_batch(x.rank - 1):
        raise Unsupported("is applied along the batch axis; a graph never mixes samples")
    bias = own(c, bias_name)
    shift = None if bias is not None or not c.is_tensor(bias_name) else c.value(bias_name)
    if not x.batched:  # a layer of the graph works on samples; on a parameter it is the product that it is
        product = r.emit(MatMul(), x, matrix_transposed(r, c.value(weight_name)))
        return joined(r, Add(), product, c.value(bias_name)) if c.is_tensor(bias_name) else product
    if weight is not None:
        op = Linear(out_features=weight.tensor.shape[0], bias=bias is not None)
        out = r.emit(op, x, layout=x.layout, params={"weight": weight, "bias": bias})
    else:
        out = r.emit(Linear(bias=bias is not None), x, c.value(weight_name), layout=x.layout, params={"bias": bias})
    return out if shift is None else joined(r, Add(), out, shift)


# -- convolutions -------------------------------------------------------------------------------------------------


def short(numbers: Sequence[int], axes: int) -> Any:
    """Extents as documents keep them: one number where all are alike."""
    full = tuple(numbers) * (axes if len(numbers) == 1 else 1)
    return full[0] if len(set(full)) == 1 else full


def conv(axes: int) -> Handler:
    """A convolution over this many axes."""
    kinds: dict[int, type[Op]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}

    def handle(r: Reader, c: Call) -> Value:
        x = c.value("input")
        weight, bias = own(c, "weight"), own(c, "bias")
        padding = c.arguments["padding"]
        fields: dict[str, Any] = {
            "stride": short(c.ints("stride"), axes),
            "padding": padding if isinstance(padding, str) else short(c.ints("padding"), axes),
            "dilation": short(c.ints("dilation"), axes),
            "bias": bias is not None,
            "frames": framed(x),
        }
        groups = c.whole("groups")
        inputs = [x]
        if weight is None:
            inputs.append(c.value("weight"))
            fields["groups"] = groups
        else:
            out, _, *kernel = weight.tensor.shape
            fields["kernel_size"] = short(kernel, axes)
            if groups == x.size(1) > 1:
                fields |= {"depthwise": True, "multiplier": out // groups}
            else:
                fields |= {"out_channels": out, "groups": groups}
        found = r.emit(
            kinds[axes].model_validate(fields), *inputs, layout=x.layout, params={"weight": weight, "bias": bias}
        )
        return found if bias is not None or not c.is_tensor("bias") else _per_channel(r, Add(), found, c.value("bias"))

    return handle


def _per_channel(r: Reader, op: Op, x: Value, row: Value) -> Value:
    """x and one number for each of its channels, which are axis 1."""
    for _ in range(x.rank - 2):
        row = r.emit(Unsqueeze(dim=row.shape.rank), row)
    # Broadcast from the right, whatever is merged with the batch.
    return joined(r, op, x, row)


def conv_transpose(axes: int) -> Handler:
    """A transposed convolution over this many axes."""
    kinds: dict[int, type[Op]] = {1: ConvTranspose1d, 2: ConvTranspose2d, 3: ConvTranspose3d}

    def handle(r: Reader, c: Call) -> Value:
        x, weight, bias = c.value("input"), own(c, "weight"), own(c, "bias")
        if weight is None or (bias is None and c.is_tensor("bias")):
            raise Unsupported("has a computed weight or bias; growir's transposed convolution has learned ones")
        row, *kernel = weight.tensor.shape[1:]
        groups = c.whole("groups")
        names = ("stride", "padding", "output_padding", "dilation")
        fields: dict[str, Any] = {name: short(c.ints(name), axes) for name in names}
        fields |= {"kernel_size": short(kernel, axes), "bias": bias is not None, "frames": framed(x)}
        if groups == x.size(1) > 1:
            fields |= {"depthwise": True, "multiplier": row}
        else:
            fields |= {"out_channels": row * groups, "groups": groups}
        return r.emit(kinds[axes].model_validate(fields), x, layout=x.layout, params={"weight": weight, "bias": bias})

    return handle


# -- norms --------------------------------------------------------------------------------------------------------


def _module(r: Reader) -> nn.Module | None:
    """The module of the model that the call ran in."""
    path, _ = module_of(r.call)
    return r.modules.get(path)


def _statistics(r: Reader, c: Call) -> dict[str, Held | None]:
    mean, var = c.held("running_mean"), c.held("running_var")
    if mean is None or var is None:
        return {}
    stem = mean.keys[0].removesuffix("running_mean") if mean.keys else ""
    count = r.buffers.get(f"{stem}num_batches_tracked") if stem else None
    return {
        "running_mean": mean,
        "running_var": var,
        "num_batches_tracked": count or Held(torch.zeros((), dtype=torch.int64)),
    }


def _kept_statistics(c: Call, name: str, tracked: Mapping[str, object]) -> None:
    """A norm that keeps statistics uses them in eval mode. Raises Unsupported if it does otherwise."""
    if bool(c.get(name)) and tracked and not c.reader.trains:
        raise Unsupported(
            f"normalises by the statistics of its input in eval mode, too ({name}=True), and keeps others; a graph "
            f"uses those that it keeps. Say {name}=self.training, or give it none to keep"
        )


def batch_norm(r: Reader, c: Call) -> Value:
    """With the module's own momentum: in eval mode the call has none."""
    x, weight, bias = c.value("input"), own(c, "weight"), own(c, "bias")
    if (weight is None) != (bias is None) or (weight is None and c.is_tensor("weight")):
        raise Unsupported("needs a learned weight and a learned bias, or neither")
    tracked = _statistics(r, c)
    _kept_statistics(c, "training", tracked)
    module, twin = _module(r), r.twin
    momentum: float | None
    if isinstance(module, _BatchNorm):
        momentum = module.momentum
    else:
        momentum = float(twin.args[6] if twin is not None else c.arguments["momentum"])  # type: ignore[arg-type]
    if twin is not None and tracked and not twin.args[5]:
        r.stays.append(r.call)
    op = BatchNorm(eps=c.real("eps"), momentum=momentum, affine=weight is not None, track_running_stats=bool(tracked))
    params = {"weight": weight, "bias": bias, **tracked}
    if x.layout.plain or not x.batched:
        return r.emit(op, plain(x), params=params)
    if x.layout.place == 0:
        return r.emit(op.model_validate({**op.attributes(), "frames": framed(x)}), x, layout=x.layout, params=params)
    # The samples with the axes merged with them are what it takes statistics over: they follow the channels.
    axis = x.axis(1, "normalises")
    order = [0, axis, *(k for k in range(1, x.shape.rank) if k != axis)]
    back = [order.index(k) for k in range(x.shape.rank)]
    normed = r.emit(op, r.emit(Permute(dims=tuple(order)), x), params=params)
    return r.emit(Permute(dims=tuple(back)), normed, layout=x.layout)


def instance_norm(r: Reader, c: Call) -> Value:
    x, weight, bias = c.value("input"), own(c, "weight"), own(c, "bias")
    tracked = _statistics(r, c)
    _kept_statistics(c, "use_input_stats", tracked)
    affine = weight is not None and bias is not None
    module = _module(r)
    momentum = module.momentum if isinstance(module, _InstanceNorm) else c.real("momentum")
    fields: dict[str, Any] = {"eps": c.real("eps"), "affine": affine, "momentum": momentum}
    op = InstanceNorm(**fields, track_running_stats=bool(tracked), frames=framed(x))
    params = {**({"weight": weight, "bias": bias} if affine else {}), **tracked}
    out = r.emit(op, x, layout=x.layout, params=params)
    return out if affine else _scaled_and_shifted(r, c, out)


def _trailing(x: Value, shape: Sequence[int]) -> int:
    """How many last axes a norm takes; none of them may hold the batch."""
    if x.batched and x.layout.place >= x.rank - len(shape):
        raise Unsupported("normalises along the batch axis; a graph never mixes samples")
    return len(shape)


def layer_norm(r: Reader, c: Call) -> Value:
    x, weight, bias = c.value("input"), own(c, "weight"), own(c, "bias")
    dims = _trailing(x, c.ints("normalized_shape"))
    affine = weight is not None
    op = LayerNorm(dims=dims, eps=c.real("eps"), elementwise_affine=affine, bias=bias is not None or not affine)
    out = r.emit(op, x, layout=x.layout, params={"weight": weight, "bias": bias if affine else None})
    if not affine:
        out = joined(r, Mul(), out, c.value("weight")) if c.is_tensor("weight") else out
        out = joined(r, Add(), out, c.value("bias")) if c.is_tensor("bias") else out
    return out


def rms_norm(r: Reader, c: Call) -> Value:
    x, weight = c.value("input"), own(c, "weight")
    dims = _trailing(x, c.ints("normalized_shape"))
    eps = None if c.arguments["eps"] is None else c.real("eps")
    out = r.emit(
        RmsNorm(dims=dims, eps=eps, elementwise_affine=weight is not None),
        x,
        layout=x.layout,
        params={"weight": weight},
    )
    return joined(r, Mul(), out, c.value("weight")) if weight is None and c.is_tensor("weight") else out


def group_norm(r: Reader, c: Call) -> Value:
    x, weight, bias = c.value("input"), own(c, "weight"), own(c, "bias")
    affine = weight is not None and bias is not None
    op = GroupNorm(num_groups=c.whole("num_groups"), eps=c.real("eps"), affine=affine, frames=framed(x))
    out = r.emit(op, x, layout=x.layout, params={"weight": weight, "bias": bias} if affine else {})
    return out if affine else _scaled_and_shifted(r, c, out)


def _scaled_and_shifted(r: Reader, c: Call, x: Value) -> Value:
    """Times a weight and plus a bias for each channel, as far as the call has them."""
    for op, name in ((Mul(), "weight"), (Add(), "bias")):
        if c.is_tensor(name):
            x = _per_channel(r, op, x, c.value(name))
    return x


# -- embeddings ---------------------------------------------------------------------------------------------------


def embedding(r: Reader, c: Call) -> Value:
    """Rows of a table: looked up by the input, or fixed ones, which are the table or a piece of it."""
    ids = c.item("indices")
    weight = c.held("weight")
    if isinstance(ids, (Held, Spread)):
        rows = [int(k) for k in ids.tensor.reshape(-1)]
        found = _rows(r, c.value("weight"), rows)
        found = row_by_row(r, found, (*ids.tensor.shape, found.shape.size(1)), -1)
        if isinstance(ids, Held):
            return found
        return r.emit(Expand(shape=(-1,) * (found.rank - 1)), found, r.value(r.env[r.first_input]), layout=ids.layout)
    return looked_up(r, weight, c.value("indices"), c.whole("padding_idx"))


def looked_up(r: Reader, table: Held | None, ids: Value, padding: int = -1) -> Value:
    """Rows of a table that the inputs choose; a buffer, such as a table of sines, becomes a frozen one."""
    if ids.shape.dtype != "int64":  # positions that the model computes
        ids = r.emit(Cast(dtype="int64"), ids, layout=ids.layout)
    if table is None or table.tensor.dim() != 2 or not table.tensor.is_floating_point():
        raise Unsupported("looks up rows of a computed table; growir's embedding has a learned or a fixed one")
    rows, width = table.tensor.shape
    op = Embedding(num_embeddings=rows, embedding_dim=width, padding_idx=None if padding < 0 else padding)
    return r.emit(op, ids, layout=ids.layout, params={"weight": table})


def index_select(r: Reader, c: Call) -> Value:
    """Fixed positions of an axis, or rows of a table that the inputs choose."""
    index = c.item("index")
    if isinstance(index, Value) and not isinstance(c.item("self"), Value) and c.whole("dim") == 0:
        return looked_up(r, c.held("self"), index)
    return cuts.index_select(r, c)


def _rows(r: Reader, table: Value, rows: list[int]) -> Value:
    size = table.shape.size(0)
    if rows == list(range(size)):
        return table
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return r.emit(Slice(axis=0, start=rows[0], length=len(rows)), table)
    return r.emit(Select(axis=0, indices=tuple(rows)), table)


TABLE: dict[str, Handler] = {
    "linear": linear,
    "conv1d": conv(1),
    "conv2d": conv(2),
    "conv3d": conv(3),
    "conv_transpose1d": conv_transpose(1),
    "conv_transpose2d": conv_transpose(2),
    "conv_transpose3d": conv_transpose(3),
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "embedding": embedding,
    "index_select": index_select,
}
