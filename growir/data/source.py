"""What data is to a run: a source of batches, each of inputs and a target; an indexed one has rows and parts too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from growir.data.shuffling import Shuffle


class Batch(NamedTuple):
    """Samples that are read together, n of them.

    `len(batch)` is n, not 2; for a batch is a pair only where it is taken apart, `inputs, target = batch`.

    Attributes:
        inputs: Of the network, each (n, ...): in their order, or by their names.
        target: A tensor (n, ...), or tuples and mappings of them: goes to the objective as it is.
    """

    inputs: tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor]
    target: Any

    def __len__(self) -> int:
        first = next(iter(self.inputs.values() if isinstance(self.inputs, Mapping) else self.inputs))
        return len(first)


@runtime_checkable
class Source(Protocol):
    """Samples that can be walked through any number of times."""

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def batches(self, size: int, shuffle: Shuffle | None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """One epoch.

        What comes is a function of the arguments: the same for the same ones, in whichever process and however often.

        Args:
            size: Samples of a batch. A last batch of a single sample joins the one before, since batch norm cannot
                take it; so a batch has up to size + 1. A source whose batches are made elsewhere keeps their size.
            shuffle: The orders, and what augmentation draws from; None for samples in order, with the same
                augmentation, if there is any, each time.
            epoch: Which epoch of the shuffle, from 0.
            start: Batches that are left out at the beginning; the rest is as in the whole epoch.
        """
        ...

    def batch_count(self, size: int) -> int:
        """How many batches `batches` gives in an epoch."""
        ...


@runtime_checkable
class Indexed(Source, Protocol):
    """A source whose samples have numbers, from 0: it can be cut into parts and read by rows.

    Attributes:
        whole: The source that this is a part of; itself where it is none.
        indices: (len,) int64, which samples of `whole` this has, in its order.
    """

    @property
    def whole(self) -> Indexed: ...

    @property
    def indices(self) -> torch.Tensor: ...

    def part(self, indices: torch.Tensor) -> Indexed:
        """Some of the samples, by their numbers here (k,), as a source of its own; nothing is copied."""
        ...

    def rows(self, indices: torch.Tensor) -> Batch:
        """Some of the samples, by their numbers here (k,), read at once."""
        ...


@runtime_checkable
class Stream(Source, Protocol):
    """A source whose batches have numbers and whose samples have none: it is cut into parts by the batch."""

    def every(self, numbers: Sequence[int], of: int) -> Source:
        """The batches whose number, modulo `of`, is one of `numbers`: the same ones in every epoch."""
        ...


def bounds(count: int, size: int) -> list[int]:
    """Where batches of so many samples begin and the last one ends: 0, 4, 8, 10 of ten by four; [0] of none."""
    found = [*range(0, count, size), count]
    # Batch norm cannot take a single sample: the last batch of one joins the one before.
    if len(found) > 2 and found[-1] - found[-2] == 1:
        del found[-2]
    return found


def slices(order: torch.Tensor, size: int, start: int) -> Iterator[torch.Tensor]:
    """An order cut into batches, without the first `start` of them."""
    for begin, end in list(pairwise(bounds(len(order), size)))[start:]:
        yield order[begin:end]


def of_part(indices: torch.Tensor, chosen: torch.Tensor | Sequence[int]) -> torch.Tensor:
    """The indices of a part of a part: those at the chosen places."""
    return indices[torch.as_tensor(chosen, dtype=torch.int64)]
