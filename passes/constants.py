"""What a channel is when nothing feeds it any more: the constant that biases, norms and activations leave of zero.

Pruning such a channel is exact once the constant is added to the biases of what read it. Constants are worked out when
edits run, from the tensors of that network, by formulas that numpy and torch share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from growir import ops
from growir.errors import PassRefused, cut
from growir.graph import Graph, Node
from growir.ops.base import Framed, pair
from growir.params import owners
from growir.shapes import shapes_of

Vector = Any  # of numpy or of torch


@dataclass(frozen=True, slots=True)
class Constant:
    """Numbers along one axis of a value: a formula of the backend and the tensors it needs."""

    sources: tuple[str, ...]
    formula: Callable[..., Vector]


def _same(x: Vector) -> Vector:
    return x


def _relu(x: Vector) -> Vector:
    return (x + abs(x)) / 2


def _clamp(x: Vector, low: float | None, high: float | None) -> Vector:
    if low is not None:
        x = low + _relu(x - low)
    return x if high is None else high - _relu(high - x)


def _sigmoid(x: Vector) -> Vector:
    return 1 / (1 + math.e ** (-x))


# By operators that arrays of numpy and of torch have alike.
ACTIVATIONS: Mapping[type[ops.Op], Callable[[Any, Vector], Vector]] = {
    ops.Identity: lambda _, x: x,
    ops.Detach: lambda _, x: x,
    ops.Dropout: lambda _, x: x,
    ops.Relu: lambda _, x: _relu(x),
    ops.Relu6: lambda _, x: _clamp(x, 0, 6),
    ops.LeakyRelu: lambda op, x: _relu(x) - op.negative_slope * _relu(-x),
    ops.Elu: lambda op, x: _relu(x) + op.alpha * (math.e ** (-_relu(-x)) - 1),
    ops.Sigmoid: lambda _, x: _sigmoid(x),
    ops.Tanh: lambda _, x: 2 * _sigmoid(2 * x) - 1,
    ops.Silu: lambda _, x: x * _sigmoid(x),
    ops.Hardswish: lambda _, x: x * _clamp(x + 3, 0, 6) / 6,
    ops.Hardsigmoid: lambda _, x: _clamp(x + 3, 0, 6) / 6,
    ops.Gaussian: lambda _, x: math.e ** (-(x**2) / 2),
    ops.Affine: lambda op, x: op.scale * x + op.shift,
    ops.Clamp: lambda op, x: _clamp(x, op.min, op.max),
}


def constant_of(graph: Graph, value: str, axis: int) -> Constant:
    """What stands along an axis of a value where no layer before it lets anything through.

    Raises:
        PassRefused: The way there leads through something whose answer to a constant is no constant, or not known.
    """
    if value not in graph:
        raise PassRefused(f"{cut(value)} is a graph input, which is not constant")
    node = graph[value]
    op = node.op
    x = node.inputs[0] if node.inputs else ""
    if type(op) in ACTIVATIONS:
        return _then(constant_of(graph, x, axis), partial(ACTIVATIONS[type(op)], op))
    if isinstance(op, Framed) and op.frames:
        raise PassRefused(f"what {cut(value)} ({op.kind()}) makes of constant channels in frames is not known")
    match op:
        case ops.BatchNorm() if op.track_running_stats and axis == 1:
            return _normed(graph, node, constant_of(graph, x, axis))
        case ops.Conv2d() if op.depthwise and axis == 1:
            return _depthwise(graph, node, op, constant_of(graph, x, axis))
        case ops.Linear() | ops.Conv2d() if len(node.inputs) == 1:
            width = shapes_of(graph)[value].size(axis)
            if op.bias:
                return Constant((_key(graph, node, "bias"),), _itself)
            return Constant((_key(graph, node, "weight"),), partial(_nothing, width))
        case ops.MaxPool2d() | ops.AdaptiveAvgPool2d() if axis == 1:
            return constant_of(graph, x, axis)
        case ops.AvgPool2d() if axis == 1 and pair(op.padding) == (0, 0) and op.divisor_override is None:
            return constant_of(graph, x, axis)
        case ops.Flatten() if shapes_of(graph)[value].rank == 2:
            each = shapes_of(graph)[x].elements // shapes_of(graph)[x].size(1)
            return _then(constant_of(graph, x, 1), _same, each)
        case ops.Add() | ops.Mul() if len({shapes_of(graph)[i].dims for i in node.inputs}) == 1:
            parts = [constant_of(graph, i, axis) for i in node.inputs]
            return _joined(parts, math.prod if isinstance(op, ops.Mul) else sum)
        case ops.Concat() if op.dim % shapes_of(graph)[value].rank == axis:
            return _stacked([constant_of(graph, i, axis) for i in node.inputs])
        case _:
            raise PassRefused(f"what {cut(value)} ({op.kind()}) makes of constant channels is not known")


def added_bias(graph: Graph, node: Node, biased: bool, constant: Constant, gone: np.ndarray) -> Constant:
    """The bias of a layer after its input's channels `gone` are replaced by their constants: b + sum W c."""

    def formula(backend: Any, weight: Any, *rest: Any) -> Any:
        old, sources = (rest[0], rest[1:]) if biased else (0.0, rest)
        kernel = weight.reshape(*backend.shape(weight)[:2], -1).sum(2)
        c = backend.take(constant.formula(backend, *sources), 0, gone)
        return old + backend.take(kernel, 1, gone) @ c

    own = (_key(graph, node, "weight"), *([_key(graph, node, "bias")] if biased else []))
    return Constant((*own, *constant.sources), formula)


def _key(graph: Graph, node: Node, parameter: str) -> str:
    return owners(graph)[f"{node.name}.{parameter}"]


def _itself(_: Any, vector: Vector) -> Vector:
    return vector


def _nothing(width: int, backend: Any, weight: Any) -> Vector:
    """Zeros with the weight's own dtype and device."""
    flat = weight.reshape(-1)
    return backend.take(flat, 0, np.zeros(width, np.int64)) * 0


def _repeats(count: int, each: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(count), each)


def _then(before: Constant, function: Callable[[Vector], Vector], each: int = 1) -> Constant:
    def formula(backend: Any, *sources: Any) -> Vector:
        x: Any = function(before.formula(backend, *sources))
        return x if each == 1 else backend.take(x, 0, _repeats(backend.shape(x)[0], each))

    return Constant(before.sources, formula)


def _normed(graph: Graph, node: Node, before: Constant) -> Constant:
    op = node.op
    assert isinstance(op, ops.BatchNorm)
    names = ["running_mean", "running_var", *(["weight", "bias"] if op.affine else [])]

    def formula(backend: Any, mean: Any, var: Any, *rest: Any) -> Vector:
        scale, shift = rest[:2] if op.affine else (1.0, 0.0)
        x: Any = before.formula(backend, *rest[2 if op.affine else 0 :])
        return (x - mean) / (var + op.eps) ** 0.5 * scale + shift

    return Constant((*(_key(graph, node, name) for name in names), *before.sources), formula)


def _depthwise(graph: Graph, node: Node, op: ops.Conv2d, before: Constant) -> Constant:
    names = ["weight", *(["bias"] if op.bias else [])]

    def formula(backend: Any, weight: Any, *rest: Any) -> Vector:
        x: Any = before.formula(backend, *rest[int(op.bias) :])
        spread = backend.take(x, 0, _repeats(backend.shape(x)[0], op.multiplier))
        made = weight.reshape(backend.shape(weight)[0], -1).sum(1) * spread
        return made + rest[0] if op.bias else made

    return Constant((*(_key(graph, node, name) for name in names), *before.sources), formula)


def _joined(parts: list[Constant], join: Callable[[Any], Any]) -> Constant:
    def formula(backend: Any, *sources: Any) -> Vector:
        return join(_each(parts, backend, sources))

    return Constant(_all_sources(parts), formula)


def _stacked(parts: list[Constant]) -> Constant:
    def formula(backend: Any, *sources: Any) -> Vector:
        return backend.join(_each(parts, backend, sources))

    return Constant(_all_sources(parts), formula)


def _all_sources(parts: list[Constant]) -> tuple[str, ...]:
    return tuple(key for part in parts for key in part.sources)


def _each(parts: list[Constant], backend: Any, sources: tuple[Any, ...]) -> list[Vector]:
    found: list[Vector] = []
    for part in parts:
        found.append(part.formula(backend, *sources[: len(part.sources)]))
        sources = sources[len(part.sources) :]
    return found
