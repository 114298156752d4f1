"""The data of a run in memory: checked, split, and described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from growir.data.arrays import TEST, TRAIN, as_float32, needed, plain, read_arrays, varying
from growir.data.description import Description, Feature, Task
from growir.data.splitting import SHARE, held_out
from growir.data.targets import Asked, Named, Targets, understood
from growir.errors import DataError

MIN_SAMPLES = 9  # three parts of three


@dataclass(frozen=True, slots=True)
class Dataset:
    """Checked training and test data.

    Attributes:
        x_train: (n, ...) float32.
        y_train: (n,) int64 classes, or (n, outputs) float32.
        x_test: (m, ...) float32; m is 0 where there is no test part.
        y_test: Like y_train.
        description: What it all means.
        held_out: The share of the samples that was held out to test on; 0 where none was asked for, None where the data
            has a test part of its own.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[Any]
    x_test: NDArray[np.float32]
    y_test: NDArray[Any]
    description: Description
    held_out: float | None

    @property
    def task(self) -> Task:
        """What the targets set."""
        return self.description.task

    @property
    def outputs(self) -> int:
        """Classes, or numbers to predict."""
        return self.description.outputs


@dataclass(frozen=True, slots=True)
class Part:
    """Samples and their targets, and what a message calls each.

    Attributes:
        x: (n, ...) numbers.
        y: (n,) or (n, outputs), numbers or words.
        source: Where they are from, as a message begins.
        x_name: As in "x_train".
        y_name: As in "y_train".
    """

    x: NDArray[Any]
    y: NDArray[Any]
    source: str
    x_name: str
    y_name: str

    def checked(self) -> Part:
        """The same if samples and targets are some, and as many. Raises DataError if not."""
        x, y = self.x, self.y
        if len(x) != len(y):
            raise DataError(f"{self.source}: {self.x_name} holds {len(x)} samples, but {self.y_name} {len(y)}")
        if x.ndim < 2 or 0 in x.shape:
            raise DataError(
                f"{self.source}: {self.x_name} must be (samples, ...) with at least one number each, but is {x.shape}"
            )
        if y.ndim > 2 or 0 in y.shape:
            raise DataError(f"{self.source}: {self.y_name} must be (samples,) or (samples, outputs), but is {y.shape}")
        return self


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a table says beyond its numbers.

    Attributes:
        features: The columns that samples are made of.
        target: The column that is learned.
    """

    features: Sequence[Feature]
    target: str


def parts_of(arrays: Mapping[str, ArrayLike], source: str) -> tuple[Part, Part | None]:
    """Arrays under the Keras keys as what to train on and what to test on, if there is any. Raises DataError."""
    keys = needed(arrays, source)
    return _part(arrays, TRAIN, source), _part(arrays, TEST, source) if TEST[0] in keys else None


def test_arrays(path: Path) -> Part:
    """What to test on, from an .npz file of its own. Raises DataError."""
    return _part(read_arrays(path, partial(needed, wanted=TEST)), TEST, str(path))


def _part(arrays: Mapping[str, ArrayLike], keys: tuple[str, str], source: str) -> Part:
    x, y = keys
    samples, targets = plain(arrays[x], f"{source}: {x}"), plain(arrays[y], f"{source}: {y}", words=True)
    return Part(samples, targets, source, x, y).checked()


def dataset(
    train: Part, test: Part | None, *, task: Asked, share: float | None, seed: int, meaning: Meaning | None = None
) -> Dataset:
    """The data of a run.

    Args:
        train: What to train on, and to hold a part out of where there is no test part.
        test: What to test on.
        task: What the targets set; "auto" sees for itself.
        share: Of the samples to hold out; a fifth if None.
        seed: Of the draw of those held out.
        meaning: What a table says of them.

    Raises:
        DataError: There is too little of it, nothing to learn, or parts do not belong together.
    """
    source = train.source
    if test is not None and share is not None:
        raise DataError(
            f"{test.source}: {test.x_name} is a test part, but [data] test asks to hold out {share:g} of the training "
            "samples; leave one of them out"
        )
    if test is not None and train.x.shape[1:] != test.x.shape[1:]:
        shapes = f"{train.x.shape[1:]} in {train.x_name} and {test.x.shape[1:]} in {test.x_name}"
        raise DataError(f"{source}: samples must have one shape, but it is {shapes}")
    x_train = as_float32(train.x, f"{source}: {train.x_name}")
    named = Named(train.y, source, train.y_name)
    if test is not None:
        x_test = as_float32(test.x, f"{test.source}: {test.x_name}")
        targets = understood(named, Named(test.y, test.source, test.y_name), task)
        y_train, y_test = targets.train, targets.test
        assert y_test is not None
        held = None
    else:
        held = SHARE if share is None else share
        targets = understood(named, None, task)
        x_train, y_train, x_test, y_test = _split(x_train, targets, held, seed)
    if len(x_train) < MIN_SAMPLES:
        lacking = f", of which {len(x_test)} are held out to test on and {len(x_train)} are left" if held else ""
        raise DataError(
            f"{source}: {train.x_name} holds {len(train.x)} samples{lacking}; at least {MIN_SAMPLES} are needed to "
            "train on"
        )
    if not varying(x_train).any():
        raise DataError(
            f"{source}: all samples of {train.x_name} are the same in float32; there is nothing to learn from"
        )
    description = Description(
        task=targets.task,
        sample=x_train.shape[1:],
        outputs=targets.outputs,
        classes=targets.classes,
        features=None if meaning is None else tuple(meaning.features),
        target=None if meaning is None else meaning.target,
    )
    return Dataset(x_train, y_train, x_test, y_test, description, held)


def _split(
    x: NDArray[np.float32], targets: Targets, share: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float32], NDArray[Any]]:
    if not share:
        return x, targets.train, x[:0], targets.train[:0]
    labels = targets.train if targets.task == "classification" else None
    train, test = held_out(labels, len(x), share, seed)
    return x[train], targets.train[train], x[test], targets.train[test]
