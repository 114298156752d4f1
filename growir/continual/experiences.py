"""What is learned one after the other: an experience is a task's data and the classes that its outputs stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from growir.data.parts import Data
from growir.errors import DataError, cut

Label = int | str


@dataclass(frozen=True, slots=True, eq=False)
class Experience:
    """One task.

    Attributes:
        name: What it is called.
        data: Inputs, and targets that are numbers of `classes`, from 0.
        classes: What the outputs of its head stand for, in order.
    """

    name: str
    data: Data
    classes: tuple[Label, ...]

    def __post_init__(self) -> None:
        """Raises DataError unless there are two classes or more, each once, and it has a name."""
        if not self.name:
            raise DataError("an experience has a name")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise DataError(f"experience {cut(self.name)!r}: two classes or more are needed, each once")


def by_classes(
    x: NDArray[Any],
    y: NDArray[Any],
    groups: Sequence[Sequence[Label]],
    *,
    test: tuple[NDArray[Any], NDArray[Any]] | None = None,
    names: Sequence[str] | None = None,
    select: float | None = None,
) -> list[Experience]:
    """One experience for each group of classes, with the samples that are of one of them.

    Args:
        x: Inputs (n, ...).
        y: Labels (n,).
        groups: The classes of each experience.
        test: Inputs and labels to test on, which are divided alike.
        names: Of the experiences; by default their classes, "0, 1".
        select: The share of the training samples that selects; what learns says it by default.

    Raises:
        DataError: A class has no samples, or names are not as many as groups, or two are the same.
    """
    if len(x) != len(y):
        raise DataError(f"there are {len(x)} inputs and {len(y)} labels; each input has one")
    called = [", ".join(map(str, group)) for group in groups] if names is None else list(names)
    if len(called) != len(groups):
        raise DataError(f"there are {len(groups)} groups of classes and {len(called)} names; each group has one")
    if twice := next((name for k, name in enumerate(called) if name in called[:k]), None):
        raise DataError(f"two experiences are called {cut(twice)!r}; give each its own name")
    found: list[Experience] = []
    for name, group in zip(called, groups, strict=True):
        train = _of(x, y, group, f"experience {cut(name)!r}: the training data has")
        others = None if test is None else _of(*test, group, f"experience {cut(name)!r}: the test data has")
        found.append(Experience(name, Data.from_arrays(*train, select=select, test=others), tuple(group)))
    return found


def _of(x: NDArray[Any], y: NDArray[Any], group: Sequence[Label], where: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The samples of some classes, with the number of its class in place of each label."""
    number = np.full(len(y), -1, np.int64)
    for k, label in enumerate(group):
        number[y == label] = k
        if not (y == label).any():
            raise DataError(f"{where} no sample of class {cut(repr(label))}")
    taken = number >= 0
    return x[taken], number[taken]
