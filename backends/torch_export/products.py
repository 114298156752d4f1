"""Products of two tensors, and attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from growir.backends.torch_export.calls import Call, bound
from growir.backends.torch_export.joints import aligned
from growir.backends.torch_export.pointwise import joined, scaled
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Held, Unsupported, Value
from growir.ops import Add, Attention, MatMul

Handler = Callable[[Reader, Call], Any]


def matmul(r: Reader, c: Call) -> Value:
    other = next(name for name in ("other", "mat2") if name in c.arguments)
    return product(r, c.value("self"), c.value(other))


def product(r: Reader, x: Value, y: Value) -> Value:
    """x @ y, where neither the rows nor the columns that meet hold the batch."""
    if x.rank < 2 or y.rank < 2:
        raise Unsupported("multiplies by a vector; give it a second axis")
    if x.is_batch(x.rank - 1) or any(y.is_batch(y.rank - k) for k in (1, 2)):
        raise Unsupported("multiplies along the batch axis; a graph never mixes samples")
    if not y.batched and y.rank == 2:
        return r.emit(MatMul(), x, y, layout=x.layout)
    if x.is_batch(x.rank - 2):
        raise Unsupported("takes the batch for the rows of a matrix, but meets several matrices")
    (values, layout) = aligned(r, (x, y))
    return r.emit(MatMul(), *values, layout=layout)


def sum_and_product(r: Reader, c: Call) -> Value:
    """addmm and its batched forms: beta * self + alpha * (one @ two)."""
    one, two = ("mat1", "mat2") if "mat1" in c.arguments else ("batch1", "batch2")
    found = scaled(r, product(r, c.value(one), c.value(two)), c.real("alpha"), 0.0)
    beta = c.real("beta")
    return found if beta == 0 else joined(r, Add(), scaled(r, c.value("self"), beta, 0.0), found)


def scaled_dot_product_attention(r: Reader, c: Call) -> Value:
    """Attention with the dropout that it has in train mode."""
    q, k, v = c.value("query"), c.value("key"), c.value("value")
    if c.arguments.get("enable_gqa"):
        raise Unsupported("shares keys among groups of heads (enable_gqa); repeat the keys and values instead")
    if not (q.batched and q.layout == k.layout == v.layout and q.rank == k.rank == v.rank):
        raise Unsupported("needs query, key and value with their batch axes in one place")
    if q.layout.place >= q.rank - 2:
        raise Unsupported("attends along the batch axis; a graph never mixes samples")
    told = c.arguments if r.twin is None else bound(r.twin)
    op = Attention(
        dropout_p=float(told["dropout_p"]),
        is_causal=bool(c.arguments["is_causal"]),
        scale=None if c.arguments["scale"] is None else c.real("scale"),
    )
    mask = c.item("attn_mask")
    if mask is None:
        return r.emit(op, q, k, v, layout=q.layout)
    if isinstance(mask, Held) and mask.tensor.dtype == torch.bool:
        hidden = torch.zeros(mask.tensor.shape, dtype=c.result.dtype)
        mask = Held(hidden.masked_fill(~mask.tensor, float("-inf")))
    (values, layout) = aligned(r, (q, r.value(mask)))
    return r.emit(op, q, k, v, values[1], layout=layout)


TABLE: dict[str, Handler] = {
    **dict.fromkeys(("matmul", "mm", "bmm"), matmul),
    **dict.fromkeys(("addmm", "baddbmm"), sum_and_product),
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
