"""Groups of nodes that are one operator, put back together: torch takes some apart, and some are written out by hand.

A graph computes the same without this; it becomes shorter to read, and what grows in it is told by the operator's own
rule instead of the sum of the parts'.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from growir.backends.torch_export.reading import Draft
from growir.backends.torch_export.values import Held
from growir.ops import (
    Add,
    Affine,
    Div,
    Expand,
    Flatten,
    Hardsigmoid,
    Hardswish,
    LocalResponseNorm,
    Maximum,
    Mean,
    Minimum,
    Mul,
    Op,
    Pad,
    Parameter,
    Pow,
    Relu6,
    Reshape,
    RmsNorm,
    Rsqrt,
    Shape,
    Squeeze,
    Sub,
    Sum,
    Unsqueeze,
)
from growir.ops.base import in_full
from growir.ops.pool import AvgPool

_JOINS = (Add, Sub, Mul, Div, Maximum, Minimum)

T = TypeVar("T", bound=Op)
Found = tuple[Op, int] | tuple[Op, int, Mapping[str, Held]]  # an operator, the value it reads, its tensors


class _Drafts:
    """The nodes by the values they give, and how often each value is read."""

    def __init__(self, drafts: Sequence[Draft], outputs: Sequence[int], inputs: Sequence[Shape]) -> None:
        self.drafts = list(drafts)
        self.inputs = inputs
        self.first = len(inputs)
        self.reads = Counter(source for draft in drafts for source in dict.fromkeys(draft.inputs))
        self.reads.update(outputs)

    def shape(self, source: int) -> Shape:
        """The shape of a value."""
        return self.inputs[source] if source < self.first else self.drafts[source - self.first].shape

    def inner(self, source: int, kind: type[T]) -> tuple[T, tuple[int, ...]] | None:
        """Operator and inputs of the node that gives a value, if it is of this kind and one node reads it."""
        if source < self.first or self.reads[source] != 1:
            return None
        draft = self.drafts[source - self.first]
        return (draft.op, draft.inputs) if isinstance(draft.op, kind) else None

    def sizes(self, source: int) -> tuple[int, ...]:
        """The shape of the value of a node, without the batch."""
        return self.drafts[source - self.first].shape.sizes


def recognise(drafts: Sequence[Draft], outputs: Sequence[int], inputs: Sequence[Shape]) -> list[Draft]:
    """The drafts with the last node of each group turned into the whole; what it read is left unread."""
    found = _Drafts(drafts, outputs, inputs)
    for k, draft in enumerate(found.drafts):
        if isinstance(draft.op, _JOINS):
            found.drafts[k] = draft = replace(draft, inputs=_unexpanded(found, draft))
        for pattern in _PATTERNS:
            match = pattern(found, found.drafts[k])
            if match is not None:
                op, source, *params = match
                found.drafts[k] = replace(draft, op=op, inputs=(source,), params=params[0] if params else {})
    return found.drafts


def _unexpanded(drafts: _Drafts, draft: Draft) -> tuple[int, ...]:
    """A join's inputs before they were expanded, where it broadcasts them to the same shape anyway."""
    inputs = list(draft.inputs)
    for k, source in enumerate(inputs):
        expansion = drafts.drafts[source - drafts.first] if source >= drafts.first else None
        if expansion is None or not isinstance(expansion.op, Expand):
            continue
        without = [*inputs[:k], expansion.inputs[0], *inputs[k + 1 :]]
        if draft.op.infer(*map(drafts.shape, without)) == draft.shape:
            inputs = without
    return tuple(inputs)


def _scaled_and_shifted(drafts: _Drafts, draft: Draft) -> Found | None:
    """(scale x) + shift."""
    if not isinstance(draft.op, Affine) or draft.op.scale != 1.0:
        return None
    inner = drafts.inner(draft.inputs[0], Affine)
    if inner is None or inner[0].shift != 0.0:
        return None
    return Affine(scale=inner[0].scale, shift=draft.op.shift), inner[1][0]


def _mean(drafts: _Drafts, draft: Draft) -> Found | None:
    """A sum over axes, divided by the number of their positions: for any number of them, a mean.

    Where the model divides by that number whatever the size, the comparison on other sizes finds it out.
    """
    if not isinstance(draft.op, Affine) or draft.op.shift != 0.0:
        return None
    inner = drafts.inner(draft.inputs[0], Sum)
    if inner is None:
        return None
    x = drafts.shape(inner[1][0])
    count = math.prod(x.size(axis) for axis in inner[0].axes(x.rank))
    if count == 1 or not math.isclose(draft.op.scale * count, 1.0, rel_tol=1e-12):
        return None
    return Mean(dim=inner[0].dim, keepdim=inner[0].keepdim), inner[1][0]


def _hardsigmoid(drafts: _Drafts, draft: Draft) -> Found | None:
    """relu6(x + 3) / 6."""
    if isinstance(draft.op, Affine) and draft.op.shift == 0.0 and math.isclose(draft.op.scale, 1 / 6):
        source = _shifted_relu6(drafts, draft.inputs[0])
        return None if source is None else (Hardsigmoid(), source)
    return None


def _shifted_relu6(drafts: _Drafts, source: int) -> int | None:
    """The x of relu6(x + 3)."""
    outer = drafts.inner(source, Relu6)
    inner = drafts.inner(outer[1][0], Affine) if outer else None
    if inner is None or (inner[0].scale, inner[0].shift) != (1.0, 3.0):
        return None
    return inner[1][0]


def _hardswish(drafts: _Drafts, draft: Draft) -> Found | None:
    """x * hardsigmoid(x), or x * relu6(x + 3) / 6 read from the left."""
    if isinstance(draft.op, Mul) and len(draft.inputs) == 2:
        for x, gate in (draft.inputs, draft.inputs[::-1]):
            inner = drafts.inner(gate, Hardsigmoid)
            if inner is not None and inner[1] == (x,):
                return Hardswish(), x
    if isinstance(draft.op, Affine) and draft.op.shift == 0.0 and math.isclose(draft.op.scale, 1 / 6):
        product = drafts.inner(draft.inputs[0], Mul)
        if product is not None and len(product[1]) == 2:
            for x, gate in (product[1], product[1][::-1]):
                if _shifted_relu6(drafts, gate) == x:
                    return Hardswish(), x
    return None


def _viewed(drafts: _Drafts, source: int) -> int | None:
    """What a value shows in another shape, if nothing else reads it so."""
    kinds: tuple[type[Op], ...] = (Squeeze, Unsqueeze, Flatten, Reshape)
    view = next((found for kind in kinds if (found := drafts.inner(source, kind)) is not None), None)
    return view[1][0] if view else None


def _local_response_norm(drafts: _Drafts, draft: Draft) -> Found | None:
    """x / (k + alpha * mean of x^2 over a window of channels) ^ beta, as torch.nn.functional writes it."""
    if not isinstance(draft.op, Div):
        return None
    x, below = draft.inputs
    power = drafts.inner(below, Pow)
    inside = drafts.inner(power[1][0], Affine) if power else None
    squeezed = _viewed(drafts, inside[1][0]) if inside else None
    if power is None or power[0].exponent is None or inside is None or squeezed is None:
        return None
    pool = drafts.inner(squeezed, AvgPool)
    padded = drafts.inner(pool[1][0], Pad) if pool else None
    raised = _viewed(drafts, padded[1][0]) if padded else None
    square = drafts.inner(raised, Mul) if raised else None
    if pool is None or padded is None or raised is None or square is None or square[1] != (x, x):
        return None
    if drafts.sizes(padded[1][0]) != (1, *drafts.sizes(raised)) or draft.shape.sizes != drafts.sizes(raised):
        return None
    size, *extents = in_full(pool[0].kernel_size, pool[0].spatial)
    amounts = padded[0].padding
    if any(extent != 1 for extent in extents) or amounts != (*(0,) * (len(amounts) - 2), size // 2, (size - 1) // 2):
        return None
    return LocalResponseNorm(size=size, alpha=inside[0].scale, beta=power[0].exponent, k=inside[0].shift), x


def _rms_norm(drafts: _Drafts, draft: Draft) -> Found | None:
    """x / sqrt(mean of x^2 over the last axis + eps)."""
    if not isinstance(draft.op, Mul) or len(draft.inputs) != 2:
        return None
    for x, factor in (draft.inputs, draft.inputs[::-1]):
        root = drafts.inner(factor, Rsqrt)
        inside = drafts.inner(root[1][0], Affine) if root else None
        mean = drafts.inner(inside[1][0], Mean) if inside else None
        if inside is None or mean is None or inside[0].scale != 1.0 or inside[0].shift <= 0:
            continue
        power, product = drafts.inner(mean[1][0], Pow), drafts.inner(mean[1][0], Mul)
        squares = (power is not None and power[0].exponent == 2.0 and power[1] == (x,)) or (
            product is not None and product[1] == (x, x)
        )
        if squares and mean[0].keepdim and mean[0].axes(draft.shape.rank) == (draft.shape.rank - 1,):
            return RmsNorm(eps=inside[0].shift, elementwise_affine=False), x
    return None


def _scaled_rms_norm(drafts: _Drafts, draft: Draft) -> Found | None:
    """An RMS norm without a scale, times a parameter that nothing else reads."""
    if not isinstance(draft.op, Mul) or len(draft.inputs) != 2:
        return None
    for normed, scale in (draft.inputs, draft.inputs[::-1]):
        norm, weight = drafts.inner(normed, RmsNorm), drafts.inner(scale, Parameter)
        if norm is None or weight is None or norm[0].elementwise_affine or weight[0].buffer:
            continue
        if weight[0].shape == draft.shape.sizes[-1:]:
            held = drafts.drafts[scale - drafts.first].params
            return RmsNorm(eps=norm[0].eps), norm[1][0], held
    return None


_PATTERNS: tuple[Callable[[_Drafts, Draft], Found | None], ...] = (
    _scaled_and_shifted,
    _mean,
    _hardsigmoid,
    _hardswish,
    _local_response_norm,
    _rms_norm,
    _scaled_rms_norm,
)
