"""Targets: which task they set, and labels of any kind as classes from 0.

["no", "yes", "no"]     classes "no", "yes"           0 1 0
[3, 1, 2]               classes 1, 2, 3               2 0 1
[0.0, 1.0]              classes 0, 1                  0 1
[[0, 1], [1, 0]]        one-hot: classes 0, 1         1 0
[1.5, 2.25]             amounts: regression           as they are
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from growir.data.arrays import as_float32, is_one_hot, varying
from growir.data.description import Task
from growir.errors import DataError, cut

Asked = Literal["auto", "classification", "regression"]
MANY = 20  # of more whole numbers than this, that are not just 0 or 1 to the last, nobody knows if they are amounts


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets that were understood.

    Attributes:
        task: What they set.
        train: (n,) int64 classes, or (n, outputs) float32.
        test: Like train; None where there is no test part.
        outputs: Classes, or numbers to predict.
        classes: The label of each class, sorted; None for regression.
    """

    task: Task
    train: NDArray[Any]
    test: NDArray[Any] | None
    outputs: int
    classes: tuple[bool | int | str, ...] | None


@dataclass(frozen=True, slots=True)
class Named:
    """Targets as given, and what a message calls them.

    Attributes:
        y: (n,) or (n, outputs).
        source: Where they are from, as a message begins.
        name: As in "y_train".
    """

    y: NDArray[Any]
    source: str
    name: str

    @property
    def where(self) -> str:
        """Source and name, as a message begins."""
        return f"{self.source}: {self.name}"

    def beside(self, other: Named) -> str:
        """What it is called in a message that began with another."""
        return self.name if self.source == other.source else self.where


def understood(train: Named, test: Named | None, asked: Asked) -> Targets:
    """The targets of a run.

    Args:
        train: Those to train on.
        test: Those to test on.
        asked: The task; by default words, whole numbers, truth values and one-hot rows are classes, and other numbers
            amounts.

    Raises:
        DataError: They are not what was asked for, could be meant in two ways, or there is nothing to learn.
    """
    task = _task(train) if asked == "auto" else asked
    if task == "regression":
        return _amounts(train, test)
    return _classes(train, test, sure=asked != "auto")


def _task(given: Named) -> Task:
    y = given.y
    if y.dtype.kind == "U" or is_one_hot(y):
        return "classification"
    return "classification" if y.size == len(y) and _whole(y) else "regression"


def _whole(y: NDArray[Any]) -> bool:
    return y.dtype.kind in "biu" or bool((y == np.floor(y)).all() and np.abs(y).max() < 2**53)


def _labels(given: Named) -> NDArray[Any]:
    """One label a sample: words, truth values or whole numbers."""
    y = given.y
    if is_one_hot(y):
        found: NDArray[Any] = y.argmax(axis=1)
        return found
    if y.size != len(y):
        raise DataError(f"{given.where} must hold one class per sample, or one-hot rows, but is {y.shape}")
    y = y.reshape(-1)
    if y.dtype.kind == "f":
        if not _whole(y):
            raise DataError(f'{given.where} holds fractions; classes are whole numbers or words (task = "regression"?)')
        y = y.astype(np.int64)
    return y


def _classes(train: Named, test: Named | None, *, sure: bool) -> Targets:
    for part in (train, test):
        if part is not None and is_one_hot(train.y) and is_one_hot(part.y) and part.y.shape[1] != train.y.shape[1]:
            shapes = f"{train.y.shape} and {part.y.shape}"
            raise DataError(f"{train.where} and {part.beside(train)} must have the same classes, but are {shapes}")
    labels = _labels(train)
    known, y_train = np.unique(labels, return_inverse=True)
    count = len(known)
    if count < 2:
        raise DataError(f"{train.where} holds one class only, {_shown(known)}; there is nothing to tell apart")
    if is_one_hot(train.y) and count < train.y.shape[1]:
        absent = min(set(range(train.y.shape[1])) - set(known.tolist()))
        raise DataError(f"{train.where} has no sample of class {absent}; leave column {absent} of its one-hot rows out")
    if count > len(labels) // 2:
        remedy = "" if labels.dtype.kind == "U" else ', or say task = "regression" if they are amounts'
        raise DataError(
            f"{train.where} holds {count} classes among {len(labels)} samples ({_shown(known)}), too many to learn; "
            f"name another target{remedy}"
        )
    numbered = int(known[0]) in (0, 1) and int(known[-1]) - int(known[0]) < count if labels.dtype.kind in "iu" else True
    if not sure and count > MANY and not numbered:
        raise DataError(
            f"{train.where} holds {count} different whole numbers ({_shown(known)}), which could be amounts or "
            'classes; say task = "regression" or task = "classification"'
        )
    y_test = None if test is None else _known(_labels(test), test, known, train)
    classes = tuple(known.tolist())
    return Targets("classification", y_train.reshape(-1).astype(np.int64), y_test, count, classes)


def _known(labels: NDArray[Any], test: Named, known: NDArray[Any], train: Named) -> NDArray[np.int64]:
    """Test labels as classes of the training labels."""
    if (labels.dtype.kind == "U") != (known.dtype.kind == "U"):
        kinds = ["words" if array.dtype.kind == "U" else "numbers" for array in (known, labels)]
        raise DataError(f"{test.where} holds {kinds[1]}, but {train.beside(test)} {kinds[0]}")
    strange = labels[~np.isin(labels, known)]
    if len(strange):
        raise DataError(f"{test.where} holds class {_shown(strange[:1])}, which {train.beside(test)} does not")
    return np.searchsorted(known, labels).astype(np.int64)


def _shown(labels: NDArray[Any]) -> str:
    return ", ".join(cut(label, 24) for label in labels[:6].tolist()) + (", ..." if len(labels) > 6 else "")


def _amounts(train: Named, test: Named | None) -> Targets:
    y_train = _floats(train)
    y_test = None if test is None else _floats(test)
    if test is not None and y_test is not None and y_train.shape[1] != y_test.shape[1]:
        sizes = f"{train.where} holds {y_train.shape[1]} and {test.beside(train)} {y_test.shape[1]}"
        raise DataError(f"{sizes} targets a sample; they must be as many")
    if not varying(y_train).any():
        raise DataError(f"{train.where}: all targets are the same in float32; there is nothing to learn")
    return Targets("regression", y_train, y_test, y_train.shape[1], None)


def _floats(given: Named) -> NDArray[np.float32]:
    if given.y.dtype.kind == "U":
        raise DataError(
            f"{given.where} holds words, such as {cut(given.y.flat[0], 24)!r}, but regression needs numbers; say "
            'task = "classification"'
        )
    return as_float32(given.y.reshape(len(given.y), -1), given.where)
