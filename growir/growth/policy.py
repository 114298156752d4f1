"""What the engine asks of a growth algorithm: propose, score, select."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from growir.growth.session import Session
from growir.rewrite import Pass


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A candidate with its weights and what it is worth.

    Attributes:
        step: The rewrite, with its new weights.
        updates: Tensors that change together with it, by key.
        amplitude: The factor found on the line search part.
        predicted: First-order decrease of the mean loss, on the part that fitted the weights.
        gain: Measured decrease of the mean loss, on the part that chooses.
        loss: The mean loss there afterwards.
        parameters: Of the network afterwards.
    """

    step: Pass
    updates: Mapping[str, torch.Tensor]
    amplitude: float
    predicted: float
    gain: float
    loss: float
    parameters: int


class Policy(Protocol):
    """A growth algorithm: decides what grows and with which weights. The engine applies, trains and records."""

    name: str

    def propose(self, session: Session) -> Sequence[Pass]:
        """The candidate rewrites in scope that fit the budget."""
        ...

    def score(self, session: Session, candidates: Sequence[Pass], step: int) -> Sequence[Scored]:
        """The candidates worth applying, with weights and measured gains; `step` keys random numbers."""
        ...

    def select(self, session: Session, scored: Sequence[Scored]) -> Sequence[Scored]:
        """Those to apply now, best first; none ends growth."""
        ...
