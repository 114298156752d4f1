"""What cannot be learned is refused before anything is: shapes, numbers and classes of every sample are read once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from growir.continual.experiences import Experience
from growir.continual.learner import head_of
from growir.continual.scenarios import Scenario
from growir.data.feeding import Feed, InputSpec
from growir.errors import DataError, GraphError, cut
from growir.graph import Graph
from growir.layers import is_layer
from growir.names import title_fault

ROWS = 512  # samples that are read at a time


def check_experiences(graph: Graph, experiences: Sequence[Experience], scenario: Scenario = "task") -> None:
    """Refuse a network or tasks that `learn` cannot take.

    Args:
        graph: The network.
        experiences: The tasks.
        scenario: Whether samples say their task; where they do not, tasks share no class.

    Raises:
        GraphError: The graph has not one input and one output, or does not end in one linear layer.
        DataError: There are no tasks, two have one name, one has no test data, or a sample is of another shape than the
            network takes, not finite, or of a class that its task has not.
    """
    if len(graph.outputs) != 1 or len(graph.inputs) != 1:
        raise GraphError(
            f"a network of one input and one output is needed, but {cut(graph.name)} has {len(graph.inputs)} and "
            f"{len(graph.outputs)}"
        )
    layers = [name for name in head_of(graph, graph.outputs[0]) if is_layer(graph, name)]
    if len(layers) != 1 or "out_features" not in type(graph[layers[0]].op).model_fields:
        raise GraphError(
            f"{cut(graph.name)}: a network that ends in one layer with out_features is needed, which each task has for "
            f"itself, but {cut(graph.outputs[0])} depends on {', '.join(map(cut, sorted(layers))) or 'none'}"
        )
    if not experiences:
        raise DataError("there are no experiences to learn")
    names = [each.name for each in experiences]
    feed = Feed([InputSpec(each.name, tuple(each.shape), each.dtype) for each in graph.inputs])
    for k, each in enumerate(experiences):
        if each.name in names[:k]:
            raise DataError(f"two experiences are called {cut(each.name)!r}; give each its own name")
        if fault := title_fault(each.name):
            raise DataError(f"the name of experience {k + 1}, {cut(each.name)!r}: {fault}; give names")
        known = (
            {label for other in experiences[:k] for label in other.classes} if scenario == "class" else set[object]()
        )
        if both := [label for label in each.classes if label in known]:
            raise DataError(
                f"experience {cut(each.name)!r}: class {cut(repr(both[0]))} is of an earlier one too, so that samples "
                'which do not say their task could be of either; take scenario "task"'
            )
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
