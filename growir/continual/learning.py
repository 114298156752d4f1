"""A sequence of tasks, learned one after the other; what each could do after each is measured on the test data.

What is kept after each task lies in a folder, if one is given, whole or not at all: a sequence that was stopped, in the
middle of a task or between two, goes on from there and ends with the same bits.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from growir.backends.torch_arrays import to_array
from growir.continual.baselines import Consolidated, EwcSettings, FineTuned, Joint, Separate
from growir.continual.checking import check_experiences
from growir.continual.columns import Columns
from growir.continual.compacting import Compacting, CpgSettings
from growir.continual.experiences import Experience
from growir.continual.firefly import Firefly, FireflySettings
from growir.continual.fitting import FitSettings, accuracy_of
from growir.continual.growing import Growing, Learns
from growir.continual.grown import Grown, GrownSettings
from growir.continual.heads import heads
from growir.continual.keeping import STATE, Kept, keep, kept, method_folder, row
from growir.continual.master import Master
from growir.continual.measures import Measures, measures
from growir.continual.scenarios import SCENARIOS, Scenario, Shifted, SideBySide, offsets
from growir.continual.targets import check_targets
from growir.data.nests import tensors_of
from growir.errors import RunError, cut
from growir.graph import Graph
from growir.growth.device import device_of
from growir.nearest import alternatives
from growir.network import Network
from growir.params import array_digest

DIGESTED = 64  # samples that tell a task from another


class Method(Protocol):
    """A way to learn one task after the other."""

    def learn(self, task: int, experience: Experience) -> None:
        """One task more, by its number."""
        ...

    def network(self, task: int) -> Network:
        """What there is for a task, learned or not."""
        ...

    @property
    def parameters(self) -> int:
        """How many numbers are kept for all that was learned."""
        ...

    @property
    def size(self) -> int:
        """How many bytes are kept for it, masks and whatever else protects it among them."""
        ...

    def save(self, folder: Path) -> None:
        """Keep what was learned, in an empty folder."""
        ...

    def load(self, folder: Path, learned: Sequence[Experience]) -> None:
        """Go on from there, when these tasks were learned."""
        ...


def _growing(made: Callable[..., Learns]) -> Callable[..., Method]:
    return functools.partial(Growing, made)


GROW_ONLY: Mapping[str, bool] = {"select": False, "retrain": False, "sparse": False}
METHODS: Mapping[str, tuple[Callable[..., Method], type[FitSettings], Mapping[str, Any]]] = {
    "grown": (_growing(Grown), GrownSettings, {}),
    "grow_only": (_growing(Grown), GrownSettings, GROW_ONLY),
    "firefly": (_growing(Firefly), FireflySettings, {}),
    "columns": (_growing(Columns), FitSettings, {}),
    "cpg": (_growing(Compacting), CpgSettings, {}),
    "separate": (Separate, FitSettings, {}),
    "fine_tuned": (FineTuned, FitSettings, {}),
    "ewc": (Consolidated, EwcSettings, {}),
    "joint": (Joint, FitSettings, {}),
}

ONE_HEAD = frozenset({"fine_tuned", "ewc", "joint"})  # methods whose tasks share all but their heads


@dataclass(frozen=True, slots=True, eq=False)
class ContinualResult:
    """What came of a sequence.

    Attributes:
        networks: For each task, by its name, what there is for it at the end.
        accuracy: (tasks, tasks), on the test data, of the column's task after the row's was learned. Of the tasks to
            come only the next is measured, with a head that is not trained; the others are NaN.
        untrained: (tasks,) what networks had before any training.
        parameters: How many numbers were kept after each task.
        sizes: How many bytes were kept after each.
        master: With all tasks, where the method has one.
        selected: Of each task that a master learned, its accuracy on the samples that select after each stage.
        channels: Of each such task, how many channels it added, by space.
    """

    networks: Mapping[str, Network]
    accuracy: NDArray[np.float64]
    untrained: NDArray[np.float64]
    parameters: Sequence[int]
    sizes: Sequence[int]
    master: Master | None = None
    selected: Sequence[Sequence[float]] = ()
    channels: Sequence[Mapping[str, int]] = ()

    @property
    def measures(self) -> Measures:
        """Accuracy at the end, forgetting, and transfer."""
        return measures(self.accuracy, self.untrained)


def learn(
    network: Graph | Network,
    experiences: Sequence[Experience],
    *,
    method: str = "grown",
    settings: Mapping[str, Any] | None = None,
    scenario: Scenario = "task",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    told: Callable[[Kept], None] | None = None,
) -> ContinualResult:
    """Learn one task after the other.

    Args:
        network: With one output, a small one where it is to grow; each task has a head of its own like its last layer,
            as wide as the task has classes. A Network's weights are what learning begins from, but for its head's.
        experiences: The tasks, in their order; each has test data.
        method: "grown"; "grow_only", GROWN without gates and without what no task uses; "firefly", which copies and
            changes old units or adds new ones; "columns", progressive networks; "cpg", which thins out what was
            learned; "separate", a network for each task; "fine_tuned", one that nothing protects; "ewc"; or "joint",
            all tasks so far at once.
        settings: Of the method: fields of GrownSettings, FireflySettings, CpgSettings, EwcSettings or FitSettings.
        scenario: "task" where a sample says which task it is of, "class" where it does not and is of one of all classes
            so far.
        seed: Of all that is drawn.
        out: A folder that keeps the state after each task; a new or empty one, unless `resume`.
        resume: Whether to go on in `out`, behind the last task that was finished there.
        told: Called after each task, and after those that were there already.

    Raises:
        GraphError: The graph has not one input and one output.
        DataError: There are no tasks, two have one name, or one has no test data, or samples that the network or its
            classes cannot take.
        RunError: There is no such method or setting, or `out` cannot be used.
        ExportError: The state could not be written; that of the task before is there.
    """
    if method not in METHODS:
        raise RunError(f"there is no method {cut(method)!r}.{alternatives(method, METHODS)}")
    if scenario not in SCENARIOS:
        raise RunError(f"there is no scenario {cut(scenario)!r}.{alternatives(scenario, SCENARIOS)}")
    if resume and out is None:
        raise RunError("a sequence is resumed in its folder; give it as out")
    graph = network.graph if isinstance(network, Network) else network
    check_experiences(graph, experiences, scenario)
    made, kind, preset = METHODS[method]
    given = kind(**{**preset, **(settings or {})})
    device_of(given.device)
    check_targets(getattr(given, "target", None), len(experiences))
    one_head = scenario == "class" and method in ONE_HEAD
    first, outputs = first_of(network, experiences, seed, one_head=one_head)
    learner = made(first, outputs, given, seed)
    place = None if out is None else Path(out)
    state = Kept(given=_digest(first, experiences, f"{method} {scenario}", given, seed))
    if place is not None:
        state = _begun(place, state, resume=resume)
    if state.names:
        assert place is not None, "it was there"
        learner.load(method_folder(place), experiences[: len(state.names)])
    else:
        untrained = [math.nan] * len(experiences)
        if scenario == "task":
            untrained = [_tested(learner.network(k), each, given.device) for k, each in enumerate(experiences)]
        state = state.model_copy(update={"untrained": row(untrained)})
    if told is not None and state.names:
        told(state)
    for t in range(len(state.names), len(experiences)):
        learner.learn(t, experiences[t])
        if scenario == "task":
            figures = [_tested(learner.network(k), each, given.device) for k, each in enumerate(experiences[: t + 2])]
        else:
            figures = _among_all(learner, experiences[: t + 1], given.device, one_head=one_head)
        figures += [math.nan] * (len(experiences) - len(figures))
        more = {
            "names": (*state.names, experiences[t].name),
            "accuracy": (*state.accuracy, row(figures)),
            "parameters": (*state.parameters, learner.parameters),
            "sizes": (*state.sizes, learner.size),
            "notes": (*state.notes, learner.note(t) if isinstance(learner, Growing) else ""),
        }
        state = state.model_copy(update=more)
        if place is not None:
            keep(place, state, learner.save)
        if told is not None:
            told(state)
    return _result(state, learner, experiences)


def first_of(
    network: Graph | Network, experiences: Sequence[Experience], seed: int, *, one_head: bool = False
) -> tuple[Network, list[str]]:
    """What learning begins from, and each task's head.

    Args:
        network: With one output.
        experiences: The tasks.
        seed: Of fresh weights.
        one_head: Whether there is one for all, as wide as the first task has classes.
    """
    graph = network.graph if isinstance(network, Network) else network
    counts = [len(each.classes) for each in experiences[: 1 if one_head else None]]
    wide, outputs = heads(graph, graph.outputs[0], counts)
    outputs = outputs * (len(experiences) if one_head else 1)
    first = Network.init(wide, seed)
    if isinstance(network, Network):
        first = first.with_arrays({key: array for key, array in network.arrays.items() if key in first.arrays})
    return first, outputs


def _begun(place: Path, state: Kept, *, resume: bool) -> Kept:
    """The state in a folder; the given one where there is none. Raises RunError."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not resume and any(each.name == STATE for each in place.iterdir()):
            raise RunError(f"{place}: there is a sequence in this folder; choose another one, or resume it")
    except OSError as error:
        raise RunError(f"{place}: cannot be used: {error.strerror or error}; give a folder") from None
    found = kept(place, state.given) if resume else None
    return found or state


def _tested(network: Network, experience: Experience, device: str | None) -> float:
    assert experience.data.test is not None, "it was checked"
    return accuracy_of(network.to_torch(), experience.data.test, device)


def _among_all(
    learner: Method, experiences: Sequence[Experience], device: str | None, *, one_head: bool
) -> list[float]:
    """The accuracy on each task where the answer is one of the classes of all."""
    last = len(experiences) - 1
    parts = [learner.network(k).to_torch() for k in ([last] if one_head else range(last + 1))]
    whole = SideBySide(parts)
    found: list[float] = []
    for each, offset in zip(experiences, offsets(experiences), strict=True):
        assert each.data.test is not None, "it was checked"
        found.append(accuracy_of(whole, Shifted(each.data.test, offset), device))
    return found


def _result(state: Kept, learner: Method, experiences: Sequence[Experience]) -> ContinualResult:
    networks = {each.name: learner.network(k) for k, each in enumerate(experiences)}
    accuracy = np.array([[math.nan if x is None else x for x in each] for each in state.accuracy])
    untrained = np.array(state.untrained, dtype=float)
    found = ContinualResult(networks, accuracy, untrained, state.parameters, state.sizes)
    if not isinstance(learner, Growing):
        return found
    selected = [each.selected for each in learner.learned]
    channels = [each.channels for each in learner.learned]
    return replace(found, master=learner.master, selected=selected, channels=channels)


def _digest(first: Network, experiences: Sequence[Experience], method: str, settings: FitSettings, seed: int) -> str:
    """What tells one sequence from another; of each task's samples the first count."""
    said = hashlib.sha256()
    weights = "".join(array_digest(array) for array in first.arrays.values())
    for text in (first.graph.hash, weights, method, settings.model_dump_json(), str(seed)):
        said.update(f"{text};".encode())
    for each in experiences:
        said.update(f"{each.name};{each.classes!r};".encode())
        for part in (each.data.train, each.data.select, each.data.test):
            if part is not None:
                batch = next(iter(part.batches(DIGESTED, None)))
                for tensor in (*tensors_of(batch.inputs), *tensors_of(batch.target)):
                    said.update(f"{len(part)};{array_digest(to_array(tensor))};".encode())
    return said.hexdigest()
