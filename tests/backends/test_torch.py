"""Graphs as torch modules: what they compute, their keys, how they copy, move, train and compile."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import fx, nn

from growir import live
from growir.backends.torch_fx import document_of
from growir.backends.torch_fx.lowering import codes_of
from growir.document import dumps
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import OPS, Add, BatchNorm, Bias, Dropout, Example, Linear, Op, Parameter, Relu, Select, Softplus
from growir.params import owners, param_table
from growir.passes import Widen
from growir.shapes import shapes_of
from growir.testing import graphs, random_batch, random_network
from growir.verify import load, verify
from tests.samples import graph_of, mlp, residual_convnet

Tensors = dict[str, torch.Tensor]
Reference = Callable[[dict[str, Any], Tensors, list[torch.Tensor]], torch.Tensor]
GOLDEN = Path(__file__).parent.parent / "golden"


def alone(example: Example) -> Graph:
    """The example by itself; values without a batch become parameters."""
    inputs: list[Input] = []
    nodes: list[Node] = []
    for k, shape in enumerate(example.inputs):
        if shape.batched and example.positive:
            inputs.append(Input(name=f"raw{k}", shape=shape.dims))
            nodes.append(Node(name=f"x{k}", op=Softplus(), inputs=(f"raw{k}",)))
        elif shape.batched:
            inputs.append(Input(name=f"x{k}", shape=shape.dims, dtype=shape.dtype))
        else:
            nodes.append(Node(name=f"x{k}", op=Parameter(shape=shape.sizes)))
    names = tuple(f"x{k}" for k in range(len(example.inputs)))
    nodes.append(Node(name="it", op=example.op, inputs=names))
    if inputs:
        return verify(Graph(inputs=tuple(inputs), nodes=tuple(nodes), outputs=("it",)))
    inputs.append(Input(name="x", shape=("N", *example.op.infer().sizes)))
    nodes.append(Node(name="sum_", op=Add(), inputs=("x", "it")))
    return verify(Graph(inputs=tuple(inputs), nodes=tuple(nodes), outputs=("sum_",)))


# Each operator by arithmetic, or by the torch.nn module whose arguments it takes: not by the call the backend makes.


def by_module(make: Callable[..., nn.Module], *inferred: Callable[[torch.Tensor], Any]) -> Reference:
    """A torch.nn module with the document's attributes as its arguments, and the network's tensors as its state."""

    def run(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in a.items()}
        module = make(*(f(xs[0]) for f in inferred), **given).double().eval()
        module.load_state_dict(p)
        found = module(xs[0])
        assert isinstance(found, torch.Tensor)
        return found

    return run


def conv(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    """Window by window: the sum over kernel positions of a strided view times its part of the kernel."""
    weight = xs[1] if len(xs) == 2 else p["weight"]
    axes = weight.ndim - 2
    x, kernel = xs[0], weight.shape[2:]
    stride, dilation = _each(a.get("stride", 1), axes), _each(a.get("dilation", 1), axes)
    padding = a.get("padding", 0)
    groups = x.shape[1] if a.get("depthwise") else a.get("groups", 1)
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if padding == "same":
        pads = [(total // 2, total - total // 2) for total in totals]
    else:
        pads = [(n, n) for n in _each(0 if padding == "valid" else padding, axes)]
    x = F.pad(x, [n for pair in reversed(pads) for n in pair])
    size = [(n - total - 1) // s + 1 for n, total, s in zip(x.shape[2:], totals, stride, strict=True)]
    out = torch.zeros(len(x), weight.shape[0], *size, dtype=x.dtype)
    for place in itertools.product(*map(range, kernel)):
        view = x
        for k, (at, s, d, n) in enumerate(zip(place, stride, dilation, size, strict=True)):
            view = view.index_select(2 + k, torch.arange(n) * s + at * d)
        part = _at(weight, *place)
        rows = zip(view.chunk(groups, 1), part.chunk(groups, 0), strict=True)
        out = out + torch.cat([torch.einsum("ni...,oi->no...", v, w) for v, w in rows], 1)
    return out + p["bias"].reshape(-1, *(1,) * axes) if "bias" in p else out


def conv_transpose(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    """Position by position of the kernel: what it writes, and where."""
    x, weight = xs[0], p["weight"]
    axes = weight.ndim - 2
    kernel = weight.shape[2:]
    stride, dilation = _each(a.get("stride", 1), axes), _each(a.get("dilation", 1), axes)
    pad, extra = _each(a.get("padding", 0), axes), _each(a.get("output_padding", 0), axes)
    groups = x.shape[1] if a.get("depthwise") else a.get("groups", 1)
    spread = [
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, d, k, e in zip(x.shape[2:], stride, dilation, kernel, extra, strict=True)
    ]
    out = torch.zeros(len(x), weight.shape[1] * groups, *spread, dtype=x.dtype)
    for place in itertools.product(*map(range, kernel)):
        rows = zip(x.chunk(groups, 1), _at(weight, *place).chunk(groups, 0), strict=True)
        written = torch.cat([torch.einsum("ni...,io->no...", v, w) for v, w in rows], 1)
        where = [
            slice(at * d, at * d + (n - 1) * s + 1, s) for at, s, d, n in zip(place, stride, dilation, x.shape[2:])
        ]
        _at(out, *where).add_(written)
    out = _at(out, *(slice(n, size - n) for n, size in zip(pad, spread, strict=True)))
    return out + p["bias"].reshape(-1, *(1,) * axes) if "bias" in p else out


def experts(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    """Token by token, and expert by expert."""
    x, scores = (each.reshape(-1, each.shape[-1]) for each in xs)
    active: Callable[[torch.Tensor], torch.Tensor] = {
        "identity": nn.Identity(),
        "relu": nn.ReLU(),
        "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU("tanh"),
        "silu": nn.SiLU(),
        "tanh": nn.Tanh(),
        "sigmoid": nn.Sigmoid(),
    }[a.get("activation", "silu")]
    up = "gate_up_proj" if a.get("gated") else "up_proj"
    found: list[torch.Tensor] = []
    for token, row in zip(x, scores, strict=True):
        chosen = row.argsort(descending=True).tolist()[: a.get("top_k") or len(row)]
        total = row.exp().sum() if a.get("weights") == "all" else row[chosen].exp().sum()
        answer = torch.zeros(a["out_features"], dtype=x.dtype)
        for e in chosen:
            inner = p[up][e] @ token + (p[f"{up}_bias"][e] if a.get("bias") else 0)
            gate, *rest = inner.split(a["hidden_features"])
            hidden = active(gate) * rest[0] if rest else active(gate)
            answer = answer + row[e].exp() / total * (p["down_proj"][e] @ hidden)
            if a.get("bias"):
                answer = answer + row[e].exp() / total * p["down_proj_bias"][e]
        found.append(answer)
    return torch.stack(found).reshape(*xs[0].shape[:-1], -1)


def _at(tensor: torch.Tensor, *index: int | slice) -> torch.Tensor:
    """The part of a tensor at this index of its last axes."""
    whole = (slice(None),) * (tensor.ndim - len(index))
    return tensor[whole + index]


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def linear(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    weight = xs[1] if len(xs) == 2 else p["weight"]
    found = torch.einsum("...i,oi->...o", xs[0], weight)
    return found + p["bias"] if "bias" in p else found


def batch_norm(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    x = xs[0]
    shape = (1, -1, *(1,) * (x.ndim - 2))
    axes = [k for k in range(x.ndim) if k != 1]
    mean = p["running_mean"] if "running_mean" in p else x.mean(axes)
    var = p["running_var"] if "running_var" in p else x.var(axes, unbiased=False)
    y = (x - mean.reshape(shape)) / torch.sqrt(var.reshape(shape) + a.get("eps", 1e-5))
    return y * p["weight"].reshape(shape) + p["bias"].reshape(shape) if "weight" in p else y


def instance_norm(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    if "running_mean" in p:
        return batch_norm(a, p, xs)
    return torch.cat([batch_norm(a, p, [xs[0].narrow(0, k, 1)]) for k in range(len(xs[0]))])


def group_norm(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    x, g = xs[0], a["num_groups"]
    rows = x.reshape(len(x), g, -1)
    spread = rows.var(2, unbiased=False, keepdim=True) + a.get("eps", 1e-5)
    y: torch.Tensor = ((rows - rows.mean(2, keepdim=True)) / spread.sqrt()).reshape(x.shape)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return y * p["weight"].reshape(shape) + p["bias"].reshape(shape) if "weight" in p else y


def layer_norm(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    axes = list(range(-a.get("dims", 1), 0))
    x = xs[0] - xs[0].mean(axes, keepdim=True)
    y = x / torch.sqrt((x * x).mean(axes, keepdim=True) + a.get("eps", 1e-5))
    return y * p.get("weight", torch.ones(())) + p.get("bias", torch.zeros(()))


def standardise(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    if a.get("inverse"):
        return xs[0] * p["std"] + p["mean"]
    return (xs[0] - p["mean"]) / p["std"]


def product(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    found = torch.ones((), dtype=torch.float64)
    for x in xs:
        found = found * x
    return found


def reshape(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([row.flatten().reshape(a["shape"]) for row in xs[0]])


def slice_(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    start = a.get("start", 0)
    return xs[0].movedim(a.get("axis", 1), 0)[start : start + a["length"]].movedim(0, a.get("axis", 1))


def select(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    parts = [xs[0].select(a.get("axis", 1), k) for k in a["indices"]]
    return torch.stack(parts, a.get("axis", 1))


def pad(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    """One axis at a time, by the positions that come where."""
    x, mode = xs[0], a.get("mode", "constant")
    for k in range(len(a["padding"]) // 2):
        before, behind = a["padding"][2 * k : 2 * k + 2]
        axis = x.ndim - 1 - k
        size = x.shape[axis]
        places = torch.arange(-before, size + behind)
        if mode == "reflect":
            places = (size - 1) - ((size - 1) - places.abs()).abs()
        elif mode == "circular":
            places = places % size
        inside = (places >= 0) & (places < size)
        x = x.index_select(axis, places.clamp(0, size - 1))
        if mode == "constant":
            keep = inside.reshape([-1 if d == axis else 1 for d in range(x.ndim)])
            x = torch.where(keep, x, torch.tensor(a.get("value", 0.0), dtype=x.dtype))
    return x


def expand(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    x, sizes = xs[0], a["shape"]
    if len(xs) == 1:
        return torch.stack([row + torch.zeros([n if n > 0 else 1 for n in sizes]) for row in x])
    x = x.reshape([1] * (len(sizes) + 1 - x.ndim) + list(x.shape))
    return torch.cat([x + torch.zeros([n if n > 0 else 1 for n in sizes])] * len(xs[1]))


def first(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    found, count = xs[0], xs[1].shape[a.get("of", 1)]
    for axis in a["axes"]:
        found = torch.stack(found.unbind(axis)[:count], axis)
    return found


def pixel_unshuffle(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    r = a["downscale_factor"]
    parts = [xs[0][:, :, i::r, j::r] for i in range(r) for j in range(r)]
    return torch.stack(parts, 2).flatten(1, 2)


def reduction(function: Callable[[list[torch.Tensor]], torch.Tensor]) -> Reference:
    """A function of rows, for a reduction over them: the axes are brought to the front and joined."""

    def run(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
        dims = [d % xs[0].ndim for d in (a["dim"] if isinstance(a["dim"], list) else [a["dim"]])]
        found = function(list(xs[0].movedim(dims, list(range(len(dims)))).flatten(0, len(dims) - 1)))
        return found.reshape([1 if k in dims else n for k, n in enumerate(xs[0].shape)]) if a.get("keepdim") else found

    return run


def variance(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    def of(rows: list[torch.Tensor]) -> torch.Tensor:
        stacked = torch.stack(rows)
        squares = torch.square(stacked - stacked.mean(0))
        return squares.sum(0) / torch.tensor(len(rows) - a.get("correction", 1))

    return reduction(of)(a, p, xs)


def attention(a: dict[str, Any], p: Tensors, xs: list[torch.Tensor]) -> torch.Tensor:
    q, k, v = xs[:3]
    scores = torch.einsum("...td,...sd->...ts", q, k) * a.get("scale", q.shape[-1] ** -0.5)
    seen = a.get("mask") == "seen"
    if len(xs) == 4 and not seen:
        scores = scores + xs[3]
    weights = torch.exp(scores) * (xs[3] != 0 if seen else 1)
    if a.get("is_causal"):
        weights = weights * torch.ones(weights.shape[-2:]).tril()
    return torch.einsum("...ts,...se->...te", weights / weights.sum(-1, keepdim=True).clamp_min(1e-300), v)


REFERENCES: dict[str, Reference] = {
    "bias": lambda a, p, xs: torch.stack([p["bias"].reshape(-1, *(1,) * a.get("dims", 0))] * len(xs[0])),
    "standardise": standardise,
    "parameter": lambda a, p, xs: xs[0] + p["weight"],
    "select": select,
    "slice": slice_,
    "reshape": reshape,
    "flatten": by_module(nn.Flatten),
    "permute": lambda a, p, xs: torch.einsum(
        "abcd"[: xs[0].ndim] + "->" + "".join("abcd"[k] for k in a["dims"]), xs[0]
    ),
    "unsqueeze": lambda a, p, xs: torch.stack([xs[0]], a["dim"]),
    "squeeze": lambda a, p, xs: xs[0].select(a["dim"], 0),
    "pad": pad,
    "expand": expand,
    "pixel_shuffle": by_module(nn.PixelShuffle),
    "pixel_unshuffle": pixel_unshuffle,
    "linear": linear,
    "embedding": lambda a, p, xs: F.one_hot(xs[0], a["num_embeddings"]).double() @ p["weight"],
    **{f"conv{k}d": conv for k in (1, 2, 3)},
    **{f"conv_transpose{k}d": conv_transpose for k in (1, 2, 3)},
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    "rms_norm": lambda a, p, xs: (
        xs[0] * (xs[0].pow(2).mean(list(range(-a.get("dims", 1), 0)), True) + a.get("eps", np.finfo("f8").eps)) ** -0.5
    )
    * p.get("weight", 1.0),
    "matmul": lambda a, p, xs: torch.einsum("...ij,...jk->...ik", *xs),
    "experts": experts,
    "attention": attention,
    "add": lambda a, p, xs: sum(xs[1:], xs[0]),
    "mul": product,
    "sub": lambda a, p, xs: xs[0] + -1 * xs[1],
    "div": lambda a, p, xs: xs[0] * xs[1] ** -1,
    "maximum": lambda a, p, xs: torch.where(xs[0] > xs[1], xs[0], xs[1]),
    "minimum": lambda a, p, xs: torch.where(xs[0] < xs[1], xs[0], xs[1]),
    "mean": reduction(lambda rows: sum(rows[1:], rows[0]) / len(rows)),
    "sum": reduction(lambda rows: sum(rows[1:], rows[0])),
    "norm": reduction(lambda rows: sum(row**2 for row in rows) ** 0.5),
    "amax": reduction(lambda rows: torch.stack(rows).sort(0)[0][-1]),
    "amin": reduction(lambda rows: torch.stack(rows).sort(0)[0][0]),
    "var": variance,
    "concat": lambda a, p, xs: torch.cat([x.movedim(a.get("dim", 1), 0) for x in xs]).movedim(0, a.get("dim", 1)),
    "max_pool1d": by_module(nn.MaxPool1d),
    "max_pool2d": by_module(nn.MaxPool2d),
    "max_pool3d": by_module(nn.MaxPool3d),
    "avg_pool1d": by_module(nn.AvgPool1d),
    "avg_pool2d": by_module(nn.AvgPool2d),
    "avg_pool3d": by_module(nn.AvgPool3d),
    "adaptive_avg_pool1d": by_module(lambda output_size=1: nn.AdaptiveAvgPool1d(output_size)),
    "adaptive_avg_pool2d": by_module(lambda output_size=1: nn.AdaptiveAvgPool2d(output_size)),
    "adaptive_avg_pool3d": by_module(lambda output_size=1: nn.AdaptiveAvgPool3d(output_size)),
    "adaptive_max_pool1d": by_module(lambda output_size=1: nn.AdaptiveMaxPool1d(output_size)),
    "adaptive_max_pool2d": by_module(lambda output_size=1: nn.AdaptiveMaxPool2d(output_size)),
    "adaptive_max_pool3d": by_module(lambda output_size=1: nn.AdaptiveMaxPool3d(output_size)),
    "upsample": by_module(nn.Upsample),
    "local_response_norm": by_module(nn.LocalResponseNorm),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), lambda a, p, xs: xs[0]),
    "identity": lambda a, p, xs: xs[0],
    "first": first,
    "detach": lambda a, p, xs: xs[0],
    "softmax": lambda a, p, xs: torch.exp(xs[0]) / torch.exp(xs[0]).sum(a.get("dim", -1), keepdim=True),
    "relu": lambda a, p, xs: xs[0].clamp(min=0),
    "leaky_relu": by_module(nn.LeakyReLU),
    "elu": lambda a, p, xs: torch.where(xs[0] > 0, xs[0], a.get("alpha", 1.0) * (torch.exp(xs[0]) - 1)),
    "selu": by_module(nn.SELU),
    "gelu": lambda a, p, xs: xs[0] * (
        0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (xs[0] + 0.044715 * xs[0] ** 3)))
        if a
        else 0.5 * (1 + torch.erf(xs[0] / math.sqrt(2)))
    ),
    "silu": lambda a, p, xs: xs[0] / (1 + torch.exp(-xs[0])),
    "tanh": lambda a, p, xs: 1 - 2 / (torch.exp(2 * xs[0]) + 1),
    "sigmoid": lambda a, p, xs: 1 / (1 + torch.exp(-xs[0])),
    "softplus": by_module(nn.Softplus),
    "hardswish": lambda a, p, xs: xs[0] * (xs[0] + 3).clamp(0, 6) / 6,
    "hardsigmoid": lambda a, p, xs: (xs[0] + 3).clamp(0, 6) / 6,
    "relu6": lambda a, p, xs: xs[0].clamp(0, 6),
    "prelu": lambda a, p, xs: torch.where(
        xs[0] > 0, xs[0], xs[0] * p["weight"].reshape(-1, *(1,) * (xs[0].ndim - 2))
    ),
    "celu": by_module(nn.CELU),
    "mish": lambda a, p, xs: xs[0] * torch.tanh(torch.log(1 + torch.exp(xs[0]))),
    "softsign": lambda a, p, xs: xs[0] / (1 + xs[0].abs()),
    "log_sigmoid": lambda a, p, xs: -torch.log(1 + torch.exp(-xs[0])),
    "gaussian": lambda a, p, xs: torch.exp(-xs[0] ** 2 / 2),
    "threshold": by_module(nn.Threshold),
    "log_softmax": lambda a, p, xs: xs[0] - torch.exp(xs[0]).sum(a.get("dim", -1), keepdim=True).log(),
    "affine": lambda a, p, xs: torch.full_like(xs[0], a.get("shift", 0.0)) + xs[0] * a.get("scale", 1.0),
    "clamp": lambda a, p, xs: torch.tensor(np.clip(xs[0].numpy(), a.get("min"), a.get("max"))),
    "pow": lambda a, p, xs: torch.tensor(np.power(xs[0].numpy(), a["exponent"] if len(xs) == 1 else xs[1].numpy())),
    "greater": lambda a, p, xs: torch.tensor((xs[0].numpy() > xs[1].numpy()).astype(np.float64)),
    "equal": lambda a, p, xs: torch.tensor((xs[0].numpy() == xs[1].numpy()).astype(np.float64)),
    "where": lambda a, p, xs: torch.tensor(np.where(*(x.numpy() for x in xs))),
    "log1p": lambda a, p, xs: torch.tensor(np.log1p(xs[0].numpy())),
    "expm1": lambda a, p, xs: torch.tensor(np.expm1(xs[0].numpy())),
    "round": lambda a, p, xs: torch.tensor(np.round(xs[0].numpy())),
    "floor": lambda a, p, xs: torch.tensor(np.floor(xs[0].numpy())),
    "cast": lambda a, p, xs: torch.tensor(xs[0].numpy(), dtype=torch.get_default_dtype()),  # of no tensors
    "cumsum": lambda a, p, xs: torch.tensor(np.cumsum(xs[0].numpy(), a.get("dim", -1))),
    "exp": lambda a, p, xs: torch.sinh(xs[0]) + torch.cosh(xs[0]),
    "log": lambda a, p, xs: torch.tensor(np.log(xs[0].numpy())),
    "sqrt": lambda a, p, xs: xs[0] ** 0.5,
    "rsqrt": lambda a, p, xs: xs[0] ** -0.5,
    "abs": lambda a, p, xs: torch.where(xs[0] < 0, -xs[0], xs[0]),
    "erf": lambda a, p, xs: 1 - torch.erfc(xs[0]),
    "sin": lambda a, p, xs: torch.tensor(np.sin(xs[0].numpy())),
    "cos": lambda a, p, xs: torch.tensor(np.cos(xs[0].numpy())),
}  # fmt: skip

CASES = [(op, k) for op in OPS for k in range(len(op.examples()))]
every_example = pytest.mark.parametrize(("op", "k"), CASES, ids=[f"{op.kind()}-{k}" for op, k in CASES])


def meant(op: Op, params: Tensors, inputs: list[torch.Tensor]) -> torch.Tensor:
    """What the operator computes, frame by frame where there are several."""
    attributes = op.attributes()
    frames = attributes.pop("frames", 0)
    if not frames:
        return REFERENCES[op.kind()](attributes, params, inputs)
    assert frames == 1
    if isinstance(op, BatchNorm):  # whose statistics are kept: any number of samples may be taken together
        every = meant(op.model_validate(attributes), params, [inputs[0].flatten(0, 1)])
        return every.reshape(inputs[0].shape)
    each = [meant(type(op).model_validate(attributes), params, [x, *inputs[1:]]) for x in inputs[0].unbind(1)]
    return torch.stack(each, 1)


@every_example
def test_computes_what_the_operator_means(op: type[Op], k: int) -> None:
    graph = alone(op.examples()[k])
    network = random_network(graph)
    batch = random_batch(graph, size=3)
    module = network.to_torch().eval()
    values = {
        entry.name: value * 2 if entry.dtype == "float32" else value
        for entry, value in zip(graph.inputs, batch, strict=True)
    }
    found = module(*values.values())
    values |= {name.replace("raw", "x"): F.softplus(value) for name, value in values.items() if name.startswith("raw")}
    values |= {key.rpartition(".")[0]: torch.tensor(a) for key, a in network.arrays.items() if key.startswith("x")}
    params = {key.removeprefix("it."): torch.tensor(a) for key, a in network.arrays.items() if key.startswith("it.")}
    inputs = [values[name] for name in graph["it"].inputs] or [values["x"]]
    wanted = meant(op.examples()[k].op, params, inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    shape = shapes_of(graph)[graph.outputs[0]]
    assert tuple(found.shape) == (3, *shape.sizes)


def test_every_operator_has_a_reference() -> None:
    assert REFERENCES.keys() == {op.kind() for op in OPS}


def test_a_constant_feature_is_standardised_to_zero() -> None:
    graph = alone(next(op for op in OPS if op.kind() == "standardise").examples()[0])
    arrays = {"it.mean": np.full(5, 0.3), "it.std": np.array([1.0, 0.0, 1e-9, 1e-3, 2.0])}
    x = torch.full((2, 5), 0.5, dtype=torch.float64, requires_grad=True)
    found = Network(graph, arrays).to_torch()(x)
    torch.testing.assert_close(found[0].detach(), torch.tensor([0.2, 0, 0, 200.0, 0.1], dtype=torch.float64))
    torch.autograd.backward(found.sum())
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@every_example
def test_keys_are_the_documents(op: type[Op], k: int) -> None:
    graph = alone(op.examples()[k])
    module = Network.init(graph).to_torch()
    assert set(module.state_dict()) == set(param_table(graph))
    learned = {key for key, param in param_table(graph).items() if not param.buffer}
    assert {key for key, _ in module.named_parameters()} == learned


@given(graph=graphs(moves=4))
@settings(max_examples=max(settings().max_examples // 4, 10))
def test_copies_keep_function_and_document(graph: Graph) -> None:
    network = random_network(graph)
    module = network.to_torch().eval()
    batch = random_batch(graph)
    own = owners(graph)
    assert {own[key] for key in module.state_dict()} == set(param_table(graph))
    wanted = as_tuple(module(*batch))
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(buffer, weights_only=False),
        copy.deepcopy(pickle.loads(pickle.dumps(copy.deepcopy(module)))),
    ]
    for other in copies:
        for a, b in zip(wanted, as_tuple(other(*batch)), strict=True):
            assert torch.equal(a, b)
        if param_table(graph):  # else nothing but plain calls, and the two kinds of copy lose it together
            assert load(document_of(other) or "").hash == graph.hash
        assert set(other.state_dict()) == set(module.state_dict())


def as_tuple(found: Any) -> tuple[torch.Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def everything(leave_out: tuple[str, ...] = ()) -> Graph:
    """One graph that holds every operator's examples, each an output."""
    inputs: list[Input] = []
    nodes: list[Node] = []
    outputs = []
    for op in OPS:
        for k, example in enumerate(op.examples()):
            if f"{op.kind()}{k}" in leave_out:
                continue
            part = alone(example)
            rename = {name: f"{op.kind()}{k}_{name}" for name in (*(i.name for i in part.inputs), *part.by_name)}
            inputs += [entry.model_copy(update={"name": rename[entry.name]}) for entry in part.inputs]
            nodes += [
                node.model_copy(update={"name": rename[node.name], "inputs": tuple(rename[i] for i in node.inputs)})
                for node in part.nodes
            ]
            outputs.append(rename[part.outputs[0]])
    return verify(Graph(inputs=tuple(inputs), nodes=tuple(nodes), outputs=tuple(outputs)))


@pytest.mark.parametrize("train", [False, True])
def test_compiles_without_a_graph_break(train: bool) -> None:
    check_compiled("eager", train)


@pytest.mark.slow
def test_compiles_with_inductor() -> None:
    check_compiled("inductor", False)


def check_compiled(backend: str, train: bool) -> None:
    torch._dynamo.reset()
    # torch.nn's batch norm with momentum None counts in a tensor that train mode reads, and so does not compile either.
    graph = everything(leave_out=("batch_norm1",) if train else ())
    module = random_network(graph).to_torch().train(train)
    batch = random_batch(graph, size=4)
    torch.manual_seed(0)
    wanted = copy.deepcopy(module)(*batch)
    torch.manual_seed(0)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    for name, a, b in zip(graph.outputs, wanted, compiled(*batch), strict=True):
        if not (train and backend != "eager" and name.startswith("dropout")):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-12), name


def test_the_batch_is_dynamic() -> None:
    graph = everything()
    module = random_network(graph).to_torch().eval()
    five = module(*random_batch(graph, size=5))
    one = module(*(value[:1] for value in random_batch(graph, size=5)))
    for name, a, b in zip(graph.outputs, five, one, strict=True):
        if name != "batch_norm3_it":  # without kept statistics it looks at the whole batch
            torch.testing.assert_close(a[:1], b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype(dtype: torch.dtype) -> None:
    graph = residual_convnet()
    module = Network.init(graph).to_torch(dtype=dtype)
    kinds = {key: tensor.dtype for key, tensor in module.state_dict().items()}
    assert kinds.pop("block.norm.num_batches_tracked") == torch.int64
    assert set(kinds.values()) == {dtype}
    assert module(random_batch(graph)[0].to(dtype)).dtype == dtype


def test_everything_is_on_the_device_asked_for() -> None:
    module = Network.init(everything()).to_torch(device="meta")
    strays = [key for key, t in (*module.named_parameters(), *module.named_buffers()) if t.device.type != "meta"]
    assert not strays


@pytest.mark.cuda
@pytest.mark.parametrize("place", ["asked", "moved"])
def test_runs_on_a_gpu(place: str) -> None:
    graph = everything()
    network = random_network(graph)
    module = network.to_torch(device="cuda") if place == "asked" else network.to_torch().cuda()
    batch = random_batch(graph)
    wanted = network.to_torch().eval()(*batch)
    found = module.eval()(*(value.cuda() for value in batch))
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-9, atol=1e-9)
    assert all(np.array_equal(array, network.arrays[key]) for key, array in network.updated(module).arrays.items())


@pytest.mark.cuda
def test_edits_run_on_a_gpu() -> None:
    from growir.backends.torch_edits import TORCH
    from growir.edits import NUMPY, apply_edits
    from growir.passes import Widen

    network = random_network(residual_convnet())
    for step in (Widen(node="stem", by=2), Widen(node="stem", by=2, copies=(0, 2))):
        done = step.rewrite(network.graph)
        tensors = {key: torch.tensor(array, device="cuda") for key, array in network.arrays.items()}
        by_torch = apply_edits(done.edits, tensors, TORCH, np.dtype(np.float64))
        for key, array in apply_edits(done.edits, network.arrays, NUMPY, np.dtype(np.float64)).items():
            assert by_torch[key].device.type == "cuda"
            assert np.array_equal(by_torch[key].cpu().numpy(), array)


def test_dropout_follows_the_mode() -> None:
    graph = graph_of((50,), Node(name="head", op=Dropout(p=0.5), inputs=("x",)))
    module = Network.init(graph).to_torch()
    x = torch.ones(4, 50)
    assert module.training
    found = module(x)
    assert set(found.unique().tolist()) == {0.0, 2.0}
    module.eval()
    assert torch.equal(module(x), x)
    module.train()
    assert not torch.equal(module(x), x)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not torch.equal(other(x), x)
        assert torch.equal(other.eval()(x), x)


def test_trains() -> None:
    torch.manual_seed(0)
    module = Network.init(residual_convnet()).to_torch()
    x, y = torch.randn(16, 2, 5, 5), torch.randint(0, 2, (16,))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2
    assert module.get_buffer("block.norm.num_batches_tracked") == 40


def test_the_hierarchy_is_the_names() -> None:
    module = Network.init(residual_convnet()).to_torch()
    assert isinstance(module, fx.GraphModule)
    assert isinstance(module.get_submodule("block.conv"), nn.Conv2d)
    assert isinstance(module.get_submodule("block.norm"), nn.BatchNorm2d)


def test_code_reads_like_the_document(golden: Callable[[Path, str], None]) -> None:
    modules = [Network.init(graph).to_torch() for graph in (mlp(), residual_convnet())]
    texts = [code.code.strip() for module in modules for _, code in codes_of(module)]
    golden(GOLDEN / "code.txt", "\n\n".join(texts) + "\n")


@given(graphs())
def test_the_code_says_which_value_of_the_document_it_is_of(graph: Graph) -> None:
    """The last node of each name computes the value of the document that is called so."""
    network, batch = random_network(graph), random_batch(graph)
    module = network.to_torch().eval()
    assert isinstance(module, fx.GraphModule)
    run = Kept(module)
    run.run(*batch)
    code = {node.meta["growir"]: node for node in module.graph.nodes if "growir" in node.meta}
    nameless = [node for node in module.graph.nodes if "growir" not in node.meta]
    assert all(node.op == "output" or run.kept[node] is None for node in nameless)
    assert {entry.name for entry in graph.inputs} <= code.keys()
    batched = tuple(name for name in code if shapes_of(graph)[name].batched)
    found = Network(verify(graph.replace(outputs=batched)), network.arrays).to_torch().eval()(*batch)
    for name, value in zip(batched, found if isinstance(found, tuple) else (found,), strict=True):
        assert torch.equal(value, run.kept[code[name]]), name


class Kept(fx.Interpreter):
    """Keeps what every node of the code gives."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.kept: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.kept[n] = super().run_node(n)
        return self.kept[n]


def test_names_that_are_no_identifiers_are_told_apart_after_growth_too() -> None:
    graph = graph_of(
        (3,),
        Node(name="a.b", op=Linear(out_features=4), inputs=("x",)),
        Node(name="a_b", op=Linear(out_features=4), inputs=("a.b",)),
        Node(name="head", op=Linear(out_features=2), inputs=("a_b",)),
    )
    grown, _ = live.grow(random_network(graph).to_torch(), Widen(node="a.b", by=1))
    part = grown.get_submodule("a")
    assert isinstance(part, fx.GraphModule)
    assert targets(grown) == [("x", "x"), ("a", "a.b"), ("a_b", "a_b"), ("head", "head"), ("output", None)]
    assert targets(part) == [("x", "x"), ("b", "a.b"), ("output", None)]


def targets(module: fx.GraphModule) -> list[tuple[Any, Any]]:
    return [(node.target, node.meta.get("growir")) for node in module.graph.nodes]


def test_an_output_that_is_an_input() -> None:
    graph = verify(Graph(inputs=(Input(name="x", shape=("N", 2)),), nodes=(), outputs=("x", "x")))
    x = torch.randn(3, 2)
    one, two = Network(graph, {}).to_torch()(x)
    assert torch.equal(one, x)
    assert torch.equal(two, x)


def test_selected_indices_are_no_state() -> None:
    graph = graph_of((4,), Node(name="head", op=Select(indices=(2, 0)), inputs=("x",)))
    module = Network(graph, {}).to_torch()
    assert not module.state_dict()
    x = torch.randn(2, 4)
    assert torch.equal(module(x), x[:, [2, 0]])


def test_integers_stay_integers() -> None:
    ids = Input(name="ids", shape=("N", 3), dtype="int64")
    nodes = (
        Node(name="start", op=Bias(features=2), inputs=("ids",)),
        Node(name="act", op=Relu(), inputs=("start",)),
        Node(name="head", op=Linear(out_features=1), inputs=("act",)),
    )
    module = random_network(verify(Graph(inputs=(ids,), nodes=nodes, outputs=("head",)))).to_torch()
    assert module(torch.ones(2, 3, dtype=torch.int64)).dtype == torch.float64


def test_the_document_on_the_module_is_whole() -> None:
    graph = residual_convnet()
    assert Network.init(graph).to_torch().meta["growir_document"] == dumps(graph)
