"""What a phase of training is told and tells: hooks, where it stands, and what it came to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from growir.data.source import Batch
from growir.growth.objective import Outputs


@dataclass(frozen=True, slots=True)
class Position:
    """Where a phase stands, between two steps of the optimizer; it fits into JSON.

    Attributes:
        epoch: Epochs that are over.
        batch: Batches of the next one that are done.
        batches: Batches of the whole phase that are done.
        steps: Steps of the optimizer that are done.
        total: Summed loss of this epoch's batches.
        samples: How many samples they had.
        best: The least loss that was measured after an epoch.
        waited: Epochs since.
        loss: The mean loss of the last epoch that is over.
        scaler: The state of a GradScaler.
    """

    epoch: int = 0
    batch: int = 0
    batches: int = 0
    steps: int = 0
    total: float = 0.0
    samples: int = 0
    best: float | None = None
    waited: int = 0
    loss: float = math.nan
    scaler: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a phase came to.

    Attributes:
        loss: The mean loss of the last epoch, of each batch before its step.
        epochs: Epochs that were begun, earlier parts of the phase included.
        steps: Steps of the optimizer, likewise.
        stopped: Whether it ended early, since the measured loss no longer fell.
    """

    loss: float
    epochs: int
    steps: int
    stopped: bool


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is called during a phase.

    Attributes:
        begin: Before each epoch: to put in train mode what `measure` and `epoch` may have put in eval mode. Of a module
            that is given as such this is done anyway.
        tick: Before each batch, with the batches done and in all; it may raise to stop.
        epoch: After each epoch, with the epochs done and in all, and the mean loss of this one.
        measure: After each epoch, for the loss that decides about stopping.
        checkpoint: With the position, after each epoch and each `every` steps; it is to save module and optimizer.
        every: Steps between two checkpoints.
        penalty: What is added to the mean loss of a batch, a scalar, from the outputs and the batch.
        before_step: Before each step of the optimizer, when gradients are there: to mask them, say.
        after_step: After each step: to put weights back that must not move, say.
        around: What surrounds the phase.
    """

    begin: Callable[[], None] = _nothing
    tick: Callable[[int, int], None] = _nothing
    epoch: Callable[[int, int, float], None] = _nothing
    measure: Callable[[], float] | None = None
    checkpoint: Callable[[Position], None] | None = None
    every: int | None = None
    penalty: Callable[[Outputs, Batch], torch.Tensor] | None = None
    before_step: Callable[[], None] = _nothing
    after_step: Callable[[], None] = _nothing
    around: Callable[[], AbstractContextManager[object]] = nullcontext
