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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from growir.channels import analyse
from growir.continual.experiences import Experience
from growir.continual.fitting import FitSettings, accuracy_of
from growir.continual.fitting import fit as trained
from growir.continual.learner import Learner
from growir.continual.masks import Mask
from growir.continual.master import Master
from growir.continual.offering import added, fresh_channels, fresh_weights, pruned, trunk, with_more
from growir.continual.targets import Target, told_target
from growir.data.parts import Data
from growir.graph import Graph
from growir.growth.measure.gates import OPEN, expected_open
from growir.growth.sections import Count, NonNegative, Positive

GATE_RATE = 1e-2  # of gates, at least


class GrownSettings(FitSettings):
    """How a task is learned; each stage has all the epochs.

    Attributes:
        gate_rate: Of kernels' gates, by Adam. By default as much as lets a gate go from open to closed once in a
            training, and .01 at least.
        channel_rate: Of channels' gates. By default four times as much as that of kernels': the penalty has to close
            what nothing needs.
        target: The accuracy on the samples that select from which on nothing grows; 1 lets every task grow. "scratch"
            is what a network of the task's own has, "fine_tuned" what one has that goes on from the task before, and
            "best" the better of the two. A list has one for each task.
        select: Whether the kernels of earlier tasks have gates; else a task uses all of them.
        retrain: Whether kernels that no task uses are trained; else a task leaves them out.
        sparse: Whether new kernels have gates of their own, beside those of their channels.
        offered: New channels that a growth offers, as a share of each width of the first network, at least one.
        penalty: On open gates of new channels, as a share of them.
        growths: Times that a task may grow: its budget is `growths` times what is offered. Of the network before and
            those after each growth the one stays that is best on the samples that select, of equals the smallest.
    """

    gate_rate: Positive | None = None
    channel_rate: Positive | None = None
    target: Target = 1.0
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
        target: What it was to reach on these samples; None where nothing was asked for.
        reached: What it has on them as it stays; by default the best of `selected`.
    """

    master: Master
    selected: Sequence[float]
    channels: Mapping[str, int]
    target: float | None = None
    reached: float | None = None

    @property
    def missed(self) -> str:
        """What to say where the target was not reached; empty where it was."""
        best = max(self.selected) if self.reached is None else self.reached
        if self.target is None or best >= self.target:
            return ""
        return f"below its target on the samples that select: {100 * best:.1f} of {100 * self.target:.1f} %"


@dataclass(frozen=True, slots=True, eq=False)
class Had:
    """What the growths of a task have come to so far: what they closed stays closed in those that follow.

    Attributes:
        open: Which of the weights that came it uses, by key.
        idle: Which of them it does not.
        closed: The channels that came and that nothing reads, by space.
    """

    open: dict[str, Mask] = field(default_factory=dict[str, Mask])
    idle: dict[str, Mask] = field(default_factory=dict[str, Mask])
    closed: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    def copied(self) -> Had:
        """The same, to be added to."""
        return Had(dict(self.open), dict(self.idle), {name: list(units) for name, units in self.closed.items()})

    def add(self, new: Mapping[str, Mask], fresh: Mapping[str, Sequence[int]], learner: Learner) -> None:
        """What came of a growth.

        Args:
            new: The weights that came.
            fresh: The channels that came, by space.
            learner: The task, trained.
        """
        masks = learner.result()["masks"]
        for key, mask in new.items():
            nothing = np.zeros(mask.shape, bool)
            self.open[key] = self.open.get(key, nothing) | (mask & masks[key])
            self.idle[key] = self.idle.get(key, nothing) | (mask & ~masks[key])
        for name, places in learner.shut().items():
            if places:
                self.closed.setdefault(name, []).extend(fresh[name][place] for place in places)


class Grown:
    """Learns one task after the other; see GrownSettings.

    Attributes:
        first: The network that learning began from: what a growth offers is a share of its widths.
    """

    def __init__(self, settings: GrownSettings | None = None, seed: int = 0, first: Graph | None = None) -> None:
        self.settings, self.seed, self.first = settings or GrownSettings(), seed, first

    def learn(self, master: Master, output: str, experience: Experience, target: float | None = None) -> Learned:
        """One task more.

        Args:
            master: What was learned before.
            output: The task's head, as wide as its classes.
            experience: The task.
            target: The accuracy from which on nothing grows; by default as the settings say it, where they do.
        """
        settings, task = self.settings, len(master.tasks)
        enough = told_target(settings.target, task) if target is None else target
        data = experience.data.cut(self.seed, settings.select_share)
        learner, had = self.learner(master, output, task, 0), Had()
        selected = [self.fit(learner, data, task, 0)]
        best = selected[0], master, learner, had
        before = {space.name: space.units for space in analyse(master.graph).spaces}
        for growth in range(1, settings.growths + 1):
            if selected[-1] >= enough:
                break
            master, had = going_on(master, learner), had.copied()
            master, fresh = self.offered(master, task, growth, had)
            if not fresh:
                break
            learner = self.learner(master, output, task, growth, fresh, had)
            selected.append(self.fit(learner, data, task, growth))
            had.add(self.weights(master.graph, trunk(master.graph, output), fresh), fresh, learner)
            if selected[-1] > best[0]:  # what is no better than less goes again
                best = selected[-1], master, learner, had
        reached, master, learner, had = best
        master, learner, more = self.compacted(master, learner, data, task, min(reached, enough), had)
        done = master.learned(experience.name, output, classes=experience.classes, **learner.result())
        done = pruned(done, before)
        return Learned(done, [*selected, *more], added(before, done), enough, more[-1] if more else reached)

    def weights(
        self, graph: Graph, shapes: Mapping[str, tuple[int, ...]], fresh: Mapping[str, Sequence[int]]
    ) -> dict[str, Mask]:
        """Which weights of fresh channels are trained."""
        return fresh_weights(graph, shapes, fresh)

    def offered(
        self, master: Master, task: int, growth: int, had: Had | None = None
    ) -> tuple[Master, dict[str, list[int]]]:
        """The master with what a growth offers, and which channels that is, by space."""
        masks = (had.open, had.idle) if had else ()
        return with_more(master, self.settings.offered, self.seed + 1000 * task + growth, self.first, masks)

    def compacted(
        self, master: Master, learner: Learner, data: Data, task: int, wanted: float, had: Had
    ) -> tuple[Master, Learner, Sequence[float]]:
        """What of a task stays, when it was learned; here all of it.

        Args:
            master: What was learned before.
            learner: The task.
            data: Its samples.
            task: Its number.
            wanted: The accuracy on the samples that select that it has to keep.
            had: What its growths have come to.
        """
        return master, learner, ()

    def learner(
        self,
        master: Master,
        output: str,
        task: int,
        growth: int,
        fresh: Mapping[str, Sequence[int]] | None = None,
        had: Had | None = None,
        *,
        gates: bool = True,
    ) -> Learner:
        """What is trained: gates in front of what is locked, and in front of what is new."""
        had = had or Had()
        shapes = trunk(master.graph, output)
        settings, new = self.settings, self.weights(master.graph, shapes, fresh or {})
        locked = {key: mask for key, mask in master.locked.items() if key in shapes}
        gated: dict[str, Mask] = {}
        used: dict[str, Mask] = {}
        for key, shape in shapes.items():
            held = locked.get(key, np.zeros(shape, bool))
            added = new.get(key, np.zeros(shape, bool))
            gated[key] = (held if settings.select else np.zeros(shape, bool)) | (added & settings.sparse)
            free = bool(settings.retrain or not task)
            nothing = np.zeros(shape, bool)
            mine = held | added | had.open.get(key, nothing) | (~nothing if free else nothing)
            used[key] = mine & ~had.idle.get(key, nothing)
        channels = list(fresh_channels(master.graph, fresh or {})) if gates else []
        closed, seed = list(fresh_channels(master.graph, had.closed)), self.key(task, growth)
        return Learner(master, output, gated=gated, used=used, channels=channels, closed=closed, seed=seed)

    def key(self, task: int, growth: int) -> int:
        return 1_000_000 * self.seed + 1000 * task + growth

    def fit(self, learner: Learner, data: Data, task: int, growth: int) -> float:
        """Train; returns the accuracy on the samples that select."""
        settings, channels = self.settings, list(learner.channels.parameters())
        groups: list[dict[str, object]] = [{"params": [*learner.free.parameters(), *learner.own.parameters()]}]
        steps = settings.epochs * math.ceil(len(data.train) / settings.batch_size)
        rate = settings.gate_rate or max(GATE_RATE, OPEN / steps)
        kernels = list(learner.gates.parameters())
        if kernels:
            groups.append({"params": kernels, "lr": rate})
        if channels:
            groups.append({"params": channels, "lr": settings.channel_rate or 4 * rate})

        def penalty() -> torch.Tensor:
            offered = torch.cat([gate.flatten() for gate in channels])
            return settings.penalty * expected_open(offered) / len(offered)

        key = (self.seed, 71, task, growth)
        trained(learner, groups, data.train, settings, key, penalty if channels else None)
        assert data.select is not None, "the data is cut"
        return accuracy_of(learner, data.select, settings.device)


def going_on(master: Master, learner: Learner) -> Master:
    """The master with what a task in training has come to.

    The task's own tensors lie in the place of shared ones, from where its next learner takes them up; what other tasks
    have of the same names is theirs.
    """
    told = learner.result()
    return Master(master.graph, {**master.arrays, **told["arrays"], **told["own"]}, [*master.tasks.values()])
