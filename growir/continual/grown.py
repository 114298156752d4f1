"""GROWN: what was learned is picked from, what nobody uses is trained anew, and only then the network grows.

Each task goes through two stages (GROWN, "Continual learning based on learnable sparse growth"):

1. Pick and reuse. Gates in front of the kernels that earlier tasks use (equation 5) learn together with the kernels
   that none of them uses (equation 7).
2. Expand, where the accuracy on the samples that select is below the target: each width is offered more channels, each
   behind a gate, and their kernels behind gates of their own (equation 8). A penalty on open gates keeps growth small,
   and what stays closed is pruned again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growir.channels import ChannelSpace, analyse
from growir.continual.experiences import Experience
from growir.continual.fitting import FitSettings, accuracy_of, fit
from growir.continual.learner import Channels, Learner, head_of
from growir.continual.masks import Mask, mask_shapes
from growir.continual.master import Master
from growir.data.parts import Data
from growir.errors import PassRefused
from growir.graph import Graph, Node
from growir.growth.measure.gates import expected_open
from growir.growth.sections import Count, NonNegative, Positive, Share
from growir.passes import Prune, Widen
from growir.passes import Sequence as Passes


class GrownSettings(FitSettings):
    """How a task is learned; each stage has all the epochs.

    Attributes:
        gate_rate: Of gates, by Adam.
        target: The accuracy on the samples that select from which on nothing grows; 1 lets every task grow.
        select: Whether the kernels of earlier tasks have gates; else a task uses all of them.
        retrain: Whether kernels that no task uses are trained; else a task leaves them out.
        sparse: Whether new kernels have gates of their own, beside those of their channels.
        offered: New channels that are offered, as a share of each width, at least one.
        penalty: On open gates of new channels, as a share of them.
        growths: Times that a task may grow.
    """

    gate_rate: Positive = 1e-2
    target: Share = 1.0
    select: bool = True
    retrain: bool = True
    sparse: bool = True
    offered: Positive = 0.3
    penalty: NonNegative = 0.1
    growths: Count = 1


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What came of a task.

    Attributes:
        master: With the task.
        selected: The accuracy on the samples that select, after each stage.
        channels: How many channels it added, by space.
    """

    master: Master
    selected: Sequence[float]
    channels: Mapping[str, int]


class Grown:
    """Learns one task after the other; see GrownSettings."""

    def __init__(self, settings: GrownSettings | None = None, seed: int = 0) -> None:
        self.settings, self.seed = settings or GrownSettings(), seed

    def learn(self, master: Master, output: str, experience: Experience) -> Learned:
        """One task more.

        Args:
            master: What was learned before.
            output: The task's head, as wide as its classes.
            experience: The task.
        """
        settings, task = self.settings, len(master.tasks)
        data = experience.data.cut(self.seed, settings.select_share)
        shapes = _trunk(master.graph, output)
        learner = self._learner(master, output, shapes, task, 0)
        selected = [self._fit(learner, data, task, 0)]
        before = {space.name: space.units for space in analyse(master.graph).spaces}
        for growth in range(1, settings.growths + 1):
            if selected[-1] >= settings.target:
                break
            told = learner.result()
            # The task's own tensors go on from here; what others have of the same names is theirs.
            master = Master(master.graph, {**master.arrays, **told["arrays"], **told["own"]}, [*master.tasks.values()])
            master, fresh = _offered(master, settings.offered, self.seed + 1000 * task + growth)
            if not fresh:
                break
            learner = self._learner(master, output, _trunk(master.graph, output), task, growth, fresh)
            selected.append(self._fit(learner, data, task, growth))
        done = master.learned(experience.name, output, classes=experience.classes, **learner.result())
        done = _pruned(done, before)
        after = {space.name: space.units for space in analyse(done.graph).spaces}
        return Learned(done, selected, {name: after[name] - n for name, n in before.items() if after.get(name, n) > n})

    def _learner(
        self,
        master: Master,
        output: str,
        shapes: Mapping[str, tuple[int, ...]],
        task: int,
        growth: int,
        fresh: Mapping[str, Sequence[int]] | None = None,
    ) -> Learner:
        """What is trained: gates in front of what is locked, and in front of what is new."""
        settings, new = self.settings, _new(master.graph, shapes, fresh or {})
        locked = {key: mask for key, mask in master.locked.items() if key in shapes}
        gated: dict[str, Mask] = {}
        used: dict[str, Mask] = {}
        for key, shape in shapes.items():
            held = locked.get(key, np.zeros(shape, bool))
            added = new.get(key, np.zeros(shape, bool))
            gated[key] = (held if settings.select else np.zeros(shape, bool)) | (added & settings.sparse)
            free = bool(settings.retrain or not task)
            used[key] = held | added | (np.ones(shape, bool) if free else np.zeros(shape, bool))
        channels = list(_channels(master.graph, fresh or {}))
        return Learner(master, output, gated=gated, used=used, channels=channels, seed=self._key(task, growth))

    def _key(self, task: int, growth: int) -> int:
        return 1_000_000 * self.seed + 1000 * task + growth

    def _fit(self, learner: Learner, data: Data, task: int, growth: int) -> float:
        """Train; returns the accuracy on the samples that select."""
        settings, channels = self.settings, list(learner.channels.parameters())
        gates = [*learner.gates.parameters(), *channels]
        groups: list[dict[str, object]] = [{"params": [*learner.free.parameters(), *learner.own.parameters()]}]
        if gates:
            groups.append({"params": gates, "lr": settings.gate_rate})

        def penalty() -> torch.Tensor:
            offered = torch.cat([gate.flatten() for gate in channels])
            return settings.penalty * expected_open(offered) / len(offered)

        key = (self.seed, 71, task, growth)
        fit(learner, groups, data.train, settings, key, penalty if channels else None)
        assert data.select is not None, "the data is cut"
        return accuracy_of(learner, data.select)


def _trunk(graph: Graph, output: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the masks of all that tasks share and that this head reads."""
    heads = {name for out in graph.outputs for name in head_of(graph, out)}
    return {key: shape for key, shape in mask_shapes(graph).items() if key.rpartition(".")[0] not in heads}


def _free(graph: Graph) -> Iterator[ChannelSpace]:
    """The widths that can grow by themselves."""
    for space in analyse(graph).spaces:
        if not space.pins and space.consumers and not space.uniform:
            yield space


def _offered(master: Master, share: float, seed: int) -> tuple[Master, dict[str, list[int]]]:
    """The master with fresh channels at each width, and which they are. Widths at which a view would move stay."""
    fresh: dict[str, list[int]] = {}
    for name in [space.name for space in _free(master.graph)]:
        space = analyse(master.graph).find(name, master.graph)
        by = math.ceil(share * space.width / space.stride) * space.stride
        try:
            master = master.apply(Widen(node=name, by=by, seed=seed))
        except PassRefused:
            continue
        units = analyse(master.graph).find(name, master.graph).units
        fresh[name] = list(range(space.units, units))
    return master, fresh


def _new(graph: Graph, shapes: Mapping[str, tuple[int, ...]], fresh: Mapping[str, Sequence[int]]) -> dict[str, Mask]:
    """Which weights make or read fresh channels."""
    found: dict[str, Mask] = {}
    for space in analyse(graph).spaces:
        for slot in (*space.producers, *space.consumers) if space.name in fresh else ():
            if slot.parameter in shapes:
                mask = found.setdefault(slot.parameter, np.zeros(shapes[slot.parameter], bool))
                places = [at for unit in fresh[space.name] for at in slot.positions[unit]]
                mask[(slice(None),) * slot.axis + (places,)] = True
    return found


def _channels(graph: Graph, fresh: Mapping[str, Sequence[int]]) -> Iterator[Channels]:
    """A gate for each fresh channel, at all that reads it."""
    for space in analyse(graph).spaces:
        if space.name in fresh:
            readers = [
                (slot.parameter, slot.axis, [slot.positions[unit] for unit in fresh[space.name]])
                for slot in space.consumers
            ]
            yield Channels(space.name, readers)


def _pruned(master: Master, before: Mapping[str, int]) -> Master:
    """The master without those of the channels behind `before` that no view has."""
    steps: list[Prune] = []
    for space in analyse(master.graph).spaces:
        first = before.get(space.name, space.units)
        idle = [unit for unit in range(first, space.units) if not _in_use(master, space, unit)]
        if idle:
            steps.append(Prune(node=space.name, channels=tuple(idle)))
    if not steps:
        return master
    try:
        return master.apply(Passes(passes=tuple(steps)) if len(steps) > 1 else steps[0])
    except PassRefused:
        return master  # a channel goes only with others, which a task uses


def _in_use(master: Master, space: ChannelSpace, unit: int) -> bool:
    """Whether any task reads a channel."""
    for task in master.tasks.values():
        for slot in space.consumers:
            used: NDArray[Any] = task.masks.get(slot.parameter, task.own.get(slot.parameter, np.zeros(0)))
            if used.size and np.take(used, list(slot.positions[unit]), axis=slot.axis).any():
                return True
    return False


def heads(graph: Graph, output: str, classes: Sequence[int]) -> tuple[Graph, list[str]]:
    """A graph with one head for each task, each as the one that is there but for its width.

    Args:
        graph: With one output.
        output: Its head.
        classes: How many classes each task has.
    """
    mine = [node for node in graph.nodes if node.name in head_of(graph, output)]
    rest = [node for node in graph.nodes if node.name not in head_of(graph, output)]
    nodes: list[Node] = [*rest]
    outputs: list[str] = []
    for k, count in enumerate(classes):
        called = {node.name: f"task_{k}.{node.name}" for node in mine}
        for node in mine:
            wide = {"out_features": count} if node.name == mine[0].name else {}
            inputs = [called.get(name, name) for name in node.inputs]
            copy = node.with_op(**wide) if wide else node
            nodes.append(copy.model_copy(update={"name": called[node.name], "inputs": tuple(inputs)}))
        outputs.append(called[output])
    return graph.replace(nodes=tuple(nodes), outputs=tuple(outputs), history=None), outputs
