"""A training step of a lowered GPT beside that of the module it was imported from, and the time that lowering takes.

**Steps.** A pre-norm GPT with packed queries, keys and values, 4 layers, context 64, batch 32, AdamW. Both make one
step in turn, in either order, so that what else the machine does falls on both; the value is the median of the ratios
of pairs, and the ratio of the fastest steps, by CPU seconds, stands beside it (`least`).

**Lowering.** A graph of 10 000 nodes in 300 blocks, lowered to a module with a forward for each, beside one function.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

import growir
from benchmarks.growth import Clock
from benchmarks.startup import Seconds
from growir.backends.torch_fx import lower
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import Add, Linear, Relu
from growir.verify import verify

WIDTHS = (64, 96, 128)
LAYERS, HEADS, CONTEXT, BATCH, WORDS = 4, 4, 64, 32, 256
PAIRS, WARM, LOWERINGS = 100, 5, 5


class Attention(nn.Module):
    """Causal attention whose queries, keys and values are thirds of one layer's output."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, d = x.shape
        q, k, v = (
            part.view(n, t, self.heads, d // self.heads).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return cast("torch.Tensor", self.proj(y.transpose(1, 2).reshape(n, t, d)))


class Block(nn.Module):
    """Attention and a feed-forward part, each behind a norm and beside a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return cast("torch.Tensor", x + self.mlp(self.ln_2(x)))


class Gpt(nn.Module):
    """Tokens (N, T) to logits (N, T, words), for T up to the context."""

    def __init__(
        self, width: int, *, layers: int = LAYERS, heads: int = HEADS, words: int = WORDS, context: int = CONTEXT
    ) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(words, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return cast("torch.Tensor", self.head(self.ln_f(x)))


def step_of(module: nn.Module, tokens: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(module.train().parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(tokens).flatten(0, 1), tokens.flatten()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def seconds(work: Callable[[], object]) -> Seconds:
    clock = Clock()
    work()
    return clock.lap()


def pairs(one: Callable[[], object], other: Callable[[], object], count: int) -> list[tuple[Seconds, Seconds]]:
    """The seconds of both, in turn, in an order drawn anew for each pair."""
    order, found = random.Random(0), list[tuple[Seconds, Seconds]]()
    for _ in range(count):
        if order.random() < 0.5:
            first = seconds(one)
            found.append((first, seconds(other)))
        else:
            second = seconds(other)
            found.append((seconds(one), second))
    return found


def ratios(what: str, found: list[tuple[Seconds, Seconds]], limit: float) -> dict[str, Any]:
    """The row of some pairs: the first beside the second."""
    return {
        "what": what,
        "value": statistics.median(a.wall / b.wall for a, b in found),
        "limit": limit,
        "cpu": statistics.median(a.cpu / b.cpu for a, b in found),
        "least": min(a.cpu for a, _ in found) / min(b.cpu for _, b in found),
        "ms": 1e3 * statistics.median(a.wall for a, _ in found),
        "beside ms": 1e3 * statistics.median(b.wall for _, b in found),
        "pairs": len(found),
    }


def training(width: int, count: int = PAIRS) -> dict[str, Any]:
    """The row of one width."""
    torch.manual_seed(0)
    model = Gpt(width)
    tokens = torch.randint(WORDS, (BATCH, CONTEXT), generator=torch.Generator().manual_seed(0))
    lowered = growir.from_torch(model, tokens[:2]).to_torch()
    steps = step_of(lowered, tokens), step_of(model, tokens)
    pairs(*steps, WARM)
    return ratios(f"GPT, width {width}: step, lowered / original", pairs(*steps, count), 1.03)


def blocks(count: int, layers: int) -> Graph:
    """Residual blocks of so many layers with an activation each."""
    nodes = [Node(name="stem", op=Linear(out_features=8), inputs=("x",))]
    for block in range(count):
        name, before = f"blocks.{block}", nodes[-1].name
        for k in range(layers):
            nodes.append(Node(name=f"{name}.fc{k}", op=Linear(out_features=8), inputs=(nodes[-1].name,)))
            nodes.append(Node(name=f"{name}.act{k}", op=Relu(), inputs=(nodes[-1].name,)))
        nodes.append(Node(name=f"{name}.sum", op=Add(), inputs=(before, nodes[-1].name)))
    nodes.append(Node(name="head", op=Linear(out_features=2), inputs=(nodes[-1].name,)))
    entry = Input(name="x", shape=("N", 8))
    return verify(Graph(name="blocks", inputs=(entry,), nodes=tuple(nodes), outputs=("head",)))


def lowering(count: int = 300, layers: int = 16, repeats: int = LOWERINGS) -> dict[str, Any]:
    """The row of lowering."""
    network = Network.init(blocks(count, layers))

    def modules() -> None:
        lower(network.graph, network.arrays, device="cpu")

    def function() -> None:
        lower(network.graph, network.arrays, device="cpu", form="function")

    found = pairs(modules, function, repeats)
    return ratios(f"{len(network.graph.nodes)} nodes: lowering, by modules / one function", found, 1.1)


def run() -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [*(training(width) for width in WIDTHS), lowering()]
    finally:
        torch.set_num_threads(threads)
    return {"rows": rows, "torch": torch.__version__, "threads": 1}
