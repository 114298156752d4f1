"""Transformers that make their masks, positions and tables of sines in the forward, out of sizes and constants."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


def _heads(x: torch.Tensor, size: int) -> torch.Tensor:
    """(N, T, heads * size) as (N, heads, T, size)."""
    return x.view(x.size(0), x.size(1), -1, size).transpose(1, 2)


class _PostNormLayer(nn.Module):
    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dense, self.norm1 = nn.Linear(dim, dim), nn.LayerNorm(dim, eps=1e-12)
        self.intermediate, self.output, self.norm2 = nn.Linear(dim, 20), nn.Linear(20, dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = (_heads(part(x), self.size) for part in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = self.norm1(x + self.dropout(self.dense(y)))
        return self.norm2(x + self.dropout(self.output(F.gelu(self.intermediate(x)))))


class MaskedEncoder(nn.Module):
    """After Devlin et al. 2018: words, positions and segments, and an attention mask that hides nothing by default."""

    def __init__(self, vocabulary: int = 19, dim: int = 8, longest: int = 12) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(vocabulary, dim, padding_idx=0), nn.Embedding(longest, dim)
        self.segments = nn.Embedding(2, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.layers = nn.ModuleList([_PostNormLayer(dim, 4) for _ in range(2)])
        self.pooler, self.classifier = nn.Linear(dim, dim), nn.Linear(dim, 3)
        self.register_buffer("position_ids", torch.arange(longest)[None], persistent=False)
        self.register_buffer("segment_ids", torch.zeros(1, longest, dtype=torch.int64), persistent=False)
        self.position_ids: torch.Tensor
        self.segment_ids: torch.Tensor

    def hidden(self, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores, from a mask that is 1 for every token that may be looked at."""
        away = 1.0 - mask[:, None, None, :].expand(mask.size(0), 1, mask.size(1), mask.size(1)).to(dtype)
        return away.masked_fill(away.to(torch.bool), torch.finfo(dtype).min)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        samples, tokens = ids.shape
        segments = self.segment_ids[:, :tokens].expand(samples, tokens)
        x = self.words(ids) + self.segments(segments)
        x += self.positions(self.position_ids[:, :tokens])
        x = self.norm(x)
        mask = self.hidden(torch.ones(samples, tokens, device=ids.device), x.dtype)
        for layer in self.layers:
            x = layer(x, mask)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


class _CausalLayer(nn.Module):
    def __init__(self, dim: int, heads: int, longest: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 20), nn.Linear(20, dim)
        seen = torch.tril(torch.ones(longest, longest)).view(1, 1, longest, longest)
        self.register_buffer("seen", seen, persistent=False)
        self.seen: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        samples, tokens, dim = x.shape
        q, k, v = (_heads(part, dim // self.heads) for part in self.attn(self.ln1(x)).split(dim, dim=2))
        scores = q @ k.transpose(-2, -1) * (1.0 / math.sqrt(k.size(-1)))
        scores = scores.masked_fill(self.seen[:, :, :tokens, :tokens] == 0, float("-inf"))
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(samples, tokens, dim)
        x = x + self.proj(y)
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))


class CausalDecoder(nn.Module):
    """After Radford et al. 2019: each token sees those before it, by a mask kept in a buffer."""

    def __init__(self, vocabulary: int = 19, dim: int = 8, longest: int = 12) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, dim), nn.Embedding(longest, dim)
        self.layers = nn.ModuleList([_CausalLayer(dim, 2, longest) for _ in range(2)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.size(1), device=ids.device)[None])
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class _RotaryLayer(nn.Module):
    def __init__(self, dim: int, heads: int, groups: int, size: int) -> None:
        super().__init__()
        self.size, self.shared = size, heads // groups
        self.norm1, self.norm2 = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.query = nn.Linear(dim, heads * size, bias=False)
        self.key = nn.Linear(dim, groups * size, bias=False)
        self.value = nn.Linear(dim, groups * size, bias=False)
        self.out = nn.Linear(heads * size, dim, bias=False)
        self.gate, self.up = nn.Linear(dim, 20, bias=False), nn.Linear(dim, 20, bias=False)
        self.down = nn.Linear(20, dim, bias=False)

    def turned(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        one, two = x[..., : self.size // 2], x[..., self.size // 2 :]
        return x * cos + torch.cat((-two, one), dim=-1) * sin

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k, v = (_heads(part(y), self.size) for part in (self.query, self.key, self.value))
        q, k = self.turned(q, cos, sin), self.turned(k, cos, sin)
        k, v = k.repeat_interleave(self.shared, dim=1), v.repeat_interleave(self.shared, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class RotaryDecoder(nn.Module):
    """After Touvron et al. 2023: positions turn queries and keys (Su et al. 2021); heads share keys in groups."""

    def __init__(self, vocabulary: int = 19, dim: int = 8, size: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, dim)
        self.layers = nn.ModuleList([_RotaryLayer(dim, 4, 2, size) for _ in range(2)])
        self.norm = nn.RMSNorm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=False)
        frequencies = 100.0 ** -(torch.arange(0, size, 2) / size)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: torch.Tensor

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids)
        samples, tokens = ids.shape
        places = torch.arange(tokens, device=ids.device)[None].expand(samples, -1)
        with torch.no_grad():
            angles = places[:, :, None].to(x.dtype) * self.frequencies
            angles = torch.cat((angles, angles), dim=-1)[:, None]
            cos, sin = angles.cos(), angles.sin()
        mask = places[:, None, :, None] >= places[:, None, None, :]
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.head(self.norm(x))
