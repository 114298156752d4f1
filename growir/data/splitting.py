"""A part that is held out to test on, where the data has none of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARE = 0.2


def held_out(labels: NDArray[Any] | None, samples: int, share: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The samples to train on and those to test on, each in the order they came in.

    Of classes each gives its share, and at least one sample stays to train on: of five "a" and one "b", a fifth is one
    "a".

    Args:
        labels: (samples,) of anything that sorts; None for targets that are no classes.
        samples: How many there are.
        share: Of them to hold out, above 0 and below 1; at least one is.
        seed: Of the draw.
    """
    draw = np.random.default_rng(seed).permutation(samples)
    wanted = max(1, math.floor(share * samples + 0.5))
    if labels is None:
        held = draw[:wanted]
    else:
        # By class in the order of the draw, each sample stands at its place within its class; the places that come
        # first, as shares of the class, are held out: every class gives the same share, up to one sample.
        classes = np.unique(labels[draw], return_inverse=True)[1].reshape(-1)
        sizes = np.bincount(classes)
        order = np.argsort(classes, kind="stable")
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        places = np.empty(samples)
        places[order] = (np.arange(samples) - starts[classes[order]] + 0.5) / sizes[classes[order]]
        last = np.empty(samples, bool)
        last[order] = np.arange(samples) == (starts + sizes - 1)[classes[order]]
        first = np.argsort(np.where(last, math.inf, places), kind="stable")
        held = draw[first[: min(wanted, samples - len(sizes))]]
    train = np.setdiff1d(np.arange(samples), held)
    return train, np.sort(held)
