"""Networks over tokens: vision transformers, text encoders, mixers, gated convolutions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class _PackedAttention(nn.Module):
    """Queries, keys and values from one linear layer, softmax written out."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3, bias=True)
        self.attn_drop = nn.Dropout(0.1)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = (q @ k.transpose(-2, -1)) * self.scale
        attn = self.attn_drop(attn.softmax(dim=-1))
        x = (attn @ v).transpose(1, 2).reshape(b, n, c)
        return self.proj_drop(self.proj(x))


class _MultiheadAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout=0.1, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, how: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _PackedAttention(dim, heads) if how == "packed" else _MultiheadAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Dosovitskiy et al. 2020: patches, a class token, learned positions."""

    def __init__(self, how: str, dim: int = 8, heads: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, kernel_size=4, stride=4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.5)
        self.pos_embed = nn.Parameter(torch.randn(1, 17, dim) * 0.5)
        self.pos_drop = nn.Dropout(0.1)
        self.blocks = nn.ModuleList([_Block(dim, heads, how) for _ in range(2)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = x.shape[0]
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(b, -1, -1), x), dim=1)
        x = self.pos_drop(x + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class _WindowBlock(nn.Module):
    """Attention inside windows, which the model puts into the batch, shifted every second time."""

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.bias = nn.Parameter(torch.randn(heads, window**2, window**2) * 0.1)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        attn = q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1) + self.bias.unsqueeze(0)
        return self.proj((attn.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, h, w, c = x.shape
        s = self.window
        y = self.norm1(x)
        if self.shift:
            y = torch.roll(y, shifts=(-self.shift, -self.shift), dims=(1, 2))
        y = y.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        y = self.attention(y).view(-1, h // s, w // s, s, s, c)
        y = y.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, h, w, c)
        if self.shift:
            y = torch.roll(y, shifts=(self.shift, self.shift), dims=(1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class WindowTransformer(nn.Module):
    """After Swin (Liu et al. 2021): windows, shifts, patches merged between stages."""

    def __init__(self, dim: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 2, 2)
        self.block1, self.block2 = _WindowBlock(dim, 2, 4, 0), _WindowBlock(dim, 2, 4, 2)
        self.merge_norm, self.merge = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)
        self.block3 = _WindowBlock(2 * dim, 2, 4, 0)
        self.norm = nn.LayerNorm(2 * dim)
        self.head = nn.Linear(2 * dim, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        x = self.block2(self.block1(x))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        x = self.block3(self.merge(self.merge_norm(x)))
        return self.head(self.norm(x).flatten(1, 2).mean(1))


class _MixerBlock(nn.Module):
    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token_mixing = nn.Sequential(nn.Linear(tokens, 12), nn.GELU(), nn.Linear(12, tokens))
        self.channel_mixing = nn.Sequential(nn.Linear(dim, 16), nn.GELU(), nn.Linear(16, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.token_mixing(self.norm1(x).transpose(1, 2))
        x = x + y.transpose(1, 2)
        return x + self.channel_mixing(self.norm2(x))


class MLPMixer(nn.Module):
    """Tolstikhin et al. 2021: linear layers along tokens and channels in turn."""

    def __init__(self, dim: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 4, 4)
        self.blocks = nn.Sequential(_MixerBlock(16, dim), _MixerBlock(16, dim))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x.reshape(x.shape[0], x.shape[1], -1).permute(0, 2, 1)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


class _RMSNorm(nn.Module):
    """Zhang and Sennrich 2019, written out."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class _EncoderLayer(nn.Module):
    def __init__(self, dim: int, heads: int, norm: str) -> None:
        super().__init__()
        self.heads = heads
        self.norm1: nn.Module = nn.LayerNorm(dim) if norm == "layer" else _RMSNorm(dim)
        self.norm2: nn.Module = nn.LayerNorm(dim) if norm == "layer" else nn.RMSNorm(dim)
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.gated = norm == "rms"
        self.up = nn.Linear(dim, 24, bias=False)
        self.gate = nn.Linear(dim, 24, bias=False) if self.gated else nn.Identity()
        self.down = nn.Linear(24, dim, bias=False)
        self.dropout = nn.Dropout(0.1)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), x.size(1), self.heads, -1).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k, v = self.split(self.query(y)), self.split(self.key(y)), self.split(self.value(y))
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.dropout(self.out(y.transpose(1, 2).flatten(2)))
        y = self.norm2(x)
        y = F.silu(self.gate(y)) * self.up(y) if self.gated else F.gelu(self.up(y))
        return x + self.dropout(self.down(y))


class TextEncoder(nn.Module):
    """Devlin et al. 2018 (norms first); with "rms" the layers of Touvron et al. 2023. The head is the embedding."""

    def __init__(self, norm: str, vocabulary: int = 19, length: int = 10, dim: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, dim)
        self.positions = nn.Embedding(length, dim)
        self.layers = nn.ModuleList([_EncoderLayer(dim, heads, norm) for _ in range(2)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        self.scale = math.sqrt(dim)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(ids.size(1), device=ids.device)
        x = self.tokens(ids) * self.scale + self.positions(positions)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class TorchEncoder(nn.Module):
    """torch.nn's own encoder, tokens first as it wants them by default."""

    def __init__(self, vocabulary: int = 19, dim: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.position = nn.Parameter(torch.randn(7, 1, dim) * 0.3)
        layer = nn.TransformerEncoderLayer(dim, 2, 16, dropout=0.1, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.decoder = nn.Linear(dim, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids).transpose(0, 1) + self.position
        x = self.encoder(x)
        return self.decoder(x.mean(0))


class GatedConvNet(nn.Module):
    """Dauphin et al. 2016: convolutions over time with gated linear units."""

    def __init__(self, vocabulary: int = 19, dim: int = 6) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.conv1 = nn.Conv1d(dim, 2 * dim, 3, padding=1)
        self.conv2 = nn.Conv1d(dim, 2 * dim, 3)
        self.bn = nn.BatchNorm1d(dim)
        self.fc = nn.Linear(dim, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids).transpose(1, 2)
        x = x + F.glu(self.conv1(x), dim=1)
        x = self.bn(F.glu(self.conv2(F.pad(x, (2, 0))), dim=1))
        return self.fc(x.amax(dim=2))
