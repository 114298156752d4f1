"""Parts of what has no sample numbers: every few batches of a source that gives the same ones each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from growir.data.shuffling import Shuffle
from growir.data.source import Batch, Source
from growir.errors import DataError


class EveryFew:
    """The batches of a source whose number, modulo `of`, is one of `numbers`.

    The source is walked as without a shuffle in every epoch, since only so a sample stays in its part.

    Args:
        source: One whose batches are of its own size.
        numbers: From 0, below `of`.
        of: The period.
        where: What messages call the source.
    """

    def __init__(self, source: Source, numbers: Sequence[int], of: int, where: str) -> None:
        self.source, self.numbers, self.of, self.where = source, frozenset(numbers), of, where
        self._samples: int | None = None

    def __len__(self) -> int:
        """How many samples there are; the first time, all are read for it."""
        if self._samples is None:
            self._samples = sum(len(batch) for batch in self.batches(1, None))
        return self._samples

    def batch_count(self, size: int) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(self.source.batch_count(size), self.of)
        return whole * len(self.numbers) + sum(number < rest for number in self.numbers)

    def batches(self, size: int, shuffle: Shuffle | None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """One epoch, the same each time.

        Raises:
            DataError: The source ended before the first of them.
        """
        count = given = 0
        for batch in self.source.batches(size, None):
            if count % self.of in self.numbers:
                if given >= start:
                    yield batch
                given += 1
            count += 1
        if not given:
            raise DataError(
                f"{self.where}: it has {batches_said(count)}, too few to be cut by the batch; make its batches "
                "smaller, or give select= data of its own"
            )

    def every(self, numbers: Sequence[int], of: int) -> EveryFew:
        """Some of these batches."""
        return EveryFew(self, numbers, of, self.where)

    def with_others(self, other: EveryFew) -> Source | None:
        """The source of both, if they are parts of one and are all of it."""
        same = self.source is other.source and self.of == other.of
        return self.source if same and len(self.numbers | other.numbers) == self.of else None


def batches_said(count: int) -> str:
    """How many batches, in words."""
    return "1 batch" if count == 1 else f"{count:,} batches"
