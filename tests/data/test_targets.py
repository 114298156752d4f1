"""Labels of every kind, and targets that could be meant in two ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from growir.data.targets import MANY, Asked, Named, Targets, understood
from growir.errors import DataError


def of(train: Any, test: Any = None, asked: Asked = "auto") -> Targets:
    given = None if test is None else Named(np.asarray(test), "it", "y_test")
    return understood(Named(np.asarray(train), "it", "y_train"), given, asked)


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (["no", "yes", "no", "no"], ("no", "yes"), [0, 1, 0, 0]),
        ([3, 1, 2, 1, 2, 3], (1, 2, 3), [2, 0, 1, 0, 1, 2]),
        ([-1, 1, 1, -1], (-1, 1), [0, 1, 1, 0]),
        ([0.0, 1.0, 1.0, 0.0], (0, 1), [0, 1, 1, 0]),
        ([True, False, True, True], (False, True), [1, 0, 1, 1]),
        ([[0, 1], [1, 0], [0, 1], [0, 1]], (0, 1), [1, 0, 1, 1]),
        ([["b"], ["a"], ["a"], ["b"]], ("a", "b"), [1, 0, 0, 1]),
        (np.array([2**63, 2**63 + 1] * 2, np.uint64), (2**63, 2**63 + 1), [0, 1, 0, 1]),
        ([10, 9, 10, 9], (9, 10), [1, 0, 1, 0]),
    ],
)
def test_labels_become_classes_from_0(labels: Any, classes: tuple[Any, ...], numbers: list[int]) -> None:
    found = of(labels, labels)
    assert (found.task, found.classes, found.outputs) == ("classification", classes, len(classes))
    assert found.train.dtype == np.int64
    assert found.train.tolist() == numbers
    assert found.test is not None
    assert found.test.tolist() == numbers
    assert [type(label) for label in found.classes or ()] == [type(label) for label in classes]


def test_numbers_that_are_no_whole_ones_are_amounts() -> None:
    found = of([0.5, 1.0, 2.0], [3.0])
    assert (found.task, found.outputs, found.classes) == ("regression", 1, None)
    assert found.test is not None
    assert (found.train.shape, found.test.shape) == ((3, 1), (1, 1))


def repeated(labels: NDArray[Any]) -> NDArray[Any]:
    return np.tile(labels, 3)


@pytest.mark.parametrize("first", [0, 1])
def test_many_classes_that_are_numbered_are_classes(first: int) -> None:
    assert of(repeated(np.arange(MANY + 5) + first)).outputs == MANY + 5


@pytest.mark.parametrize("labels", [np.arange(MANY + 1) + 2, np.arange(MANY + 1) * 2, np.arange(MANY + 1) * 2.0])
def test_many_other_whole_numbers_could_be_amounts(labels: NDArray[Any]) -> None:
    with pytest.raises(DataError, match='could be amounts or classes; say task = "regression" or task = "class'):
        of(repeated(labels))
    assert of(repeated(labels), asked="classification").outputs == MANY + 1
    assert of(repeated(labels), asked="regression").outputs == 1


@pytest.mark.parametrize(
    ("train", "test", "asked", "words"),
    [
        (
            ["a", "b", "c"],
            None,
            "auto",
            "it: y_train holds 3 classes among 3 samples (a, b, c), too many to learn; name",
        ),
        ([1, 2, 3], None, "auto", 'or say task = "regression" if they are amounts'),
        (["a", "a"], None, "auto", "it: y_train holds one class only, a; there is nothing to tell apart"),
        (["a", "b"] * 2, ["c"], "auto", "it: y_test holds class c, which y_train does not"),
        (["a", "b"] * 2, [1], "auto", "it: y_test holds numbers, but y_train words"),
        (["1.5", "x"] * 2, None, "regression", "it: y_train holds words, such as '1.5', but regression needs numbers"),
        ([0.5, 1.0], None, "classification", "it: y_train holds fractions"),
        ([1e300, 1e301] * 2, None, "classification", "it: y_train holds fractions"),
    ],
)
def test_what_is_refused(train: Any, test: Any, asked: Asked, words: str) -> None:
    with pytest.raises(DataError) as caught:
        of(train, test, asked)
    assert words in str(caught.value)
