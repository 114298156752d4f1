"""What a move of DAG growth is worth: a score that knows its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from growir.growth.policy import Score
from growir.rewrite import Pass

Outcome = Literal["improving", "no amplitude", "no gain", "on probation"]


class Small(NamedTuple):
    """A candidate at a small amplitude, where its first-order prediction must hold; gains of the mean loss."""

    amplitude: float
    predicted: float
    measured: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Scored(Score):
    """A candidate with its weights and what it is worth; the gain is 0 where the amplitude is, NaN on probation.

    Attributes:
        step: The rewrite, with its new weights.
        updates: What is added to tensors together with it, by key.
        amplitude: The factor found on the line search part.
        predicted: First-order decrease of the mean loss, on the line search part; None on probation.
        loss: The mean loss on the part that selects afterwards.
        loss_before: The mean loss there before.
        parameters: Of the network afterwards.
        parameters_before: Of the network it would change.
        outcome: Whether it is worth applying, or why not.
        small: The candidate at a small amplitude.
        convolves: Whether it adds maps.
        idle: The rewrite with outgoing weights of zero: it keeps the function, and what is new can learn.
    """

    step: Pass
    updates: Mapping[str, torch.Tensor]
    amplitude: float
    predicted: float | None = None
    loss: float
    loss_before: float
    parameters: int
    parameters_before: int
    outcome: Outcome
    small: Small
    convolves: bool
    idle: Pass

    @property
    def improves(self) -> bool:
        """Whether it is worth applying."""
        return self.outcome == "improving"
