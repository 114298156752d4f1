"""Which function spells which operator in ONNX: one per kind, in the module of its family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from growir.backends.onnx_ir import activations, arithmetic, joins, layout, norms, pools, reductions, resample, weights
from growir.backends.onnx_ir.activations import plain
from growir.backends.onnx_ir.scope import Scope
from growir.ops import OP_BY_KIND

TABLE: dict[str, Callable[[Scope, Any], None]] = {
    "bias": weights.bias,
    "standardise": norms.standardise,
    "parameter": weights.parameter,
    "select": layout.select,
    "slice": layout.slice_,
    "reshape": layout.reshape,
    "flatten": layout.reshape,
    "permute": layout.permute,
    "unsqueeze": layout.reshape,
    "squeeze": layout.reshape,
    "pad": layout.pad,
    "expand": layout.expand,
    "pixel_shuffle": resample.pixel_shuffle,
    "pixel_unshuffle": resample.pixel_unshuffle,
    "linear": weights.linear,
    "embedding": weights.embedding,
    **{f"conv{k}d": weights.conv for k in (1, 2, 3)},
    **{f"conv_transpose{k}d": weights.conv_transpose for k in (1, 2, 3)},
    "batch_norm": norms.batch_norm,
    "instance_norm": norms.instance_norm,
    "group_norm": norms.group_norm,
    "layer_norm": norms.layer_norm,
    "rms_norm": norms.rms_norm,
    "add": joins.fold("Add"),
    "mul": joins.fold("Mul"),
    "sub": joins.fold("Sub"),
    "div": joins.fold("Div"),
    "maximum": joins.fold("Max"),
    "minimum": joins.fold("Min"),
    "concat": joins.concat,
    "mean": reductions.reduction("ReduceMean"),
    "sum": reductions.reduction("ReduceSum"),
    "amax": reductions.reduction("ReduceMax"),
    "amin": reductions.reduction("ReduceMin"),
    "var": reductions.var,
    **{f"max_pool{k}d": pools.max_pool for k in (1, 2, 3)},
    **{f"avg_pool{k}d": pools.avg_pool for k in (1, 2, 3)},
    **{f"adaptive_avg_pool{k}d": pools.adaptive_avg_pool for k in (1, 2, 3)},
    **{f"adaptive_max_pool{k}d": pools.adaptive_max_pool for k in (1, 2, 3)},
    "upsample": resample.upsample,
    "local_response_norm": norms.local_response_norm,
    # As they are at inference.
    **{kind: plain("Identity") for kind in ("dropout", "dropout1d", "dropout2d", "dropout3d")},
    "identity": plain("Identity"),
    "softmax": activations.softmax,
    "relu": plain("Relu"),
    "leaky_relu": activations.leaky_relu,
    "elu": activations.elu,
    "selu": plain("Selu"),  # ONNX's default constants are the published ones
    "gelu": activations.gelu,
    "silu": activations.silu,
    "tanh": plain("Tanh"),
    "sigmoid": plain("Sigmoid"),
    "softplus": activations.softplus,
    "hardswish": plain("HardSwish"),
    "hardsigmoid": activations.hardsigmoid,
    "relu6": activations.relu6,
    "prelu": activations.prelu,
    "celu": activations.celu,
    "mish": activations.mish,
    "softsign": plain("Softsign"),
    "log_sigmoid": activations.log_sigmoid,
    "gaussian": activations.gaussian,
    "threshold": activations.threshold,
    "log_softmax": activations.log_softmax,
    "affine": arithmetic.affine,
    "clamp": arithmetic.clamp,
    "pow": arithmetic.power,
    "exp": plain("Exp"),
    "log": plain("Log"),
    "sqrt": plain("Sqrt"),
    "rsqrt": arithmetic.rsqrt,
    "abs": plain("Abs"),
    "erf": plain("Erf"),
    "sin": plain("Sin"),
    "cos": plain("Cos"),
}

if TABLE.keys() != OP_BY_KIND.keys():
    raise ImportError(f"ONNX's table and the operators differ in {sorted(TABLE.keys() ^ OP_BY_KIND.keys())}")
