"""Products of two tensors, and attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import fx

from growir.backends.torch_export.calls import Call, bound, tensor_of
from growir.backends.torch_export.joints import aligned, interleaved
from growir.backends.torch_export.layout import permuted, reshaped, row_by_row, with_axis
from growir.backends.torch_export.pointwise import joined, scaled
from growir.backends.torch_export.reading import Reader
from growir.backends.torch_export.values import Held, Spread, Unsupported, Value, mapped
from growir.ops import Add, Attention, Expand, MatMul

Handler = Callable[[Reader, Call], Any]


def matmul(r: Reader, c: Call) -> Value:
    other = next(name for name in ("other", "mat2", "vec") if name in c.arguments)
    x, y = c.value("self"), c.value(other)
    if x.rank > 1 and y.rank > 1:
        return product(r, x, y)
    # A vector is a matrix of one row on the left and of one column on the right.
    return reshaped(
        r,
        product(r, with_axis(r, x, 0) if x.rank == 1 else x, with_axis(r, y, 1) if y.rank == 1 else y),
        c.result.shape,
    )


def product(r: Reader, x: Value, y: Value) -> Value:
    """x @ y, where neither the rows nor the columns that meet hold the batch."""
    if x.is_batch(x.rank - 1) or any(y.is_batch(y.rank - k) for k in (1, 2)):
        raise Unsupported("multiplies along the batch axis; a graph never mixes samples")
    if not y.batched and y.rank > 2 and set(y.shape.sizes[:-2]) == {1} and x.rank >= y.rank:
        y = row_by_row(r, y, y.shape.sizes[-2:], -1)
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
    summand, beta = c.value("self"), c.real("beta")
    return found if beta == 0 else joined(r, Add(), scaled(r, summand, beta, 0.0), found)


def is_product(call: fx.Node) -> bool:
    """Whether an einsum multiplies two tensors as matrices: each letter once in each, none of one alone summed over."""
    terms, out = _letters(call)
    if len(terms) != 2 or any(len(set(t)) < len(t) for t in (*terms, out)):
        return False
    sizes: dict[str, set[str]] = {}
    for term, node in zip(terms, cast("Sequence[fx.Node]", bound(call)["tensors"]), strict=True):
        for letter, size in zip(term, tensor_of(node).shape, strict=True):
            sizes.setdefault(letter, set()).add(str(size))
    alike = all(len(found) == 1 for found in sizes.values())
    return alike and set("".join(terms)) <= {*out, *(set(terms[0]) & set(terms[1]))}


def _letters(call: fx.Node) -> tuple[list[str], str]:
    """The terms of an einsum and its result, with letters for `...` too: "...i,ij" of a matrix is "Zi,ij->Zj"."""
    equation = str(bound(call)["equation"]).replace(" ", "")
    left, _, out = equation.partition("->")
    terms = left.split(",")
    spare = [chr(code) for code in (*range(65, 91), *range(97, 123)) if chr(code) not in equation]
    most = 0
    for k, node in enumerate(cast("Sequence[fx.Node]", bound(call)["tensors"])):
        count = tensor_of(node).dim() - (len(terms[k]) - 3)
        if "..." in terms[k]:
            most = max(most, count)
            terms[k] = terms[k].replace("...", "".join(spare[len(spare) - count :]))
    ahead = "".join(spare[len(spare) - most :])
    if "->" not in equation:  # whatever stands once, in alphabetical order, behind what the dots stand for
        every = "".join(terms)
        return terms, ahead + "".join(sorted(x for x in set(every) - set(ahead) if every.count(x) == 1))
    return terms, out.replace("...", ahead)


def einsum(r: Reader, c: Call) -> Value:
    """A product of two tensors by letters: as matrices, with the letters that both keep in front."""
    equation = c.arguments["equation"]
    if not is_product(c.node):
        raise Unsupported(f"has the equation {equation}, which mixes samples or takes a diagonal")
    terms, out = _letters(c.node)
    nodes = cast("Sequence[fx.Node]", c.arguments["tensors"])
    sizes: dict[str, Any] = {}
    for term, node in zip(terms, nodes, strict=True):
        sizes.update(zip(term, tensor_of(node).shape, strict=True))
    one, two = terms
    summed = [x for x in one if x in two and x not in out]
    shared = [x for x in one if x in two and x in out]
    rows, columns = [x for x in one if x not in two], [x for x in two if x not in one]
    batch = [x for x in rows if r.batch.factor(sizes[x]) is not None]
    if shared and batch:  # samples are no rows of several matrices, but lie in front of them
        rows = [x for x in rows if x not in batch]
    else:
        batch = []
    x, y = c.values("tensors")
    x = _as_matrix(r, x, one, [*batch, *shared], [rows, summed], sizes)
    y = _as_matrix(r, y, two, shared, [summed, columns], sizes)
    front = [*batch, *shared]
    found = reshaped(r, product(r, x, y), [sizes[a] for a in (*front, *rows, *columns)])
    return permuted(r, found, [[*front, *rows, *columns].index(a) for a in out])


def _as_matrix(
    r: Reader, x: Value, letters: str, front: list[str], groups: list[list[str]], sizes: dict[str, Any]
) -> Value:
    """The axes in front, then each group of axes as one."""
    order = [*front, *(a for group in groups for a in group)]
    turned = permuted(r, x, [letters.index(a) for a in order])
    return reshaped(r, turned, [*(sizes[a] for a in front), *(math.prod(sizes[a] for a in group) for group in groups)])


def scaled_dot_product_attention(r: Reader, c: Call) -> Value:
    """Attention with the dropout that it has in train mode."""
    q, k, v = c.value("query"), c.value("key"), c.value("value")
    if c.arguments.get("enable_gqa") and q.rank == k.rank == v.rank > 2:
        heads = q.rank - 3
        k, v = (interleaved(r, x, heads, q.size(heads) // x.size(heads)) for x in (k, v))
    if not (q.batched and q.layout == k.layout == v.layout and q.rank == k.rank == v.rank):
        raise Unsupported("needs query, key and value with their batch axes in one place")
    if q.layout.place >= q.rank - 2:
        raise Unsupported("attends along the batch axis; a graph never mixes samples")
    k, v = _with_heads(r, k, q), _with_heads(r, v, q)
    told = c.arguments if r.twin is None else bound(r.twin)
    scale = None if c.arguments["scale"] is None else c.real("scale")
    rate, causal = float(told["dropout_p"]), bool(c.arguments["is_causal"])
    mask, constant = c.item("attn_mask"), c.constant("attn_mask")
    seen = mask is not None and tensor_of(c.arguments["attn_mask"]).dtype == torch.bool
    if constant is not None and (not seen or bool(constant.tensor.any(-1).all())):
        seen = False
        mask = constant = _additive(constant, c.result.dtype)
        if not bool(constant.tensor.any()):
            mask = None
        elif _is_causal(constant.tensor, q.size(q.rank - 2), k.size(k.rank - 2)):
            mask, causal = None, True
    op = Attention(dropout_p=rate, is_causal=causal, scale=scale, mask="seen" if seen else "added")
    if mask is None:
        return r.emit(op, q, k, v, layout=q.layout)
    if constant is not None and seen:
        mask = mapped(constant, lambda found: found.to(c.result.dtype))
    put = r.floats(r.value(mask))
    (values, layout) = aligned(r, (q, put))
    return r.emit(op, q, k, v, values[1], layout=layout)


def _with_heads(r: Reader, x: Value, q: Value) -> Value:
    """Keys or values that one head has for all, given to each head of the queries."""
    counts = [(own, wanted) for own, wanted in zip(x.shape.sizes[:-2], q.shape.sizes[:-2], strict=True)]
    if all(own == wanted for own, wanted in counts):
        return x
    if any(own not in (1, wanted) for own, wanted in counts):
        raise Unsupported(f"gives {x.shape} for the queries {q.shape}, which have other heads")
    shape = tuple(-1 if own == wanted else wanted for own, wanted in counts)
    return r.emit(Expand(shape=(*shape, -1, -1)), x, layout=x.layout)


def _additive(mask: Held | Spread, dtype: torch.dtype) -> Held | Spread:
    """A constant mask as numbers that are added to the scores."""
    if mask.tensor.dtype != torch.bool:
        return mask
    return mapped(mask, lambda seen: torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, float("-inf")))


def _is_causal(mask: torch.Tensor, queries: int, keys: int) -> bool:
    """Whether a mask hides just the later tokens, from all heads and samples."""
    if queries != keys or tuple(mask.shape[-2:]) != (queries, keys):
        return False
    later = torch.ones(queries, keys, dtype=torch.bool).triu(1)
    # Any number of the size of the smallest float16 and beyond leaves nothing of a score.
    return bool((mask[..., ~later] == 0).all() and (mask[..., later] < torch.finfo(torch.float16).min / 2).all())


TABLE: dict[str, Handler] = {
    **dict.fromkeys(("matmul", "mm", "bmm", "mv"), matmul),
    **dict.fromkeys(("addmm", "baddbmm"), sum_and_product),
    "einsum": einsum,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
