"""Two sources as one, where they are not parts of the same: batches of the one among batches of the other."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from growir.data.shuffling import Shuffle
from growir.data.source import Batch, Source
from growir.errors import DataError


class Mixed:
    """All batches of two sources: mixed by the shuffle, or those of the first before those of the second.

    Args:
        first: A source.
        second: Another one, with inputs and targets like those.
    """

    def __init__(self, first: Source, second: Source) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def batch_count(self, size: int) -> int:
        """Batches of an epoch."""
        return self.first.batch_count(size) + self.second.batch_count(size)

    def batches(self, size: int, shuffle: Shuffle | None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """One epoch."""
        ones = self.first.batch_count(size)
        count = ones + self.second.batch_count(size)
        plan = (torch.arange(count) if shuffle is None else shuffle.order(count, epoch)) >= ones
        skipped = int(plan[:start].sum())
        second = self.second.batches(size, shuffle, epoch, skipped)
        first = self.first.batches(size, shuffle, epoch, len(plan[:start]) - skipped)
        for of_second in plan[start:]:
            batch = next(second if of_second else first, None)
            if batch is None:
                raise DataError(
                    "the training and the selection data ended before as many batches as they have; each time they are "
                    "walked they must give as many"
                )
            yield batch
