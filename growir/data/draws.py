"""Random numbers of augmentation, as functions of a key: data sets draw them from torch, numpy and Python's random.

The draws of a run of batches are a stream of their own: what trains draws between them, and neither sees the other.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from growir.data.shuffling import Shuffle

_WORD = 2**64 - 1
IN_ORDER = 0  # the seed where there is no shuffle


def seed_of(shuffle: Shuffle | None, epoch: int) -> int:
    """A seed of 64 bits for an epoch of a shuffle; one and the same without."""
    if shuffle is None:
        return IN_ORDER
    # As a spawn key, since a key with epochs behind it could be another phase's.
    words = np.random.SeedSequence(shuffle.key, spawn_key=(epoch,)).generate_state(1, np.uint64)
    return int(words[0])


def seed_at(seed: int, index: int) -> int:
    """The seed of a sample, of 64 bits: splitmix64 (Steele et al. 2014), since a SeedSequence a sample is too slow."""
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & _WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)


def seed_globals(seed: int) -> None:
    """Seed the generators that data sets draw from: torch's of the CPU, numpy's and Python's."""
    # Not torch.manual_seed, which seeds those of GPUs too, where training draws.
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002  # the global one is what data sets draw from
    random.seed(seed)


class Apart:
    """A stream of random numbers apart from the process's own.

    Args:
        seed: Of the stream.
        own: Generators that are part of it too, such as a loader's.
    """

    def __init__(self, seed: int, own: Sequence[torch.Generator] = ()) -> None:
        self._own = own
        outside = self._state()
        seed_globals(seed)
        for k, generator in enumerate(own):
            generator.manual_seed(seed_at(seed, k) >> 1)
        self._inside = self._state()
        self._set(outside)

    @contextmanager
    def used(self) -> Generator[None]:
        """Draw from the stream; afterwards the process's generators are as they were."""
        outside = self._state()
        self._set(self._inside)
        try:
            yield
        finally:
            self._inside = self._state()
            self._set(outside)

    def _state(self) -> tuple[Any, ...]:
        numpy = np.random.get_state()  # noqa: NPY002  # the global one is what data sets draw from
        return torch.get_rng_state(), numpy, random.getstate(), [generator.get_state() for generator in self._own]

    def _set(self, state: tuple[Any, ...]) -> None:
        of_torch, numpy, python, own = state
        torch.set_rng_state(of_torch)
        np.random.set_state(numpy)  # noqa: NPY002  # the global one is what data sets draw from
        random.setstate(python)
        for generator, found in zip(self._own, own, strict=True):
            generator.set_state(found)
