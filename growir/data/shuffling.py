"""Orders of samples as functions of a key: whoever goes on in the middle of a phase sees the orders of before."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch


def generator(*key: int) -> torch.Generator:
    """A random generator that is a function of its key alone, so that no phase depends on how another drew."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))


@dataclass(slots=True)
class _Walk:
    """How far the draws of one length have come.

    Attributes:
        draws: What draws the next one.
        drawn: How many it has drawn.
        last: The last of them.
    """

    draws: torch.Generator
    drawn: int
    last: torch.Tensor


@dataclass(frozen=True, slots=True)
class Shuffle:
    """The orders of one phase of training.

    The order of epoch e is draw number e + 1 of one generator, which is made of the key. So epochs in turn cost a draw
    each, and to go on at epoch e costs e draws more, once.

    Attributes:
        key: Integers of at least 0 that say which phase: the run's seed first.
    """

    key: tuple[int, ...]
    _walks: dict[int, _Walk] = field(default_factory=dict[int, _Walk], init=False, repr=False, compare=False)

    def order(self, count: int, epoch: int) -> torch.Tensor:
        """The order of so many samples in an epoch, counted from 0: (count,) int64, to be read only."""
        walk = self._walks.get(count)
        if walk is None or walk.drawn > epoch + 1:
            walk = self._walks[count] = _Walk(generator(*self.key), 0, torch.empty(0, dtype=torch.int64))
        while walk.drawn <= epoch:
            walk.last = torch.randperm(count, generator=walk.draws)
            walk.drawn += 1
        return walk.last
