"""Calls that reduce axes: means, sums, maxima, and norms made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from growir.backends.torch_export import pointwise
from growir.backends.torch_export.calls import Call
from growir.backends.torch_export.layout import reshaped, row_by_row
from growir.backends.torch_export.pointwise import each
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Held, Layout, Unsupported, Value
from growir.ops import Abs, Add, Amax, Amin, Cast, Cumsum, Equal, Exp, Log, Mean, Mul, Norm, Op, Sqrt, Sub, Sum, Var

Handler = Callable[[Reader, Call], Any]


def reduced(r: Reader, make: Callable[..., Op], x: Value, dims: list[int], keepdim: bool) -> Value:
    """A reduction over some of the model's axes; none given means all."""
    if not dims:
        dims = list(range(x.rank))
    dims = sorted(x.dim(d) for d in dims)
    axes = tuple(sorted(x.axis(d, "reduces") for d in dims))
    if not x.batched and len(dims) == x.rank and not keepdim:  # one number, which has an axis in a graph
        return row_by_row(r, r.emit(make(dim=axes, keepdim=True), x), (1,), -1)
    out = r.emit(make(dim=axes, keepdim=keepdim), x)
    if not x.batched:
        return out
    gone = 0 if keepdim else sum(d < x.layout.place for d in dims)
    return out.at(Layout(x.layout.place - gone, x.layout.outer, x.layout.inner))


def over(make: Callable[..., Op]) -> Handler:
    """A call with `dim` and `keepdim`."""

    def handle(r: Reader, c: Call) -> Value:
        return reduced(r, make, c.value("self"), c.ints("dim"), bool(c.get("keepdim")))

    return handle


def extremum(kind: type[Amax | Amin], name: str) -> Handler:
    """torch.max and torch.min: of two tensors, or over an axis, where nobody may read where the extremes stand."""

    def handle(r: Reader, c: Call) -> Any:
        if "other" in c.arguments:
            return pointwise.TABLE[name](r, c)
        if "dim" not in c.arguments:
            raise Unsupported("is taken over the batch, too; a graph never mixes samples")
        return reduced(r, kind, c.value("self"), c.ints("dim"), bool(c.get("keepdim"))), None

    return handle


def var(r: Reader, c: Call) -> Value:
    correction = c.arguments.get("correction")
    if "unbiased" in c.arguments:
        correction = int(c.arguments["unbiased"])
    made = partial(Var, correction=1 if correction is None else int(correction))
    return reduced(r, made, c.value("self"), c.ints("dim"), bool(c.arguments.get("keepdim")))


def std(r: Reader, c: Call) -> Value:
    return each(r, Sqrt(), var(r, c))


def with_mean(spread: Handler) -> Handler:
    """var_mean and std_mean: the variance or its root, and the mean."""

    def handle(r: Reader, c: Call) -> tuple[Value, Value]:
        return spread(r, c), reduced(r, Mean, c.value("self"), c.ints("dim"), bool(c.arguments.get("keepdim")))

    return handle


def logsumexp(r: Reader, c: Call) -> Value:
    """The logarithm of a sum of exponentials, m + log(sum(exp(x - m))) with the largest m, as torch computes it."""
    x, dims = c.value("self"), c.ints("dim")
    largest = reduced(r, Amax, x, dims, keepdim=True)
    terms = each(r, Exp(), pointwise.joined(r, Sub(), x, largest))
    found = pointwise.joined(r, Add(), each(r, Log(), reduced(r, Sum, terms, dims, keepdim=True)), largest)
    return reshaped(r, found, c.result.shape)


def norm(r: Reader, c: Call) -> Value:
    """The 1-, 2- or largest norm along axes."""
    x = c.value("self")
    order = c.arguments.get("ord", c.arguments.get("p"))
    order = 2.0 if order is None else float(order)
    keep = bool(c.get("keepdim"))
    if order == 1:
        return reduced(r, Sum, each(r, Abs(), x), c.ints("dim"), keep)
    if math.isinf(order):
        return reduced(r, Amax if order > 0 else Amin, each(r, Abs(), x), c.ints("dim"), keep)
    if order != 2:
        raise Unsupported(f"takes the {order}-norm; growir writes down the norms 1, 2, inf and -inf")
    return reduced(r, Norm, x, c.ints("dim"), keep)


def argument(kind: type[Amax | Amin]) -> Handler:
    """Where the largest or smallest number of an axis stands first.

    The first of equal ones is the only one up to which just one of them was counted: of 3 5 5 the largest are 0 1 1,
    counted 0 1 2, and 1 stands where both are 1.
    """

    def handle(r: Reader, c: Call) -> Value:
        if c.arguments.get("dim") is None:
            raise Unsupported("is taken over the batch, too; a graph never mixes samples. Give it dim")
        x = r.floats(c.value("self"))
        dim = x.dim(c.whole("dim"))
        axis = x.axis(dim, "looks along")
        most = reduced(r, kind, x, [dim], keepdim=True)
        alike = pointwise.joined(r, Equal(), x, most)
        counted = r.emit(Cumsum(dim=axis), alike, layout=x.layout)
        first = pointwise.joined(r, Equal(), pointwise.joined(r, Mul(), alike, counted), r.constant(1.0))
        places = torch.arange(x.size(dim)).to(r.dtype).reshape(-1, *(1,) * (x.rank - 1 - dim))
        at = pointwise.joined(r, Mul(), first, r.value(Held(places)))
        found = reduced(r, Sum, at, [dim], bool(c.get("keepdim")))
        return r.emit(Cast(dtype="int64"), found, layout=found.layout)

    return handle


TABLE: dict[str, Handler] = {
    "argmax": argument(Amax),
    "argmin": argument(Amin),
    "mean": over(Mean),
    "sum": over(Sum),
    "amax": over(Amax),
    "amin": over(Amin),
    "max": extremum(Amax, "maximum"),
    "min": extremum(Amin, "minimum"),
    "var": var,
    "std": std,
    "var_mean": with_mean(var),
    "std_mean": with_mean(std),
    **dict.fromkeys(("logsumexp", "special_logsumexp"), logsumexp),
    "linalg_vector_norm": norm,
    "norm": norm,
}
