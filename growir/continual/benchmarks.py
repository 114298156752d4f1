"""Experiences of benchmark objects as Avalanche has them: a stream to train on and one to test on, of as many tasks.

from avalanche.benchmarks import SplitMNIST
from growir.continual import from_benchmark, learn

learn(graph, from_benchmark(SplitMNIST(n_experiences=5, return_task_id=True)))

Nothing of Avalanche is imported: whatever has the same attributes is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from growir.continual.experiences import Experience
from growir.data.parts import Data
from growir.errors import DataError, cut


def is_benchmark(found: object) -> bool:
    """Whether an object has the streams of a benchmark."""
    return hasattr(found, "train_stream") and hasattr(found, "test_stream")


def from_benchmark(benchmark: Any, *, names: Sequence[str] | None = None) -> list[Experience]:
    """The tasks of a benchmark; its samples are read as they are asked for.

    Args:
        benchmark: `train_stream` and `test_stream` are as long as each other. Each experience in them has a `dataset`
            of samples (x, y, ...) and says its `classes_in_this_experience`, whole numbers, which the y are among.
        names: Of the tasks; by default "experience 0" and so on.

    Raises:
        DataError: It is no such object, or its streams are not as long as each other.
    """
    if not is_benchmark(benchmark):
        raise DataError(
            f"a benchmark with a train_stream and a test_stream is needed, but this is {type(benchmark).__name__}"
        )
    train, test = list(benchmark.train_stream), list(benchmark.test_stream)
    if not train or len(train) != len(test):
        raise DataError(
            f"the train_stream has {len(train)} experiences and the test_stream {len(test)}; each task needs both"
        )
    if names is not None and len(names) != len(train):
        raise DataError(f"there are {len(train)} experiences and {len(names)} names; each has one")
    found: list[Experience] = []
    for k, (one, other) in enumerate(zip(train, test, strict=True)):
        name = f"experience {k}" if names is None else names[k]
        classes = _classes(one, name)
        data = Data.from_dataset(_Samples(one.dataset, classes, name), test=_Samples(other.dataset, classes, name))
        found.append(Experience(name, data, classes))
    return found


def _classes(experience: Any, name: str) -> tuple[int, ...]:
    """The classes of an experience, in order."""
    given: object = getattr(experience, "classes_in_this_experience", None)
    if given is None:
        raise DataError(f"{name}: it does not say its classes_in_this_experience")
    return tuple(sorted({int(label) for label in cast("Sequence[Any]", given)}))


class _Samples:
    """A data set of samples (x, y, ...) as one of (x, number of the class)."""

    def __init__(self, samples: Any, classes: Sequence[int], name: str) -> None:
        self.samples, self.name = samples, name
        self.numbers = {label: k for k, label in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        x, y, *_ = self.samples[index]
        label = int(y)
        if label in self.numbers:
            return x, self.numbers[label]
        raise DataError(
            f"{self.name}: sample {index} is of class {cut(label)}, which is none of its classes_in_this_experience, "
            f"{', '.join(map(str, list(self.numbers)[:8]))}"
        )
