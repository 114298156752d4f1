"""A sequence of tasks, learned one after the other; what each could do after each is measured on the test data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from growir.continual.baselines import Consolidated, EwcSettings, FineTuned, Joint, Separate
from growir.continual.experiences import Experience
from growir.continual.firefly import Firefly, FireflySettings
from growir.continual.fitting import FitSettings, accuracy_of
from growir.continual.grown import Grown, GrownSettings, Learned, heads
from growir.continual.master import Master
from growir.continual.measures import Measures, measures
from growir.errors import DataError, GraphError, RunError, cut
from growir.graph import Graph
from growir.nearest import alternatives
from growir.network import Network
from growir.params import param_table
from growir.shapes import shapes_of


class Method(Protocol):
    """A way to learn one task after the other."""

    def learn(self, task: int, experience: Experience) -> None:
        """One task more, by its number."""
        ...

    def network(self, task: int) -> Network:
        """What there is for a task that was learned."""
        ...

    @property
    def parameters(self) -> int:
        """How many numbers are kept for all that was learned."""
        ...


class Growing:
    """GROWN or Firefly as a method."""

    def __init__(
        self, graph: Graph, outputs: Sequence[str], settings: GrownSettings | FireflySettings, seed: int
    ) -> None:
        first = Network.init(graph, seed)
        self.master, self.outputs = Master(first.graph, first.arrays), outputs
        self.names: list[str] = []
        self.grown = Firefly(settings, seed) if isinstance(settings, FireflySettings) else Grown(settings, seed)
        self.learned = list[Learned]()

    def learn(self, task: int, experience: Experience) -> None:
        """One task more."""
        self.learned.append(self.grown.learn(self.master, self.outputs[task], experience))
        self.master = self.learned[-1].master
        self.names.append(experience.name)

    def network(self, task: int) -> Network:
        """The master's view."""
        return self.master.task(self.names[task])

    @property
    def parameters(self) -> int:
        """Shared weights that any task uses, once, and each task's own tensors."""
        return size_of(self.master)


_Made = Callable[[Graph, Sequence[str], Any, int], Method]
GROW_ONLY: Mapping[str, bool] = {"select": False, "retrain": False, "sparse": False}
METHODS: Mapping[str, tuple[_Made, type[FitSettings], Mapping[str, Any]]] = {
    "grown": (Growing, GrownSettings, {}),
    "grow_only": (Growing, GrownSettings, GROW_ONLY),
    "firefly": (Growing, FireflySettings, {}),
    "separate": (Separate, FitSettings, {}),
    "fine_tuned": (FineTuned, FitSettings, {}),
    "ewc": (Consolidated, EwcSettings, {}),
    "joint": (Joint, FitSettings, {}),
}


@dataclass(frozen=True, slots=True, eq=False)
class ContinualResult:
    """What came of a sequence.

    Attributes:
        networks: For each task, by its name, what there is for it at the end.
        accuracy: (tasks, tasks), on the test data, of the column's task after the row's was learned; NaN before it was.
        parameters: How many numbers were kept after each task.
        master: With all tasks, where the method has one.
        selected: Of each task that a master learned, its accuracy on the samples that select after each stage.
        channels: Of each such task, how many channels it added, by space.
    """

    networks: Mapping[str, Network]
    accuracy: NDArray[np.float64]
    parameters: Sequence[int]
    master: Master | None = None
    selected: Sequence[Sequence[float]] = ()
    channels: Sequence[Mapping[str, int]] = ()

    @property
    def measures(self) -> Measures:
        """Accuracy at the end, forgetting, and transfer."""
        return measures(self.accuracy)


def learn(
    graph: Graph,
    experiences: Sequence[Experience],
    *,
    method: str = "grown",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ContinualResult:
    """Learn one task after the other.

    Args:
        graph: A network with one output, a small one where it is to grow; each task has a head like its last layer, as
            wide as it has classes.
        experiences: The tasks, in their order; each has test data.
        method: "grown"; "grow_only", GROWN without gates and without what no task uses; "firefly", which copies and
            changes old units or adds new ones; "separate", a network for each task; "fine_tuned", one that nothing
            protects; "ewc"; or "joint", all tasks so far at once.
        settings: Of the method: fields of GrownSettings, FireflySettings, EwcSettings or FitSettings.
        seed: Of all that is drawn.

    Raises:
        GraphError: The graph has not one input and one output.
        DataError: There are no tasks, two have one name, or one lacks test data or has other inputs than the graph.
        RunError: There is no such method or setting.
    """
    if method not in METHODS:
        raise RunError(f"there is no method {cut(method)!r}.{alternatives(method, METHODS)}")
    _check(graph, experiences)
    made, kind, preset = METHODS[method]
    wide, outputs = heads(graph, graph.outputs[0], [len(each.classes) for each in experiences])
    learner = made(wide, outputs, kind(**{**preset, **(settings or {})}), seed)
    accuracy = np.full((len(experiences), len(experiences)), np.nan)
    parameters: list[int] = []
    for t, experience in enumerate(experiences):
        learner.learn(t, experience)
        parameters.append(learner.parameters)
        for k, earlier in enumerate(experiences[: t + 1]):
            assert earlier.data.test is not None, "it was checked"
            accuracy[t, k] = accuracy_of(learner.network(k).to_torch(), earlier.data.test)
    networks = {each.name: learner.network(k) for k, each in enumerate(experiences)}
    if not isinstance(learner, Growing):
        return ContinualResult(networks, accuracy, parameters)
    selected = [each.selected for each in learner.learned]
    channels = [each.channels for each in learner.learned]
    return ContinualResult(networks, accuracy, parameters, learner.master, selected, channels)


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
