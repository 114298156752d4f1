"""Whether a sample says which task it is of: the two scenarios in which a sequence is learned and judged.

"task": the task is given, and its head answers. "class": it is not, and the answer is one of all classes so far. A
network that all tasks share then has one head, which `Extend` makes longer with each task. Where each task has a
network or a view of its own, the highest of all their outputs counts: nothing has compared them in training, which is
weak.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Literal

import torch
from torch import nn

from growir.continual.experiences import Experience
from growir.data.shuffling import Shuffle
from growir.data.source import Batch, Source

Scenario = Literal["task", "class"]
SCENARIOS: Sequence[Scenario] = ("task", "class")


def offsets(experiences: Sequence[Experience]) -> list[int]:
    """The number of each task's first class among the classes of all."""
    return [0, *accumulate(len(each.classes) for each in experiences)][: len(experiences)]


class Shifted:
    """A source whose targets are numbers of classes, with another number for the first of them.

    Args:
        source: The samples.
        by: The number.
    """

    def __init__(self, source: Source, by: int) -> None:
        self.source, self.by = source, by

    def __len__(self) -> int:
        return len(self.source)

    def batch_count(self, size: int) -> int:
        """Batches of an epoch."""
        return self.source.batch_count(size)

    def batches(self, size: int, shuffle: Shuffle | None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """One epoch."""
        for batch in self.source.batches(size, shuffle, epoch, start):
            yield Batch(batch.inputs, batch.target + self.by)


class SideBySide(nn.Module):
    """The outputs of several modules on the same inputs, one behind the other: (n, all classes)."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """All logits."""
        return torch.cat([part(*inputs) for part in self.parts], 1)
