"""The twelve problems that growth and its yardsticks are measured on; they were named before the first run.

A seed draws generated data and the split, and is the methods' seed. MNIST and CIFAR-10 have test parts of their own: of
CIFAR's training images a seed takes 5000, of MNIST's it takes as many as asked for, by default all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.networks import cifar
from growir.growth.budget import BudgetConfig
from growir.growth.config import TrainConfig
from growir.testing.teacher import teacher_student

Array = NDArray[Any]
Arrays = Mapping[str, Array]  # x_train, y_train, x_test and y_test
HELD_OUT = 0.2  # of a set without a test part
TEACHERS = 4  # data seeds of the teacher-student problem
IMAGES = 5000  # of CIFAR
CONVOLUTIONS: Mapping[str, Any] = {
    "policy": {"strategy": "widen", "kernels": [3, 5]},
    "budget": {"parameters": 50_000, "macs": 2_500_000},
}


class Files(NamedTuple):
    """What does not come with scikit-learn.

    Attributes:
        mnist: An archive with Keras's keys.
        cifar: Another.
        samples: How many training samples of MNIST are taken; None for all.
    """

    mnist: Path | None = None
    cifar: Path | None = None
    samples: int | None = None


class Problem(NamedTuple):
    """Something to learn.

    Attributes:
        name: Its name.
        classes: Whether its targets are classes, 0 and up.
        draw: The arrays of a seed.
        settings: What `growir.grow` is told of it: sections of a run file.
        maps: Whether convolutions read it.
        table: Whether it is a table, which trees are good at.
        needs: The file that it is read from, "mnist" or "cifar"; None for no file.
        counts_as: Problems that share this are counted as one.
    """

    name: str
    classes: bool
    draw: Callable[[int, Files], Arrays]
    settings: Mapping[str, Any] = {}
    maps: bool = False
    table: bool = False
    needs: str | None = None
    counts_as: str = ""

    @property
    def counted(self) -> str:
        """What the problem is counted as."""
        return self.counts_as or self.name

    def training(self, samples: int) -> TrainConfig:
        """How growth trains on so many samples: the batch, and the epochs of its final fit."""
        return TrainConfig.model_validate(self.settings.get("train", {})).resolved(samples)

    @property
    def budget(self) -> BudgetConfig:
        """What growth may spend here, where that is said."""
        return BudgetConfig.model_validate(self.settings.get("budget", {}))


def split(x: Array, y: Array, classes: bool, seed: int) -> Arrays:
    """Four fifths to train on and one to test on; classes in equal shares, and numbered from 0."""
    from sklearn.model_selection import train_test_split

    if classes:
        y = np.unique(y, return_inverse=True)[1]
    parts: list[Array] = train_test_split(x, y, test_size=HELD_OUT, random_state=seed, stratify=y if classes else None)
    return dict(zip(("x_train", "x_test", "y_train", "y_test"), parts, strict=True))


def _given(name: str, classes: bool) -> Callable[[int, Files], Arrays]:
    def draw(seed: int, files: Files) -> Arrays:
        from sklearn import datasets

        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return split(x, y, classes, seed)

    return draw


def _made(name: str, classes: bool, **settings: Any) -> Callable[[int, Files], Arrays]:
    def draw(seed: int, files: Files) -> Arrays:
        from sklearn import datasets

        x, y = getattr(datasets, f"make_{name}")(random_state=seed, **settings)
        return split(x, y, classes, seed)

    return draw


def _digits(seed: int, files: Files) -> Arrays:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return split(digits.images, digits.target, True, seed)


def _teacher(seed: int, files: Files) -> Arrays:
    return teacher_student(seed % TEACHERS)


def _mnist(seed: int, files: Files) -> Arrays:
    assert files.mnist is not None, "asked for before"
    with np.load(files.mnist) as archive:
        arrays = {key: archive[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    if files.samples is not None:
        chosen = np.random.default_rng([seed, 2]).permutation(len(arrays["x_train"]))[: files.samples]
        arrays |= {key: arrays[key][chosen] for key in ("x_train", "y_train")}
    return arrays


def _cifar(seed: int, files: Files) -> Arrays:
    assert files.cifar is not None, "asked for before"
    with np.load(files.cifar) as archive:
        many, tests = (len(archive[f"y_{part}"]) for part in ("train", "test"))
    count = min(IMAGES, many)
    first = count * (seed % (many // count))
    x_train, y_train = cifar(files.cifar, "train", first, count, 16)
    x_test, y_test = cifar(files.cifar, "test", 0, tests, 16)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


_SEVEN = {"n_informative": 20, "n_redundant": 10, "n_classes": 7, "n_clusters_per_class": 2}
PROBLEMS: Mapping[str, Problem] = {
    problem.name: problem
    for problem in (
        Problem("teacher", False, _teacher),
        Problem("digits", True, _digits),
        Problem("mnist 25k", True, _mnist, {"budget": {"parameters": 25_000}}, needs="mnist", counts_as="mnist"),
        Problem("mnist 80k", True, _mnist, {"budget": {"parameters": 80_000}}, needs="mnist", counts_as="mnist"),
        Problem(
            "mnist convolutions",
            True,
            _mnist,
            {**CONVOLUTIONS, "train": {"epochs_between": 1, "epochs_final": 12}},
            maps=True,
            needs="mnist",
        ),
        Problem("cifar", True, _cifar, CONVOLUTIONS, maps=True, needs="cifar"),
        Problem("breast_cancer", True, _given("breast_cancer", True), table=True),
        Problem("diabetes", False, _given("diabetes", False), table=True),
        Problem("wine", True, _given("wine", True), table=True),
        Problem("friedman1", False, _made("friedman1", False, n_samples=2000, noise=1.0), table=True),
        Problem(
            "linear",
            False,
            _made("regression", False, n_samples=2000, n_features=10, n_informative=10, noise=50.0),
            table=True,
        ),
        Problem(
            "seven classes",
            True,
            _made("classification", True, n_samples=20_000, n_features=54, **_SEVEN),
            table=True,
        ),
        Problem("hastie", True, _made("hastie_10_2", True, n_samples=4000), table=True),
    )
}
