"""Batch norm between a state's sum and its activation: how it follows a sum that moves, and what new neurons bring it.

While growth measures, a norm is in eval mode, an affine map of each channel, and what is measured is a shift of the sum
in front of it. Its statistics are taken anew after each growth, and in train mode they are those of a batch: without
more, a norm would scale a part of the shift away and take its mean back. So its statistics move to those of the shifted
sum, and its scale and offset so that the map of each channel stays what it was.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from growir.graph import Graph
from growir.growth.measure.section import Values
from growir.ops import BatchNorm
from growir.params import frozen_keys, owners


@dataclass(frozen=True, slots=True)
class Norm:
    """A batch norm that keeps statistics, whose tensors no other norm shares.

    Attributes:
        node: Its node.
        op: Its operator.
        frozen: Whether something of it stays as it is, so that it follows nothing.
    """

    node: str
    op: BatchNorm
    frozen: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of its tensors that have a number for each channel."""
        names = ("weight", "bias", "running_mean", "running_var")
        return tuple(f"{self.node}.{name}" for name in (names if self.op.affine else names[2:]))


def norm_behind(graph: Graph, name: str) -> Norm | None:
    """The norm that alone reads a value, if there is one."""
    readers = graph.consumers[name]
    if len(readers) != 1 or name in graph.outputs:
        return None
    op = graph[readers[0]].op
    if not isinstance(op, BatchNorm) or op.frames or not op.track_running_stats:
        return None
    norm = Norm(readers[0], op, not frozen_keys(graph).isdisjoint(f"{readers[0]}.{n}" for n in ("weight", "bias")))
    users = Counter(owners(graph).values())
    return norm if all(users[key] == 1 for key in norm.keys) else None


def following(norm: Norm | None, tensors: Values, before: torch.Tensor, after: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is added to a norm's tensors so that it maps a moved sum as it mapped it before, and goes on to.

    gamma (a - m) / s + beta is the same map as gamma' (a - m') / s' + beta' with gamma' = gamma s' / s and
    beta' = beta + gamma (m' - m) / s, whatever the new statistics are.

    Args:
        norm: The norm; nothing follows where there is none, it has no scale, or that is frozen.
        tensors: The network's.
        before: The sum on some samples.
        after: The same, moved.
    """
    if norm is None or not norm.op.affine or norm.frozen:
        return {}
    scale, variance = (tensors[f"{norm.node}.{name}"].detach().double() for name in ("weight", "running_var"))
    eps = norm.op.eps
    (old, spread), (new, moved) = statistics(before), statistics(after)
    ratio = (moved + eps) / (spread + eps)
    grown = ((variance + eps) * ratio - eps).clamp_min(0)
    rescaled = scale * ((grown + eps) / (variance + eps)).sqrt()
    lifted = scale * (new - old) / (variance + eps).sqrt()
    return dict(
        zip(norm.keys, (part.float() for part in (rescaled - scale, lifted, new - old, grown - variance)), strict=True)
    )


def statistics(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of each channel, (C,) each, in float64."""
    flat = values.transpose(0, 1).flatten(1).double()
    return flat.mean(dim=1), flat.var(dim=1, correction=0)


def started(norm: Norm, total: torch.Tensor, bias: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a norm gets for new channels: statistics that fit their sums, and a map that adds a bias and no more.

    So neurons with a norm are drawn and fitted as those without one. A norm without scale and offset scales them.

    Args:
        norm: The norm.
        total: Their sums, (rows, k).
        bias: What is to be added to them, (k,).
    """
    mean, variance = statistics(total)
    numbers = [(variance + norm.op.eps).sqrt(), bias + mean, mean, variance]
    return {key: part.float() for key, part in zip(norm.keys, numbers if norm.op.affine else numbers[2:], strict=True)}
