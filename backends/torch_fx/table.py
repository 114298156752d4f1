"""How torch spells each operator: one short function per kind.

Operators without state become function calls, which run faster than modules; state lives in modules under the node's
name, so that state_dict keys are the document's. No growable width appears in the code but slice bounds, groups and
fixed reshapes: grown weights run through `functional_call` without lowering again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import fx, nn

from growir.backends.torch_fx import modules
from growir.backends.torch_fx.experts import ExpertsLayer
from growir.ops import (
    OP_BY_KIND,
    Affine,
    Attention,
    BatchNorm,
    Bias,
    Cast,
    Celu,
    Clamp,
    Concat,
    Cumsum,
    Dropout,
    Elu,
    Embedding,
    Expand,
    Experts,
    First,
    Flatten,
    Gelu,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LeakyRelu,
    Linear,
    LocalResponseNorm,
    LogSoftmax,
    Norm,
    Op,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Pow,
    Prelu,
    Reshape,
    RmsNorm,
    Select,
    Shape,
    Slice,
    Softmax,
    Softplus,
    Squeeze,
    Standardise,
    Threshold,
    Unsqueeze,
    Upsample,
    Var,
)
from growir.ops.activation import FeatureDropout
from growir.ops.base import in_full
from growir.ops.conv import Conv, ConvTranspose
from growir.ops.pool import AdaptivePool, AvgPool, MaxPool
from growir.ops.reduction import Reduction


class Builder(Protocol):
    """What a function of the table works with."""

    @property
    def inputs(self) -> Sequence[fx.Node]:
        """The node's input values."""
        ...

    @property
    def shapes(self) -> Sequence[Shape]:
        """Their shapes."""
        ...

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Call a function."""
        ...

    def method(self, name: str, *args: Any) -> fx.Node:
        """Call a tensor's method."""
        ...

    def module(self, module: nn.Module) -> fx.Node:
        """Put a module under the node's name, give it the node's tensors, and call it on the inputs."""
        ...

    def tensor(self, name: str) -> fx.Node:
        """A parameter of the node as a value."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the network's tensors are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """What floats the network computes with."""
        ...


Emit = Callable[[Builder, Any], fx.Node]


def bias(b: Builder, op: Bias) -> fx.Node:
    return b.module(modules.Bias(op.dims))


def standardise(b: Builder, op: Standardise) -> fx.Node:
    return b.module(modules.Standardise(op.eps, op.inverse))


def parameter(b: Builder, op: Op) -> fx.Node:
    return b.tensor("weight")


def select(b: Builder, op: Select) -> fx.Node:
    return b.module(modules.Select(op.axis, op.indices).to(b.device))


def slice_(b: Builder, op: Slice) -> fx.Node:
    return b.call(torch.narrow, b.inputs[0], op.axis, op.start, op.length)


def first(b: Builder, op: First) -> fx.Node:
    found, count = b.inputs[0], b.method("size", b.inputs[1], op.of)
    for axis in op.axes:
        found = b.call(torch.narrow, found, axis, 0, count)
    return found


def reshape(b: Builder, op: Reshape) -> fx.Node:
    """Axes that stay as they are, before and behind those that are cut or joined, may have any size.

    (N, 5, 8) to [5, 4, 2] becomes (x.size(0), x.size(1), 4, 2): heads of any number of tokens.
    """
    x = b.shapes[0]
    if not x.batched:
        return b.call(torch.reshape, b.inputs[0], op.shape)
    front, back = op.kept(x)

    def size(axis: int) -> fx.Node:
        return b.method("size", b.inputs[0], axis)

    ahead = [size(k) for k in range(1 + front)]
    behind = [size(x.rank - k) for k in range(back, 0, -1)]
    return b.call(torch.reshape, b.inputs[0], (*ahead, *op.shape[front : len(op.shape) - back], *behind))


def flatten(b: Builder, op: Flatten) -> fx.Node:
    return b.call(torch.flatten, b.inputs[0], op.start_dim, op.end_dim)


def permute(b: Builder, op: Permute) -> fx.Node:
    return b.call(torch.permute, b.inputs[0], op.dims)


def unsqueeze(b: Builder, op: Unsqueeze) -> fx.Node:
    return b.call(torch.unsqueeze, b.inputs[0], op.dim)


def squeeze(b: Builder, op: Squeeze) -> fx.Node:
    return b.call(torch.squeeze, b.inputs[0], op.dim)


def pad(b: Builder, op: Pad) -> fx.Node:
    if op.mode == "constant":
        return b.call(F.pad, b.inputs[0], op.padding, op.mode, op.value)
    return b.call(F.pad, b.inputs[0], op.padding, op.mode)


def expand(b: Builder, op: Expand) -> fx.Node:
    if len(b.inputs) == 1:
        batch = (-1,) if b.shapes[0].batched else ()
        kept = cast(Expand, op.followed(b.shapes[0], b.shapes[0]))  # an axis that stays may have any size
        return b.call(torch.Tensor.expand, b.inputs[0], *batch, *kept.shape)
    size = b.method("size", b.inputs[1], 0)
    # A copy, not a view: whoever writes into an output must not write into a parameter.
    kept = cast(Expand, op.followed(b.shapes[0], b.shapes[0]))
    return b.call(torch.clone, b.method("expand", b.inputs[0], size, *kept.shape))


def pixel_shuffle(b: Builder, op: PixelShuffle) -> fx.Node:
    return b.call(F.pixel_shuffle, b.inputs[0], op.upscale_factor)


def pixel_unshuffle(b: Builder, op: PixelUnshuffle) -> fx.Node:
    return b.call(F.pixel_unshuffle, b.inputs[0], op.downscale_factor)


def linear(b: Builder, op: Linear) -> fx.Node:
    if len(b.inputs) == 2:
        offset = b.tensor("bias") if op.bias else None
        return b.call(F.linear, b.inputs[0], b.inputs[1], offset)
    return b.module(nn.Linear(b.shapes[0].size(-1), op.out_features or 0, op.bias, device="meta"))


def embedding(b: Builder, op: Embedding) -> fx.Node:
    return b.module(nn.Embedding(op.num_embeddings, op.embedding_dim, op.padding_idx, device="meta"))


def conv(kind: Callable[..., nn.Module], function: Callable[..., Any]) -> Emit:
    """The function of a convolution over some number of axes: a module, or a function where the weight is a value."""

    def emit(b: Builder, op: Conv) -> fx.Node:
        groups = op.group_count(b.shapes[0])
        if len(b.inputs) == 2:
            offset = b.tensor("bias") if op.bias else None
            return b.call(function, *b.inputs, offset, op.stride, op.padding, op.dilation, groups)
        out, *kernel = op.kernel(*b.shapes)
        padding = op.padding if isinstance(op.padding, str) else in_full(op.padding, op.spatial)
        args = (b.shapes[0].size(1), out, tuple(kernel), op.strides(), padding, op.spacing(), groups, op.bias)
        return b.module(kind(*args, device="meta"))

    return emit


def conv_transpose(kind: Callable[..., nn.Module]) -> Emit:
    """The function of a transposed convolution over some number of axes."""

    def emit(b: Builder, op: ConvTranspose) -> fx.Node:
        x = b.shapes[0]
        args = (op.kernel(), op.strides(), op.pads(), op.extra(), op.group_count(x), op.bias, op.spacing())
        return b.module(kind(x.size(1), op.width(x), *args, device="meta"))

    return emit


def feature_dropout(kind: Callable[..., nn.Module]) -> Emit:
    """The function of a dropout of whole channels."""

    def emit(b: Builder, op: FeatureDropout) -> fx.Node:
        return b.module(kind(op.p))

    return emit


BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
INSTANCE_NORMS: dict[int, Callable[..., nn.Module]] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def batch_norm(b: Builder, op: BatchNorm) -> fx.Node:
    args = (b.shapes[0].size(1), op.eps, op.momentum, op.affine, op.track_running_stats)
    return b.module(BATCH_NORMS[b.shapes[0].rank](*args, device="meta"))


def instance_norm(b: Builder, op: InstanceNorm) -> fx.Node:
    args = (b.shapes[0].size(1), op.eps, op.momentum, op.affine, op.track_running_stats)
    return b.module(INSTANCE_NORMS[b.shapes[0].rank](*args, device="meta"))


def group_norm(b: Builder, op: GroupNorm) -> fx.Node:
    return b.module(nn.GroupNorm(op.num_groups, b.shapes[0].size(1), op.eps, op.affine, device="meta"))


def rms_norm(b: Builder, op: RmsNorm) -> fx.Node:
    sizes = list(b.shapes[0].sizes[-op.dims :])
    return b.module(nn.RMSNorm(sizes, op.eps, op.elementwise_affine, device="meta"))


def layer_norm(b: Builder, op: LayerNorm) -> fx.Node:
    sizes = list(b.shapes[0].sizes[-op.dims :])
    return b.module(nn.LayerNorm(sizes, op.eps, op.elementwise_affine, op.bias, device="meta"))


def attention(b: Builder, op: Attention) -> fx.Node:
    if op.dropout_p:
        return b.module(modules.Attention(op.dropout_p, op.is_causal, op.scale, op.mask == "seen"))
    mask = b.inputs[3] if len(b.inputs) == 4 else None
    if op.mask == "seen":
        mask = b.call(torch.ne, mask, 0)
    given = {"is_causal": op.is_causal, "scale": op.scale}
    return b.call(F.scaled_dot_product_attention, *b.inputs[:3], mask, **given)


def experts(b: Builder, op: Experts) -> fx.Node:
    return b.module(ExpertsLayer(op.activation, op.gated, op.top_k, op.weights == "chosen"))


def fold(function: Callable[[Any, Any], Any]) -> Emit:
    """The function of an operator that joins its operands two by two, from the left."""

    def emit(b: Builder, op: Op) -> fx.Node:
        left, *rest = b.inputs
        for operand in rest:
            left = b.call(function, left, operand)
        return left

    return emit


def concat(b: Builder, op: Concat) -> fx.Node:
    return b.call(torch.cat, list(b.inputs), dim=op.dim)


def reduction(function: Callable[..., Any]) -> Emit:
    """The function of a reduction over axes."""

    def emit(b: Builder, op: Reduction) -> fx.Node:
        return b.call(function, b.inputs[0], op.dim, op.keepdim)

    return emit


def norm(b: Builder, op: Norm) -> fx.Node:
    # Not the root of a sum: its gradient at 0 would be NaN.
    function = cast(Callable[..., Any], torch.linalg.vector_norm)  # torch's stub has no types for it
    return b.call(function, b.inputs[0], dim=op.dim, keepdim=op.keepdim)


def var(b: Builder, op: Var) -> fx.Node:
    return b.call(torch.var, b.inputs[0], op.dim, correction=op.correction, keepdim=op.keepdim)


def max_pool(function: Callable[..., Any]) -> Emit:
    """The function of a max pool over some number of axes."""

    def emit(b: Builder, op: MaxPool) -> fx.Node:
        stride = op.kernel_size if op.stride is None else op.stride
        args = (op.kernel_size, stride, op.padding, op.dilation)
        return b.call(function, b.inputs[0], *args, ceil_mode=op.ceil_mode)

    return emit


def avg_pool(function: Callable[..., Any]) -> Emit:
    """The function of an average pool over some number of axes."""

    def emit(b: Builder, op: AvgPool) -> fx.Node:
        stride = op.kernel_size if op.stride is None else op.stride
        divisor = () if op.divisor() is None else (op.divisor(),)
        args = (op.kernel_size, stride, op.padding, op.ceil_mode, op.count_include_pad, *divisor)
        return b.call(function, b.inputs[0], *args)

    return emit


def adaptive_pool(function: Callable[..., Any]) -> Emit:
    """The function of a pool over a grid of cells."""

    def emit(b: Builder, op: AdaptivePool) -> fx.Node:
        return b.call(function, b.inputs[0], op.output_size)

    return emit


def upsample(b: Builder, op: Upsample) -> fx.Node:
    align = None if op.mode.startswith("nearest") else op.align_corners
    return b.call(F.interpolate, b.inputs[0], op.size, op.scale_factor, op.mode, align)


def local_response_norm(b: Builder, op: LocalResponseNorm) -> fx.Node:
    return b.call(F.local_response_norm, b.inputs[0], op.size, op.alpha, op.beta, op.k)


def dropout(b: Builder, op: Dropout) -> fx.Node:
    # A module: reading `training` in the code would be traced, and so fixed, when the whole is unpickled.
    return b.module(nn.Dropout(op.p))


def identity(b: Builder, op: Op) -> fx.Node:
    return b.inputs[0]


def detach(b: Builder, op: Op) -> fx.Node:
    return b.call(torch.detach, b.inputs[0])


def softmax(b: Builder, op: Softmax) -> fx.Node:
    return b.call(F.softmax, b.inputs[0], dim=op.dim)


def log_softmax(b: Builder, op: LogSoftmax) -> fx.Node:
    return b.call(F.log_softmax, b.inputs[0], dim=op.dim)


def leaky_relu(b: Builder, op: LeakyRelu) -> fx.Node:
    return b.call(F.leaky_relu, b.inputs[0], op.negative_slope)


def elu(b: Builder, op: Elu) -> fx.Node:
    return b.call(F.elu, b.inputs[0], op.alpha)


def celu(b: Builder, op: Celu) -> fx.Node:
    return b.call(F.celu, b.inputs[0], op.alpha)


def threshold(b: Builder, op: Threshold) -> fx.Node:
    return b.call(F.threshold, b.inputs[0], op.threshold, op.value)


def affine(b: Builder, op: Affine) -> fx.Node:
    scaled = b.inputs[0] if op.scale == 1 else b.call(operator.mul, b.inputs[0], op.scale)
    return scaled if op.shift == 0 else b.call(operator.add, scaled, op.shift)


def clamp(b: Builder, op: Clamp) -> fx.Node:
    return b.call(torch.clamp, b.inputs[0], op.min, op.max)


def power(b: Builder, op: Pow) -> fx.Node:
    return b.call(torch.pow, b.inputs[0], b.inputs[1] if op.exponent is None else op.exponent)


def cast_(b: Builder, op: Cast) -> fx.Node:
    if op.dtype == "int64":
        return b.call(torch.Tensor.long, b.inputs[0])
    return b.module(modules.Cast().to(b.device, b.dtype))


def cumsum(b: Builder, op: Cumsum) -> fx.Node:
    return b.call(torch.cumsum, b.inputs[0], op.dim)


def compared(function: Callable[..., Any]) -> Emit:
    """The function of an operator that is 1 where something holds of two numbers."""

    def emit(b: Builder, op: Op) -> fx.Node:
        return b.call(torch.Tensor.type_as, b.call(function, *b.inputs), b.inputs[0])

    return emit


def where(b: Builder, op: Op) -> fx.Node:
    return b.call(torch.where, b.call(torch.ne, b.inputs[0], 0), *b.inputs[1:])


def gelu(b: Builder, op: Gelu) -> fx.Node:
    return b.call(F.gelu, b.inputs[0], approximate=op.approximate)


def softplus(b: Builder, op: Softplus) -> fx.Node:
    return b.call(F.softplus, b.inputs[0], op.beta, op.threshold)


def prelu(b: Builder, op: Prelu) -> fx.Node:
    return b.module(nn.PReLU(op.num_parameters, device="meta"))


def gaussian(b: Builder, op: Op) -> fx.Node:
    return b.call(torch.exp, b.call(operator.mul, b.call(torch.square, b.inputs[0]), -0.5))


def plain(function: Callable[..., Any]) -> Emit:
    """The function of an operator that is one function of one tensor."""

    def emit(b: Builder, op: Op) -> fx.Node:
        return b.call(function, b.inputs[0])

    return emit


TABLE: dict[str, Emit] = {
    "bias": bias,
    "standardise": standardise,
    "parameter": parameter,
    "select": select,
    "slice": slice_,
    "first": first,
    "reshape": reshape,
    "flatten": flatten,
    "permute": permute,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "pad": pad,
    "expand": expand,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "linear": linear,
    "embedding": embedding,
    "conv1d": conv(nn.Conv1d, F.conv1d),
    "conv2d": conv(nn.Conv2d, F.conv2d),
    "conv3d": conv(nn.Conv3d, F.conv3d),
    "conv_transpose1d": conv_transpose(nn.ConvTranspose1d),
    "conv_transpose2d": conv_transpose(nn.ConvTranspose2d),
    "conv_transpose3d": conv_transpose(nn.ConvTranspose3d),
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "matmul": fold(torch.matmul),
    "attention": attention,
    "experts": experts,
    "add": fold(operator.add),
    "mul": fold(operator.mul),
    "sub": fold(operator.sub),
    "div": fold(torch.div),
    "maximum": fold(torch.maximum),
    "greater": compared(torch.gt),
    "equal": compared(torch.eq),
    "where": where,
    "log1p": plain(torch.log1p),
    "expm1": plain(torch.expm1),
    "round": plain(torch.round),
    "floor": plain(torch.floor),
    "cast": cast_,
    "cumsum": cumsum,
    "minimum": fold(torch.minimum),
    "concat": concat,
    "mean": reduction(torch.mean),
    "sum": reduction(torch.sum),
    "norm": norm,
    "amax": reduction(torch.amax),
    "amin": reduction(torch.amin),
    "var": var,
    "max_pool1d": max_pool(F.max_pool1d),
    "max_pool2d": max_pool(F.max_pool2d),
    "max_pool3d": max_pool(F.max_pool3d),
    "avg_pool1d": avg_pool(F.avg_pool1d),
    "avg_pool2d": avg_pool(F.avg_pool2d),
    "avg_pool3d": avg_pool(F.avg_pool3d),
    "adaptive_avg_pool1d": adaptive_pool(F.adaptive_avg_pool1d),
    "adaptive_avg_pool2d": adaptive_pool(F.adaptive_avg_pool2d),
    "adaptive_avg_pool3d": adaptive_pool(F.adaptive_avg_pool3d),
    "adaptive_max_pool1d": adaptive_pool(F.adaptive_max_pool1d),
    "adaptive_max_pool2d": adaptive_pool(F.adaptive_max_pool2d),
    "adaptive_max_pool3d": adaptive_pool(F.adaptive_max_pool3d),
    "upsample": upsample,
    "local_response_norm": local_response_norm,
    "dropout": dropout,
    "dropout1d": feature_dropout(nn.Dropout1d),
    "dropout2d": feature_dropout(nn.Dropout2d),
    "dropout3d": feature_dropout(nn.Dropout3d),
    "identity": identity,
    "detach": detach,
    "softmax": softmax,
    "relu": plain(F.relu),
    "leaky_relu": leaky_relu,
    "elu": elu,
    "selu": plain(F.selu),
    "gelu": gelu,
    "silu": plain(F.silu),
    "tanh": plain(torch.tanh),
    "sigmoid": plain(torch.sigmoid),
    "softplus": softplus,
    "hardswish": plain(F.hardswish),
    "hardsigmoid": plain(F.hardsigmoid),
    "relu6": plain(F.relu6),
    "prelu": prelu,
    "celu": celu,
    "mish": plain(F.mish),
    "softsign": plain(F.softsign),
    "log_sigmoid": plain(F.logsigmoid),
    "gaussian": gaussian,
    "threshold": threshold,
    "log_softmax": log_softmax,
    "affine": affine,
    "clamp": clamp,
    "pow": power,
    "exp": plain(torch.exp),
    "log": plain(torch.log),
    "sqrt": plain(torch.sqrt),
    "rsqrt": plain(torch.rsqrt),
    "abs": plain(torch.abs),
    "erf": plain(torch.erf),
    "sin": plain(torch.sin),
    "cos": plain(torch.cos),
}

if TABLE.keys() != OP_BY_KIND.keys():
    raise ImportError(f"torch's table and the operators differ in {sorted(TABLE.keys() ^ OP_BY_KIND.keys())}")
