"""Mixtures of experts with stacked weights, written as the transformers package writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.errors import ModelError
from growir.ops import Experts
from tests.importing.models import imported, kinds, names

Kind = Literal["normalised", "unnormalised", "behind", "sigmoid"]


def tokens(batch: int) -> torch.Tensor:
    return torch.randn(batch, 3, 6, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)


class Stacked(nn.Module):
    """Expert by expert: gathers the tokens of each and adds up what it gives."""

    def __init__(self, count: int, width: int, hidden: int, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(count, 2 * hidden, width))
        self.down_proj = nn.Parameter(torch.randn(count, width, hidden))
        self.act = act

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        found = torch.zeros_like(hidden_states)
        for expert in range(len(self.down_proj)):
            token, place = torch.where(top_k_index == expert)
            gate, up = F.linear(hidden_states[token], self.gate_up_proj[expert]).chunk(2, -1)
            answer = F.linear(self.act(gate) * up, self.down_proj[expert])
            found.index_add_(0, token, answer * top_k_weights[token, place, None])
        return found


class Mixture(nn.Module):
    """A router, in one of the ways in which models choose, and its experts."""

    def __init__(self, kind: Kind = "normalised", act: Callable[[torch.Tensor], torch.Tensor] = F.silu) -> None:
        super().__init__()
        self.kind = kind
        self.gate = nn.Linear(6, 4, bias=False)
        self.experts = Stacked(4, 6, 5, act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.view(-1, 6)
        scores = self.gate(flat)
        if self.kind == "behind":
            weights, index = scores.topk(2, -1)
            weights = weights.softmax(-1)
        else:
            every = scores.sigmoid() if self.kind == "sigmoid" else scores.softmax(-1)
            weights, index = torch.topk(every, 2, dim=-1)
            if self.kind == "normalised":
                weights /= weights.sum(-1, keepdim=True)
            weights = weights.to(x.dtype)
        found: torch.Tensor = self.experts(flat, index, weights)
        return found.view(x.shape)


@pytest.mark.parametrize(("kind", "weights"), [("normalised", "chosen"), ("unnormalised", "all"), ("behind", "chosen")])
def test_a_router_and_its_experts(kind: Kind, weights: str) -> None:
    torch.manual_seed(0)
    model = Mixture(kind)
    network = imported(model, tokens(2))
    assert names(network) == ["gate", "experts"]
    op = network.graph["experts"].op
    assert isinstance(op, Experts)
    assert (op.top_k, op.weights, op.gated, op.activation) == (2, weights, True, "silu")
    assert set(network.arrays) == {name for name, _ in model.named_parameters()}
    assert not network.graph.train_differs


@pytest.mark.parametrize(("act", "kind"), [(F.relu, "relu"), (F.gelu, "gelu"), (nn.GELU("tanh"), "gelu_tanh")])
def test_the_activation_is_told_by_its_numbers(act: Callable[[torch.Tensor], torch.Tensor], kind: str) -> None:
    op = imported(Mixture(act=act), tokens(2)).graph["experts"].op
    assert isinstance(op, Experts)
    assert op.activation == kind


def test_weights_that_are_scaled_scale_the_answer() -> None:
    class Scaled(Mixture):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flat = x.view(-1, 6)
            weights, index = self.gate(flat).softmax(-1).topk(2, -1)
            found: torch.Tensor = self.experts(flat, index, weights * 2.5)
            return found.view(x.shape)

    assert kinds(imported(Scaled(), tokens(2))) == ["linear", "experts", "affine"]


def test_what_chooses_otherwise_is_named() -> None:
    with pytest.raises(ModelError, match="topk chooses by numbers of the input"):
        growir.from_torch(Mixture("sigmoid").double(), tokens(2))


def test_the_model_itself_stays_as_it_is() -> None:
    model = Mixture()
    imported(model, tokens(2))
    assert "forward" not in vars(model.experts)
