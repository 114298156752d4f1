"""How every method trains a task: Adam on cross-entropy, in batches of a seeded order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from growir.data.shuffling import Shuffle
from growir.data.source import Source
from growir.growth.sections import Count, Positive, Section, Share

Penalty = Callable[[], torch.Tensor | float]


class FitSettings(Section):
    """How a task is trained.

    Attributes:
        epochs: Over the task's training samples.
        batch_size: Samples of a step.
        learning_rate: Of weights, by Adam.
        select_share: The share of the training samples that selects.
    """

    epochs: Count = 20
    batch_size: Count = 32
    learning_rate: Positive = 1e-3
    select_share: Share = 0.1


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
    optimizer = torch.optim.Adam([dict(group) for group in groups], lr=settings.learning_rate)
    shuffle = Shuffle(tuple(key))
    module.train()
    for epoch in range(settings.epochs):
        for inputs, target in source.batches(settings.batch_size, shuffle, epoch):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(*given(inputs)), target)
            if penalty is not None:
                loss = loss + penalty()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()


def accuracy_of(module: nn.Module, source: Source, batch_size: int = 512) -> float:
    """The share of samples whose class a module tells, in use."""
    module.eval()
    right = count = 0
    with torch.no_grad():
        for inputs, target in source.batches(batch_size, None):
            right += int((module(*given(inputs)).argmax(1) == target).sum())
            count += len(target)
    return right / count


def given(inputs: tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor]) -> Iterable[torch.Tensor]:
    """What a module takes of a batch."""
    return inputs.values() if isinstance(inputs, Mapping) else inputs
