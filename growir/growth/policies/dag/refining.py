"""New neurons fitted to what their targets lack, by a few steps of gradient descent, all candidates at once.

Where a state already reads what a new neuron would read, the linearised solution is zero (N = 0): all that the neuron
can add is non-linear. Its incoming weights are then found by descent on ||v_perp - omega sigma(alpha b)||, with plain
tensors on cached activations. Candidates of one shape are stacked, so that a step costs a few products of batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from growir.growth.policies.dag.bottleneck import RIDGES

STEPS, RATE = 20, 0.03  # of Adam; directions are in units of the pre-activations' spread


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """A candidate's neurons before the descent.

    Attributes:
        inputs: (n, d) what they read.
        rest: (n, t) v_perp of what they feed.
        weight: (d, k).
        bias: (k,).
        activation: Theirs; drafts with the same key have the same one.
        kind: The key.
    """

    inputs: torch.Tensor
    rest: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    activation: Callable[[torch.Tensor], torch.Tensor]
    kind: object


def refined(drafts: Sequence[Draft]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and biases after the descent, in the order of the drafts; a fit that gets worse is not taken."""
    groups: dict[object, list[int]] = {}
    for k, draft in enumerate(drafts):
        key = draft.kind, draft.inputs.shape, draft.rest.shape, draft.weight.shape
        groups.setdefault(key, []).append(k)
    found: list[tuple[torch.Tensor, torch.Tensor]] = [(draft.weight, draft.bias) for draft in drafts]
    for members in groups.values():
        weights, biases = _descend([drafts[k] for k in members])
        for k, weight, bias in zip(members, weights, biases, strict=True):
            found[k] = weight.double(), bias.double()
    return found


def _descend(drafts: Sequence[Draft]) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = torch.stack([draft.inputs for draft in drafts])
    rest = torch.stack([draft.rest for draft in drafts])
    scale = rest.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-30)
    rest = rest / scale
    activation = drafts[0].activation
    whole = torch.stack([draft.weight for draft in drafts])
    start = whole.float()
    thresholds = torch.stack([draft.bias for draft in drafts]).float().unsqueeze(1)
    # A unit of a direction moves the pre-activations alike, whatever the inputs' scale.
    size = whole.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-30).float()
    direction, bias = (start / size).requires_grad_(), thresholds.clone().requires_grad_()

    def features() -> torch.Tensor:
        return activation(inputs @ (direction * size) + bias)

    with torch.no_grad():
        outgoing = _solved(features(), rest)
    outgoing.requires_grad_()
    optimizer = torch.optim.Adam([direction, bias, outgoing], lr=RATE)
    for _ in range(STEPS):
        left = (rest - features() @ outgoing).square().mean(dim=(1, 2)).sum()
        optimizer.zero_grad()
        left.backward()  # type: ignore[no-untyped-call]  # torch's own stub
        optimizer.step()
    with torch.no_grad():
        after = _left(features(), rest)
        fitted = direction * size
        before = _left(activation(inputs @ start + thresholds), rest)
        better = (after < before)[:, None, None]
        return torch.where(better, fitted, start), torch.where(better, bias, thresholds).squeeze(1)


def _solved(features: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Outgoing weights by batched ridge least squares, (c, k, t)."""
    gram = features.transpose(1, 2).double() @ features.double()
    mean = gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    ridge = RIDGES[1] * mean[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    slope = features.transpose(1, 2).double() @ rest.double()
    return cast("torch.Tensor", torch.linalg.solve(gram + ridge, slope)).float()


def _left(features: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """What is left with the best outgoing weights, (c,)."""
    left = (rest - features @ _solved(features, rest)).square().mean(dim=(1, 2))
    return torch.where(left.isfinite(), left, torch.inf)
