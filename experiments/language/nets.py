"""A language model as anyone would write it: pre-norm blocks with packed projections, learned positions, GELU."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from experiments.language.corpus import VOCABULARY


class Attention(nn.Module):
    """Causal attention with its three projections in one layer."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.size = size  # of a head
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        q, k, v = (each.view(n, t, -1, self.size).transpose(1, 2) for each in self.qkv(x).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        found: torch.Tensor = self.proj(y.transpose(1, 2).reshape(n, t, -1))
        return found


class Block(nn.Module):
    """x + attention(norm(x)), and the same of a feed-forward net."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, size)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        found: torch.Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return found


class Gpt(nn.Module):
    """Tokens (N, T) to the logits of the next ones (N, T, 128).

    Args:
        layers: Blocks.
        width: Of the stream.
        size: Of a head.
        context: The most tokens.
        scale: The standard deviation of weights times the square root of the width.
    """

    def __init__(self, layers: int, width: int, size: int, context: int, scale: float) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, size) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        std = scale / math.sqrt(width)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                ends = name.endswith(("proj.weight", "down.weight"))  # of residual branches, as GPT-2 starts them
                nn.init.normal_(p, 0.0, std / math.sqrt(2 * layers) if ends else std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        found: torch.Tensor = self.head(self.norm(x))
        return found
