"""What the engine asks of a growth algorithm: propose, score, select."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch

from growir.growth.session import Session
from growir.rewrite import Pass

Outcome = Literal["improving", "no amplitude", "no gain", "on probation"]


class Small(NamedTuple):
    """A candidate at a small amplitude, where its first-order prediction must hold; gains of the mean loss."""

    amplitude: float
    predicted: float
    measured: float


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A candidate with its weights and what it is worth.

    Attributes:
        step: The rewrite, with its new weights.
        updates: Tensors that change together with it, by key.
        amplitude: The factor found on the line search part.
        predicted: First-order decrease of the mean loss, on the line search part.
        gain: Measured decrease of the mean loss, on the part that chooses; None where the amplitude is zero.
        error: Standard error of the gain, from the samples it was measured on.
        loss: The mean loss there afterwards.
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
    predicted: float
    gain: float | None
    error: float | None
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


class Policy(Protocol):
    """A growth algorithm: decides what grows and with which weights. The engine applies, trains and records."""

    name: str

    @property
    def limited(self) -> bool:
        """Whether the last proposal left moves out for the budget."""
        ...

    def propose(self, session: Session) -> Sequence[Pass]:
        """The candidate rewrites in scope that fit the budget."""
        ...

    def score(self, session: Session, candidates: Sequence[Pass], step: int) -> Sequence[Scored]:
        """Every candidate with weights and measured gains; `step` keys random numbers."""
        ...

    def select(self, session: Session, scored: Sequence[Scored]) -> Sequence[Scored]:
        """Those to apply now, best first; none ends growth."""
        ...

    def last_resort(self, session: Session, scored: Sequence[Scored]) -> Sequence[Scored]:
        """What to apply where `select` finds nothing: growths that the training after them must justify."""
        ...

    def refuses(
        self, session: Session, choice: Scored, before: torch.Tensor, after: torch.Tensor
    ) -> Literal["no gain", "criterion"] | None:
        """Why a growth is taken back after the training that followed it; None where it stays.

        Args:
            session: The network after that training.
            choice: The growth.
            before: (n,) losses on samples of the selection part before the growth.
            after: The same after the training.
        """
        ...
