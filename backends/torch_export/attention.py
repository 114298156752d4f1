"""nn.MultiheadAttention as plain calls that keep the batch axis first.

torch's own forward moves the batch behind the tokens and merges it with the heads. What the module means is written
down here with the projections, the heads and scaled_dot_product_attention; the graph becomes what one would write by
hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn


def attend(
    self: nn.MultiheadAttention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_padding_mask: torch.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What nn.MultiheadAttention.forward returns for batched inputs; weights that nobody reads cost nothing.

    Shapes: (N, L, E) if the module is batch_first, else (L, N, E).
    """
    if query.dim() != 3:
        raise ValueError("nn.MultiheadAttention without a batch axis; give it (N, L, E)")
    if self.bias_k is not None or self.add_zero_attn:
        raise ValueError("nn.MultiheadAttention with add_bias_kv or add_zero_attn has no form in a graph")
    alike = query is key and key is value
    if not self.batch_first:
        query = query.transpose(0, 1)
        key, value = (query, query) if alike else (key.transpose(0, 1), value.transpose(0, 1))
    width, heads = cast(int, self.embed_dim), cast(int, self.num_heads)
    bias = cast("torch.Tensor | None", self.in_proj_bias)
    parts: list[torch.Tensor]
    if alike and cast("torch.Tensor | None", self.in_proj_weight) is not None:
        parts = _thirds(_linear(query, self.in_proj_weight, bias), -1)
    else:
        weights: Sequence[torch.Tensor] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if cast("torch.Tensor | None", self.in_proj_weight) is not None:
            weights = _thirds(self.in_proj_weight, 0)
        biases: Sequence[torch.Tensor | None] = (None,) * 3 if bias is None else _thirds(bias, 0)
        triples = zip((query, key, value), weights, biases, strict=True)
        parts = [_linear(x, weight, part) for x, weight, part in triples]
    q, k, v = _heads(parts[0], heads), _heads(parts[1], heads), _heads(parts[2], heads)
    mask = None if attn_mask is None else _additive(attn_mask, q.dtype)
    if mask is not None and mask.dim() == 3:
        mask = mask.view(-1, heads, mask.size(1), mask.size(2))
    if key_padding_mask is not None:
        padding = _additive(key_padding_mask, q.dtype)[:, None, None, :]
        mask = padding if mask is None else padding + mask
    rate = self.dropout if self.training else 0.0
    out = F.scaled_dot_product_attention(q, k, v, mask, rate)
    out = self.out_proj(out.transpose(1, 2).flatten(2))
    shown: torch.Tensor | None = None
    if need_weights:
        scores: torch.Tensor = torch.matmul(q, k.transpose(-2, -1)) * (1 / math.sqrt(width // heads))
        if mask is not None:
            scores = scores + mask
        shown = F.dropout(scores.softmax(-1), rate, self.training)
        shown = shown.mean(1) if average_attn_weights else shown
    return (out if self.batch_first else out.transpose(0, 1)), shown


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    found: torch.Tensor = F.linear(x, weight, bias)
    return found


def _thirds(x: torch.Tensor, dim: int) -> list[torch.Tensor]:
    """What belongs to queries, keys and values."""
    return list(torch.chunk(x, 3, dim))


def _heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(N, L, E) as (N, heads, L, E / heads)."""
    return x.view(x.size(0), x.size(1), heads, x.size(2) // heads).transpose(1, 2)


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask to be added to the scores; torch.nn's boolean ones say what is hidden."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
