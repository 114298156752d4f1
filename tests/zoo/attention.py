"""Multi-head attention as people write it, with any number of heads of any size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 16


class _Heads(nn.Module):
    """`heads` heads, keys of size k, values of size v; `kv` heads of keys and values where they are fewer."""

    def __init__(self, heads: int, k: int = 4, v: int = 6, kv: int = 0) -> None:
        super().__init__()
        self.h, self.k, self.v, self.kv = heads, k, v, kv or heads
        self.make()
        self.out = nn.Linear(heads * self.v, WIDTH)

    def make(self) -> None:
        self.q = nn.Linear(WIDTH, self.h * self.k)
        self.key, self.value = nn.Linear(WIDTH, self.kv * self.k), nn.Linear(WIDTH, self.kv * self.v)

    def of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, -1, self.k).transpose(1, 2)
        key = self.key(x).view(n, t, -1, self.k).transpose(1, 2)
        return q, key, self.value(x).view(n, t, -1, self.v).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.attend(*self.of(x)).transpose(1, 2)
        found: Tensor = self.out(rows.reshape(x.shape[0], x.shape[1], -1))
        return found


class Eager(_Heads):
    """Scores as a product."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(2, 3) / self.k**0.5).softmax(-1) @ v


class Joint(Eager):
    """Keys and values of one layer, cut along the size of a head, as LeViT has them."""

    def make(self) -> None:
        self.q, self.both = nn.Linear(WIDTH, self.h * self.k), nn.Linear(WIDTH, self.h * (self.k + self.v))

    def of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, t, _ = x.shape
        k, v = self.both(x).view(n, t, self.h, -1).split([self.k, self.v], 3)
        return self.q(x).view(n, t, self.h, self.k).transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


class Packed(_Heads):
    """One layer for queries, keys and values, those of all heads one after the other."""

    def make(self) -> None:
        self.v = self.k
        self.qkv = nn.Linear(WIDTH, 3 * self.h * self.k)

    def of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.h, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v


class Inside(Packed):
    """One layer, with queries, keys and values of each head side by side, as BLOOM has them."""

    def of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, t, _ = x.shape
        q, k, v = (self.qkv(x).view(n, t, self.h, 3, self.k)[..., i, :].transpose(1, 2) for i in range(3))
        return q, k, v


class Grouped(_Heads):
    """Fewer heads of keys and values, by torch's own argument."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


class Repeated(_Heads):
    """Fewer heads of keys and values, repeated."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(self.h // self.kv, 1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v)


class Expanded(_Heads):
    """Fewer heads of keys and values, expanded and reshaped, as Llama has them."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        each = self.h // self.kv
        k, v = (x[:, :, None].expand(-1, -1, each, -1, -1).flatten(1, 2) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v)


class ByGroup(_Heads):
    """Fewer heads of keys and values, against queries with an axis for groups and one for the heads of each."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n, _, t, _ = q.shape
        q = q.reshape(n, self.kv, self.h // self.kv, t, self.k)
        scores = (q @ k[:, :, None].transpose(3, 4)).softmax(-1)
        return (scores @ v[:, :, None]).reshape(n, self.h, t, self.v)


COUNTS = (2, 3, 4, 5, 6, 8, 12, 16)
GROUPS = ((2, 1), (4, 1), (4, 2), (6, 2), (6, 3), (8, 2), (8, 4), (12, 3))


def every() -> dict[str, Callable[[], nn.Module]]:
    """All of them, by a name that says how many heads of which size."""
    found: dict[str, Callable[[], nn.Module]] = {}
    for kind in (Eager, Joint, Packed, Inside):
        for h in COUNTS:
            for k, v in ((4, 8), (5, 3)):
                found[f"{kind.__name__} {h} of {k}, {v}"] = lambda kind=kind, h=h, k=k, v=v: kind(h, k, v)  # type: ignore[misc]
    for shared in (Grouped, Repeated, Expanded, ByGroup):
        for h, kv in GROUPS:
            found[f"{shared.__name__} {h} for {kv}"] = lambda shared=shared, h=h, kv=kv: shared(h, kv=kv)  # type: ignore[misc]
    return found


def inputs() -> tuple[Tensor, ...]:
    return (torch.randn(2, 7, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64),)
