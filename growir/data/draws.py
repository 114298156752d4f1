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

_NUMPY: Any = np.random  # whose annotations lack two of its functions
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
        self._torch = [torch.default_generator, *own]
        self._states = [torch.Generator().manual_seed(seed_at(seed, k) >> 1).get_state() for k in range(len(own) + 1)]
        self._numpy = np.random.MT19937(seed)
        self._python = random.Random(seed).getstate()

    @contextmanager
    def used(self) -> Generator[None]:
        """Draw from the stream; afterwards the process's generators are as they were."""
        states, python = [generator.get_state() for generator in self._torch], random.getstate()
        numpy, bits = _NUMPY.get_state(legacy=False), _NUMPY.get_bit_generator()
        self._set(self._states, self._python)
        # Data sets draw from numpy's global functions. To exchange what is behind them is quicker than to copy states.
        _NUMPY.set_bit_generator(self._numpy)
        try:
            yield
        finally:
            self._states, self._python = [generator.get_state() for generator in self._torch], random.getstate()
            self._set(states, python)
            _NUMPY.set_bit_generator(bits)
            if numpy["has_gauss"]:  # a normal number drawn ahead, which the exchange dropped
                _NUMPY.set_state(numpy)

    def _set(self, states: Sequence[torch.Tensor], python: Any) -> None:
        for generator, state in zip(self._torch, states, strict=True):
            generator.set_state(state)
        random.setstate(python)
