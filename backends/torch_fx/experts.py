"""Mixtures of experts in torch: token by token through the chosen ones, or all tokens through all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn


def activated(kind: str, x: torch.Tensor) -> torch.Tensor:
    """What an expert does to its hidden units."""
    match kind:
        case "relu":
            return F.relu(x)
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "silu":
            return F.silu(x)
        case "tanh":
            return torch.tanh(x)
        case "sigmoid":
            return torch.sigmoid(x)
        case _:
            return x


def each(bias: torch.Tensor | None, weight: torch.Tensor) -> Sequence[torch.Tensor | None]:
    """The bias of each expert, if there is one, for as many as have a weight."""
    return (None,) * weight.size(0) if bias is None else bias.unbind()


class ExpertsLayer(nn.Module):
    """Feed-forward nets with stacked weights, each token through those of the highest scores: (..., D) to (..., O).

    Where some are chosen, the tokens of each expert are gathered, go through it alone, and are added up again. What is
    traced (torch.export, torch.compile) goes through all of them instead, with weights that are zero for those not
    chosen: no size may depend on numbers there. The two agree but for rounding, and so do their gradients.

    Args:
        activation: What becomes of hidden units.
        gated: Whether they are multiplied by gates.
        top_k: How many are chosen for each token; 0 for all.
        chosen: Whether the weights are a softmax of the scores that are chosen, or else of all.
    """

    up_proj: torch.Tensor
    gate_up_proj: torch.Tensor
    down_proj: torch.Tensor
    up_proj_bias: torch.Tensor | None
    gate_up_proj_bias: torch.Tensor | None
    down_proj_bias: torch.Tensor | None

    def __init__(self, activation: str, gated: bool, top_k: int, chosen: bool) -> None:
        super().__init__()
        self.activation = activation
        self.gated = gated
        self.top_k = top_k
        self.chosen = chosen
        self.register_parameter("up_proj_bias", None)
        self.register_parameter("gate_up_proj_bias", None)
        self.register_parameter("down_proj_bias", None)

    def forward(self, x: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        tokens, scores = x.flatten(0, -2), scores.flatten(0, -2)
        if not self.top_k or self.top_k == scores.size(-1):
            found = self._all(tokens, F.softmax(scores, -1))
        else:
            best, where = scores.topk(self.top_k, -1)
            weights = F.softmax(best, -1) if self.chosen else F.softmax(scores, -1).gather(-1, where)
            if torch.compiler.is_compiling():
                found = self._all(tokens, torch.zeros_like(scores).scatter(-1, where, weights))
            else:
                found = self._routed(tokens, where, weights)
        return found.reshape(*x.shape[:-1], found.size(-1))

    def _all(self, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Every token through every expert, weighted by (tokens, experts)."""
        up, down = self.gate_up_proj if self.gated else self.up_proj, self.down_proj
        inner = tokens @ up.transpose(1, 2)
        if (bias := self._up_bias()) is not None:
            inner = inner + bias.unsqueeze(1)
        found = self._hidden(inner) @ down.transpose(1, 2)
        if self.down_proj_bias is not None:
            found = found + self.down_proj_bias.unsqueeze(1)
        return (found * weights.t().unsqueeze(-1)).sum(0)

    def _routed(self, tokens: torch.Tensor, where: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Every token through the experts that are chosen for it, expert by expert.

        Args:
            tokens: (tokens, features).
            where: The experts of each token, (tokens, k).
            weights: Their weights, (tokens, k).
        """
        # Sorted by expert, so that the tokens of each lie together; a stable sort keeps their order, and sums the same.
        order = where.flatten().argsort(stable=True)
        rows = order // self.top_k
        parts: list[torch.Tensor] = []
        many = where.flatten().bincount(minlength=self.down_proj.size(0))
        counts = cast("list[int]", many.tolist())
        up = self.gate_up_proj if self.gated else self.up_proj
        layers = zip(
            up.unbind(), each(self._up_bias(), up), self.down_proj.unbind(), each(self.down_proj_bias, up), strict=True
        )
        for own, (inward, first, outward, last) in zip(torch.split(tokens[rows], counts), layers, strict=True):
            parts.append(F.linear(self._hidden(F.linear(own, inward, first)), outward, last))
        found = torch.cat(parts) * weights.flatten()[order].unsqueeze(-1)
        return torch.zeros_like(found[:1]).expand(tokens.size(0), -1).index_add(0, rows, found)

    def _up_bias(self) -> torch.Tensor | None:
        return self.gate_up_proj_bias if self.gated else self.up_proj_bias

    def _hidden(self, inner: torch.Tensor) -> torch.Tensor:
        if not self.gated:
            return activated(self.activation, inner)
        gate, up = inner.chunk(2, -1)
        return activated(self.activation, gate) * up

    def extra_repr(self) -> str:
        return f"{self.activation}, gated={self.gated}, top_k={self.top_k}, chosen={self.chosen}"
