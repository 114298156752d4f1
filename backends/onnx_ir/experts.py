"""Mixtures of experts in ONNX: every token through every expert, with weights that are zero for those not chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from growir import ops
from growir.backends.onnx_ir import activations
from growir.backends.onnx_ir.scope import Scope
from growir.ops.experts import ACTIVATION

_ACTIVATIONS: Mapping[str, Callable[[Scope, Any], None]] = {
    "identity": activations.plain("Identity"),
    "relu": activations.plain("Relu"),
    "gelu": activations.gelu,
    "gelu_tanh": activations.gelu,
    "silu": activations.silu,
    "tanh": activations.plain("Tanh"),
    "sigmoid": activations.plain("Sigmoid"),
}

if _ACTIVATIONS.keys() != ACTIVATION.keys():
    raise ImportError(f"ONNX's table lacks activations of experts: {sorted(ACTIVATION.keys() - _ACTIVATIONS.keys())}")


def experts(s: Scope, op: ops.Experts) -> None:
    x, scores = s.inputs
    tokens = s.call("tokens", "Reshape", x, s.integers("token", [-1, s.shapes[0].size(-1)]))
    weights = _weights(s, op, s.call("scores", "Reshape", scores, s.integers("scored", [-1, op.num_experts])))
    inner = _layer(s, tokens, op.up, bias=op.bias)
    if op.gated:
        sizes = s.integers("halves", [op.hidden_features] * 2)
        gate, up = s.calls(["gate_rows", "up_rows"], "Split", inner, sizes, axis=-1)
        hidden = s.call("gated", "Mul", _activated(s, op, gate), up)
    else:
        hidden = _activated(s, op, inner)
    found = _layer(s, hidden, "down_proj", bias=op.bias)
    # (tokens, experts) as (experts, tokens, 1), to meet each expert's answers.
    turned = s.call("turned", "Transpose", weights, perm=[1, 0])
    shares = s.call("shares", "Unsqueeze", turned, s.integers("behind", [2]))
    total = s.call("total", "ReduceSum", s.call("shared", "Mul", found, shares), s.integers("experts", [0]), keepdims=0)
    s.put("samples", "Reshape", total, s.integers("shape", [-1, *s.shape.sizes]))


def _layer(s: Scope, x: str, weight: str, *, bias: bool) -> str:
    """The answers of one layer of every expert: (experts, tokens, features)."""
    found = s.call(
        f"{weight}_product", "MatMul", x, s.call(f"{weight}_turned", "Transpose", s.param(weight), perm=[0, 2, 1])
    )
    if not bias:
        return found
    rows = s.call(f"{weight}_rows", "Unsqueeze", s.param(f"{weight}_bias"), s.integers(f"{weight}_between", [1]))
    return s.call(f"{weight}_sum", "Add", found, rows)


def _weights(s: Scope, op: ops.Experts, scores: str) -> str:
    """The weight of each expert for each token, zero where it is not chosen."""
    if op.chosen == op.num_experts:
        return s.call("weights", "Softmax", scores, axis=-1)
    best, where = s.calls(["best", "where"], "TopK", scores, s.integers("k", [op.top_k]), axis=-1)
    if op.weights == "chosen":
        share = s.call("share", "Softmax", best, axis=-1)
    else:
        share = s.call("share", "GatherElements", s.call("softmax", "Softmax", scores, axis=-1), where, axis=-1)
    zeros = s.call("zeros", "Mul", scores, s.floats("zero", 0.0))
    return s.call("weights", "ScatterElements", zeros, where, share, axis=-1)


def _activated(s: Scope, op: ops.Experts, value: str) -> str:
    """A value after the experts' activation, which is spelled as a node of its own would be."""
    values, source, name = s.draft.values, s.node.inputs[0], s.node.name
    x, result = values[source], values[name]
    values[source], values[name] = value, f"{name}/active"
    _ACTIVATIONS[op.activation](
        replace(s, node=s.node.model_copy(update={"inputs": (source,)})), ACTIVATION[op.activation]
    )
    values[source], values[name] = x, result
    return f"{name}/active"
