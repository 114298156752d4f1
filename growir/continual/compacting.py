"""Compacting, picking and growing (CPG, Hung et al. 2019): what a task has learned is thinned out, for those that come.

A task picks and grows as with GROWN, but without gates for new kernels. Then the weakest kernels that it alone uses are
released a share at a time, by their norm, and the rest is trained on, as long as the task stays as good as it has to
be; what was released is free for the next task. The first network is meant to be a large one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from growir.continual.grown import Grown, GrownSettings, Had, going_on
from growir.continual.learner import Learner
from growir.continual.masks import Mask
from growir.continual.master import Arrays, Master
from growir.continual.offering import fresh_channels
from growir.data.parts import Data
from growir.graph import Graph
from growir.growth.sections import Count, NonNegative, Share


class CpgSettings(GrownSettings):
    """How a task is learned; each stage, and each release, has all the epochs.

    Attributes:
        sparse: Whether new kernels have gates of their own, beside those of their channels.
        release: The share of the kernels a task alone uses that is released at a time.
        releases: At most so many times.
        tolerance: What the accuracy on the samples that select may fall below what the task has, or below its target.
    """

    sparse: bool = False
    release: Share = 0.3
    releases: Count = 4
    tolerance: NonNegative = 0.01


class Compacting(Grown):
    """Learns one task after the other; see CpgSettings."""

    def __init__(self, settings: CpgSettings, seed: int = 0, first: Graph | None = None) -> None:
        super().__init__(settings, seed, first)
        self.release, self.releases, self.tolerance = settings.release, settings.releases, settings.tolerance

    def compacted(
        self, master: Master, learner: Learner, data: Data, task: int, wanted: float, had: Had
    ) -> tuple[Master, Learner, Sequence[float]]:
        """What of a task stays, so that it is about as good as it has to be, and its accuracy after each release."""
        locked, selected = master.locked, list[float]()
        for turn in range(self.releases):
            told = learner.result()
            used = _released(told["arrays"], told["masks"], locked, self.release)
            if all(np.array_equal(used[key], mask) for key, mask in told["masks"].items()):
                break
            smaller = going_on(master, learner)
            output = learner.output
            closed = list(fresh_channels(smaller.graph, had.closed))
            trial = Learner(smaller, output, gated={}, used=used, closed=closed, seed=self.key(task, 500 + turn))
            reached = self.fit(trial, data, task, 500 + turn)
            if reached < wanted - self.tolerance:
                break
            master, learner = smaller, trial
            selected.append(reached)
        return master, learner, selected


def _released(arrays: Arrays, masks: Mapping[str, Mask], locked: Mapping[str, Mask], share: float) -> dict[str, Mask]:
    """The masks without the weakest kernels of each tensor among those that no other task uses.

    Args:
        arrays: The weights, by key.
        masks: What the task uses.
        locked: What others use.
        share: Of its own kernels, rounded down.
    """
    found: dict[str, Mask] = {}
    for key, mask in masks.items():
        mine = mask & ~locked.get(key, np.zeros(mask.shape, bool))
        kernel = tuple(k for k, n in enumerate(mask.shape) if n == 1 and arrays[key].shape[k] != 1)
        norms = np.sqrt(np.square(arrays[key], dtype=np.float64).sum(axis=kernel, keepdims=True))
        places = np.flatnonzero(mine)
        weakest = places[np.argsort(norms.ravel()[places], kind="stable")[: int(share * len(places))]]
        left = mask.copy()
        left.ravel()[weakest] = False
        found[key] = left
    return found
