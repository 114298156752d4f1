"""How every method trains a task: Adam on cross-entropy, in batches of a seeded order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from growir.data.shuffling import Shuffle
from growir.data.source import Source
from growir.growth.device import device_of
from growir.growth.sections import MOST, Count, Positive, Section, Share, Word

Penalty = Callable[[], torch.Tensor | float]


class FitSettings(Section):
    """How a task is trained.

    Attributes:
        epochs: Over the task's training samples.
        batch_size: Samples of a step, two at least: norms over the batch take no single one.
        learning_rate: Of weights, by Adam.
        select_share: The share of the training samples that selects.
        device: Where tasks are trained: "cpu", "cuda", "cuda:1", "mps". By default the CPU.
    """

    epochs: Count = 20
    batch_size: Annotated[int, Field(strict=True, ge=2, le=MOST)] = 32
    learning_rate: Positive = 1e-3
    select_share: Share = 0.1
    device: Word | None = None


def fit(
    module: nn.Module,
    groups: Sequence[Mapping[str, object]],
    source: Source,
    settings: FitSettings,
    key: Sequence[int],
    penalty: Penalty | None = None,
) -> None:
    """Train a module on a task.

    Args:
        module: It; gives logits (n, classes).
        groups: What learns, as groups of parameters of an optimizer; one without a rate has the settings'.
        source: The samples.
        settings: How long, in which batches, and at which rate.
        key: Of the order, integers of at least 0.
        penalty: What is added to each step's loss.
    """
    shuffle = Shuffle(tuple(key))
    with on(settings.device, module) as device:
        optimizer = torch.optim.Adam([dict(group) for group in groups], lr=settings.learning_rate)
        module.train()
        for epoch in range(settings.epochs):
            for inputs, target in source.batches(settings.batch_size, shuffle, epoch):
                optimizer.zero_grad()
                loss = F.cross_entropy(module(*given(inputs, device)), target.to(device))
                if penalty is not None:
                    loss = loss + penalty()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own
                optimizer.step()


def accuracy_of(module: nn.Module, source: Source, where: str | None = None, batch_size: int = 512) -> float:
    """The share of samples whose class a module tells, in use.

    Args:
        module: Gives logits (n, classes).
        source: The samples.
        where: The device; by default the CPU.
        batch_size: Samples at a time.
    """
    right = count = 0
    with torch.no_grad(), on(where, module) as device:
        module.eval()
        for inputs, target in source.batches(batch_size, None):
            right += int((module(*given(inputs, device)).argmax(1) == target.to(device)).sum())
            count += len(target)
    return right / count


@contextmanager
def on(where: str | None, module: nn.Module) -> Generator[torch.device]:
    """Have a module on a device for a while, and on the CPU behind it. Raises RunError where there is none such."""
    device = device_of(where)
    try:
        module.to(device)
        yield device
    finally:
        module.cpu()


def given(
    inputs: tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor], device: torch.device | None = None
) -> list[torch.Tensor]:
    """What a module takes of a batch, on its device."""
    found = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [each.to(device) for each in found] if device is not None else list(found)
