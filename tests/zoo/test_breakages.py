"""What breaks pruning tools, one model each: it widens, splits and shrinks here, and everybody's state follows.

Channel shuffle, pixel shuffle, a depthwise multiplier, a static slice, chunk into two branches, a value concatenated
with itself, attention with its head size in a view, instance norm with running statistics, tied embedding and head,
frozen layers, optimizer state.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

import growir
from growir.channels import analyse
from growir.network import Network
from growir.passes import Prune, Split, Widen
from growir.testing import TOLERANCE, masked, worst
from tests.zoo import randomise


class Body(nn.Module):
    """A convolution, what breaks, and a head over the channels it leaves."""

    def __init__(self, middle: Callable[[torch.Tensor], torch.Tensor], left: int, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.middle = middle
        self.last = nn.Conv2d(left, 5, 3, padding=1)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.middle(torch.tanh(self.norm(self.first(x))))
        return self.head(torch.tanh(self.last(x)).mean((2, 3)))


class Attention(nn.Module):
    """Self-attention whose view fixes the head size and leaves the number of heads open."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(8, 12)
        self.out = nn.Linear(12, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        q, k, v = (part(x).view(n, t, -1, 4).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1)
        return self.head(x + self.out(y)).mean(1)


class TiedHead(nn.Module):
    """An embedding whose matrix is the head's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.inner = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        return self.head(x + torch.tanh(self.inner(x)))


def chunked(x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, 1)
    return torch.relu(a) * torch.sigmoid(b)


def shuffled(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


IMAGE = (torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64),)
TOKENS = (torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64),)
WORDS = (torch.randint(11, (4, 5), generator=torch.Generator().manual_seed(0)),)

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...], int]] = {
    # the model, its input, and how many spaces are free: none of what breaks is pinned
    "channel_shuffle": (lambda: Body(shuffled, 6), IMAGE, 2),
    "channel_shuffle_module": (lambda: Body(nn.ChannelShuffle(3), 6), IMAGE, 2),
    "pixel_shuffle": (lambda: Body(nn.PixelShuffle(2), 2, 8), IMAGE, 2),
    "depthwise_multiplier_2": (lambda: Body(nn.Conv2d(6, 12, 3, padding=1, groups=6), 12), IMAGE, 2),
    "static_slice": (lambda: Body(lambda x: x[:, :4], 4), IMAGE, 3),
    "chunk_into_two_branches": (lambda: Body(chunked, 3), IMAGE, 2),
    "concatenated_with_itself": (lambda: Body(lambda x: torch.cat([x, x], 1), 12), IMAGE, 2),
    "head_size_in_a_view": (Attention, TOKENS, 1),
    "instance_norm_with_statistics": (
        lambda: Body(nn.InstanceNorm2d(6, affine=True, track_running_stats=True), 6),
        IMAGE,
        2,
    ),
}


def imported(make: Callable[[], nn.Module], inputs: tuple[torch.Tensor, ...]) -> Network:
    torch.manual_seed(0)
    return growir.from_torch(randomise(make()).double(), inputs)


def run(net: Network, inputs: tuple[torch.Tensor, ...]) -> NDArray[np.float64]:
    with torch.no_grad():
        found: NDArray[np.float64] = net.to_torch().eval()(*inputs).numpy()
    return found


@pytest.mark.parametrize("case", CASES)
def test_widens_splits_and_shrinks(case: str) -> None:
    make, inputs, count = CASES[case]
    net = imported(make, inputs)
    wanted = run(net, inputs)
    free = [space for space in analyse(net.graph).spaces if not space.pins]
    assert len(free) == count, [(space.name, space.pins) for space in analyse(net.graph).spaces]
    for space in free:
        units = space.growth[space.space]
        for step in (Widen(node=space.name, by=space.stride), Split(node=space.name, channels=tuple(range(units)))):
            assert worst(wanted, run(net.apply(step), inputs)) <= TOLERANCE, step
        cut = Prune(node=space.name, channels=tuple(range(units)))
        assert worst(run(masked(net, cut), inputs), run(net.apply(cut), inputs)) <= TOLERANCE, cut


def test_attention_grows_by_heads() -> None:
    net = imported(Attention, TOKENS)
    (space,) = [space for space in analyse(net.graph).spaces if not space.pins]
    assert (space.width, space.stride, space.units) == (12, 4, 3)
    grown = net.apply(Widen(node="q", by=4))
    shapes = {key: array.shape for key, array in grown.arrays.items()}
    assert [shapes[f"{part}.weight"] for part in "qkv"] == [(16, 8)] * 3
    assert shapes["out.weight"] == (8, 16)


def test_heads_pruned_down_to_one_grow_again() -> None:
    alone = imported(Attention, TOKENS).apply(Prune(node="q", channels=(0, 2)))
    (space,) = [space for space in analyse(alone.graph).spaces if not space.pins]
    assert (space.width, space.stride, space.units) == (4, 4, 1)
    again = alone.apply(Widen(node="q", by=4), verify=True)
    assert again.arrays["out.weight"].shape == (8, 8)


def test_tied_embedding_and_head_stay_tied_and_take_fresh_channels() -> None:
    net = imported(TiedHead, WORDS)
    assert net.graph["head"].tied == {"weight": "embedding.weight"}
    (space,) = [space for space in analyse(net.graph).spaces if not space.pins]
    assert space.tied
    grown = net.apply(Widen(node=space.name, by=2))
    assert worst(run(net, WORDS), run(grown, WORDS)) <= TOLERANCE
    module = grown.to_torch()
    assert module.get_parameter("head.weight") is module.get_parameter("embedding.weight")
    assert grown.arrays["embedding.weight"].shape == (11, 8)


def test_frozen_layers_keep_their_space_and_stay_frozen() -> None:
    def make() -> nn.Module:
        model = Body(nn.Identity(), 6)
        model.first.requires_grad_(False)
        return model

    net = imported(make, IMAGE)
    grown = net.apply(Widen(node="first", by=2))
    assert worst(run(net, IMAGE), run(grown, IMAGE)) <= TOLERANCE
    module = grown.to_torch()
    assert module.get_parameter("first.weight").shape == (8, 3, 3, 3)
    assert not module.get_parameter("first.weight").requires_grad
    assert module.get_parameter("last.weight").requires_grad


def test_no_parameter_of_the_optimizer_is_orphaned() -> None:
    module = imported(lambda: Body(nn.Identity(), 6), IMAGE).to_torch().train()
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    module(*IMAGE).square().mean().backward()
    optimizer.step()
    grown, _ = growir.live.grow(module, Widen(node="first", by=2), optimizer=optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in grown.parameters()}
    assert all(optimizer.state[p]["exp_avg"].shape == p.shape for p in grown.parameters())
