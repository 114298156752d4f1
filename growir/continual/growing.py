"""A master that learns one task after the other, by a method that grows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from growir.continual.experiences import Experience
from growir.continual.grown import Learned
from growir.continual.masks import packed
from growir.continual.master import Master
from growir.continual.targets import Targets
from growir.continual.views import up_to
from growir.errors import RunError, cut
from growir.network import Network
from growir.params import param_table


class Learns(Protocol):
    """What a master learns by: GROWN, Firefly, columns, CPG."""

    def learn(self, master: Master, output: str, experience: Experience, target: float | None = None) -> Learned:
        """The master with one task more; nothing grows from the accuracy `target` on, where one is given."""
        ...


class Growing:
    """A master that learns, by GROWN or what else has its call."""

    def __init__(
        self, made: Callable[..., Learns], first: Network, outputs: Sequence[str], settings: Any, seed: int
    ) -> None:
        self.master, self.outputs = Master(first.graph, first.arrays), outputs
        self.names: list[str] = []
        self.method, self.learned = made(settings, seed, first.graph), list[Learned]()
        kind = getattr(settings, "target", None)
        self.targets = Targets(kind, first, outputs, settings, seed) if isinstance(kind, str) else None

    def learn(self, task: int, experience: Experience) -> None:
        """One task more."""
        target = None if self.targets is None else self.targets.of(task, experience)
        self.learned.append(self.method.learn(self.master, self.outputs[task], experience, target))
        self.master = self.learned[-1].master
        self.names.append(experience.name)

    def network(self, task: int) -> Network:
        """The master's view, or what a task would start from."""
        if task < len(self.names):
            return self.master.task(self.names[task])
        return up_to(Network(self.master.graph, self.master.arrays), self.outputs[task])

    def note(self, task: int) -> str:
        """What is to be said of a task."""
        return self.learned[task].missed

    @property
    def parameters(self) -> int:
        """Shared weights that any task uses, once, and each task's own tensors."""
        return size_of(self.master)

    @property
    def size(self) -> int:
        """Of the shared tensors that any task reads, whole, of each task's own, and of its masks as bits."""
        master = self.master
        tasks = master.tasks.values()
        own = sum(array.nbytes for task in tasks for array in task.own.values())
        masks = sum(packed(mask).nbytes for task in tasks for mask in task.masks.values())
        return own + masks + sum(master.arrays[key].nbytes for key in master.locked)

    def save(self, folder: Path) -> None:
        """Keep the master, and what is told of the tasks."""
        self.master.save(folder / "master")
        told = [
            {"selected": list(each.selected), "channels": dict(each.channels), "target": each.target}
            for each in self.learned
        ]
        (folder / "tasks.json").write_text(json.dumps(told), encoding="utf-8")
        if self.targets is not None:
            (folder / "targets").mkdir()
            self.targets.save(folder / "targets")

    def load(self, folder: Path, learned: Sequence[Experience]) -> None:
        """Go on from there."""
        self.master = Master.load(folder / "master")
        place = folder / "tasks.json"
        try:
            told: list[Any] = json.loads(place.read_text(encoding="utf-8"))
            self.learned = [Learned(self.master, each["selected"], each["channels"], each["target"]) for each in told]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{place}: is damaged; give another folder: {cut(error)}") from None
        names = [each.name for each in learned]
        if len(self.learned) != len(names) or list(self.master.tasks) != names:
            raise RunError(f"{place}: is of other tasks than the state beside it; give another folder")
        self.names = [each.name for each in learned]
        if self.targets is not None:
            self.targets.load(folder / "targets", learned)


def size_of(master: Master) -> int:
    """How many numbers are kept: shared weights that any task uses, once, and each task's own."""
    table = param_table(master.graph)
    shared = sum(int(np.broadcast_to(mask, table[key].shape).sum()) for key, mask in master.locked.items())
    return shared + sum(array.size for task in master.tasks.values() for array in task.own.values())
