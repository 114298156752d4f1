"""A sequence of tasks, learned one after the other; what each could do after each is measured on the test data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from growir.continual.experiences import Experience
from growir.continual.grown import Grown, GrownSettings, accuracy_of, heads
from growir.continual.master import Master
from growir.continual.measures import Measures, measures
from growir.errors import DataError, GraphError, cut
from growir.graph import Graph
from growir.network import Network
from growir.params import param_table
from growir.shapes import shapes_of


@dataclass(frozen=True, slots=True, eq=False)
class ContinualResult:
    """What came of a sequence.

    Attributes:
        master: With all tasks.
        accuracy: (tasks, tasks), on the test data, of the column's task after the row's was learned; NaN before it was.
        selected: Of each task, its accuracy on the samples that select after each stage.
        channels: Of each task, how many channels it added, by space.
        parameters: Of the master's weights that a task uses and of all tasks' own tensors, after each task.
    """

    master: Master
    accuracy: NDArray[np.float64]
    selected: Sequence[Sequence[float]]
    channels: Sequence[dict[str, int]]
    parameters: Sequence[int]

    @property
    def measures(self) -> Measures:
        """Accuracy at the end, forgetting, and transfer."""
        return measures(self.accuracy)


def learn(
    graph: Graph, experiences: Sequence[Experience], *, settings: GrownSettings | None = None, seed: int = 0
) -> ContinualResult:
    """Learn one task after the other by GROWN, forgetting nothing.

    Args:
        graph: A small network with one output, whose last layer is as wide as a task has classes; each task has a head
            like it.
        experiences: The tasks, in their order; each has test data.
        settings: How each is learned.
        seed: Of all that is drawn.

    Raises:
        GraphError: The graph has not one output, or its inputs are not what the data has.
        DataError: There are no tasks, two have one name, or one lacks test data.
    """
    _check(graph, experiences)
    wide, outputs = heads(graph, graph.outputs[0], [len(each.classes) for each in experiences])
    first = Network.init(wide, seed)
    master, method = Master(first.graph, first.arrays), Grown(settings, seed)
    accuracy = np.full((len(experiences), len(experiences)), np.nan)
    selected: list[Sequence[float]] = []
    channels: list[dict[str, int]] = []
    parameters: list[int] = []
    for t, (experience, output) in enumerate(zip(experiences, outputs, strict=True)):
        learned = method.learn(master, output, experience)
        master = learned.master
        selected.append(learned.selected)
        channels.append(dict(learned.channels))
        parameters.append(size_of(master))
        for k, earlier in enumerate(experiences[: t + 1]):
            assert earlier.data.test is not None, "it was checked"
            accuracy[t, k] = accuracy_of(master.task(earlier.name).to_torch(), earlier.data.test)
    return ContinualResult(master, accuracy, selected, channels, parameters)


def size_of(master: Master) -> int:
    """How many numbers are kept: shared weights that any task uses, once, and each task's own."""
    table = param_table(master.graph)
    shared = sum(int(np.broadcast_to(mask, table[key].shape).sum()) for key, mask in master.locked.items())
    return shared + sum(array.size for task in master.tasks.values() for array in task.own.values())


def _check(graph: Graph, experiences: Sequence[Experience]) -> None:
    """Refuse what cannot be learned, before anything is."""
    if len(graph.outputs) != 1 or len(graph.inputs) != 1:
        raise GraphError(
            f"a network of one input and one output is needed, but {cut(graph.name)} has {len(graph.inputs)} and "
            f"{len(graph.outputs)}"
        )
    if not experiences:
        raise DataError("there are no experiences to learn")
    takes, names = shapes_of(graph)[graph.inputs[0].name].dims[1:], [each.name for each in experiences]
    for k, each in enumerate(experiences):
        if each.name in names[:k]:
            raise DataError(f"two experiences are called {cut(each.name)!r}; give each its own name")
        if each.data.test is None:
            raise DataError(f"experience {cut(each.name)!r} has no test data")
        for part in (each.data.train, each.data.test):
            given, _ = next(iter(part.batches(2, None)))
            (x,) = given.values() if not isinstance(given, tuple) else given
            if tuple(x.shape[1:]) != tuple(takes):
                raise DataError(
                    f"experience {cut(each.name)!r}: its samples are {tuple(x.shape[1:])}, but the network takes "
                    f"{tuple(takes)}"
                )
