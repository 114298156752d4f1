"""What cannot be learned is refused before anything is: shapes, numbers and classes of every sample are read once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from growir.continual.experiences import Experience
from growir.data.feeding import Feed, InputSpec
from growir.errors import DataError, GraphError, cut
from growir.graph import Graph

ROWS = 512  # samples that are read at a time


def check_experiences(graph: Graph, experiences: Sequence[Experience]) -> None:
    """Refuse a network or tasks that `learn` cannot take.

    Raises:
        GraphError: The graph has not one input and one output.
        DataError: There are no tasks, two have one name, one has no test data, or a sample is of another shape than the
            network takes, not finite, or of a class that its task has not.
    """
    if len(graph.outputs) != 1 or len(graph.inputs) != 1:
        raise GraphError(
            f"a network of one input and one output is needed, but {cut(graph.name)} has {len(graph.inputs)} and "
            f"{len(graph.outputs)}"
        )
    if not experiences:
        raise DataError("there are no experiences to learn")
    names = [each.name for each in experiences]
    feed = Feed([InputSpec(each.name, tuple(each.shape), each.dtype) for each in graph.inputs])
    for k, each in enumerate(experiences):
        if each.name in names[:k]:
            raise DataError(f"two experiences are called {cut(each.name)!r}; give each its own name")
        if each.data.test is None:
            raise DataError(f"experience {cut(each.name)!r} has no test data")
        parts = {"training": each.data.train, "selection": each.data.select, "test": each.data.test}
        for name, part in parts.items():
            where = f"experience {cut(each.name)!r}: the {name} data"
            for batch in () if part is None else feed.epoch(part, ROWS, name=where):
                _check_classes(batch.target, len(each.classes), where)


def _check_classes(target: object, count: int, where: str) -> None:
    """Refuse targets that are no numbers of classes."""
    if not isinstance(target, torch.Tensor) or target.ndim != 1 or target.is_floating_point():
        what = f"{tuple(target.shape)} of {target.dtype}" if isinstance(target, torch.Tensor) else type(target).__name__
        raise DataError(f"{where}: targets are numbers of classes, whole ones, (n,), but these are {what}")
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= count:
        wrong = low if low < 0 else high
        raise DataError(f"{where} has a sample of class {wrong}, but its classes are numbered 0 to {count - 1}")
