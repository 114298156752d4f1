"""Channels that a master is offered for a task: at which widths, which weights are theirs, and which of them stay.

master, fresh = with_more(master, 0.3, seed=0)    # {"fc1": [8, 9, 10]}
masks = fresh_weights(master.graph, trunk(master.graph, output), fresh)
master = pruned(master, before)                   # of what came, what a task has come to use
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from growir.channels import ChannelSpace, analyse
from growir.continual.learner import Channels, head_of
from growir.continual.masks import Mask, carried, mask_shapes
from growir.continual.master import Master
from growir.errors import PassRefused
from growir.graph import Graph
from growir.passes import Prune, Widen
from growir.passes import Sequence as Passes


def added(before: Mapping[str, int], done: Master) -> dict[str, int]:
    """How many channels have come, by space."""
    after = {space.name: space.units for space in analyse(done.graph).spaces}
    return {name: after[name] - n for name, n in before.items() if after.get(name, n) > n}


def trunk(graph: Graph, output: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the masks of all that tasks share and that this head reads."""
    heads = {name for out in graph.outputs for name in head_of(graph, out)}
    return {key: shape for key, shape in mask_shapes(graph).items() if key.rpartition(".")[0] not in heads}


def _free(graph: Graph) -> Iterator[ChannelSpace]:
    """The widths that can grow by themselves."""
    for space in analyse(graph).spaces:
        if not space.pins and space.consumers and not space.uniform:
            yield space


def with_more(
    master: Master, share: float, seed: int, first: Graph | None = None, masks: Sequence[dict[str, Mask]] = ()
) -> tuple[Master, dict[str, list[int]]]:
    """The master with fresh channels at each width, and which they are. Widths at which a view would move stay.

    Args:
        master: What was learned before.
        share: Of each width, at least one channel.
        seed: Of their weights.
        first: The network whose widths are meant; by default the master's own.
        masks: Some by key, which are brought along in place: what is new is in none.
    """
    fresh: dict[str, list[int]] = {}
    widths = {space.name: space.width for space in analyse(first or master.graph).spaces}
    for name in [space.name for space in _free(master.graph)]:
        space = analyse(master.graph).find(name, master.graph)
        by = math.ceil(share * widths.get(name, space.width) / space.stride) * space.stride
        step = Widen(node=name, by=by, seed=seed)
        try:
            wider = master.apply(step)
        except PassRefused:
            continue
        for some in masks:
            some.update(carried(step.rewrite(master.graph).edits, master.graph, wider.graph, some))
        master = wider
        units = analyse(master.graph).find(name, master.graph).units
        fresh[name] = list(range(space.units, units))
    return master, fresh


def fresh_weights(
    graph: Graph, shapes: Mapping[str, tuple[int, ...]], fresh: Mapping[str, Sequence[int]], *, read: bool = True
) -> dict[str, Mask]:
    """Which weights make fresh channels, or read them.

    Args:
        graph: With them.
        shapes: Of the masks.
        fresh: The channels, by space.
        read: Whether those of channels that were there may read fresh ones.
    """
    found: dict[str, Mask] = {}
    for space in analyse(graph).spaces:
        for slot in (*space.producers, *(space.consumers if read else ())) if space.name in fresh else ():
            if slot.parameter in shapes:
                mask = found.setdefault(slot.parameter, np.zeros(shapes[slot.parameter], bool))
                places = [at for unit in fresh[space.name] for at in slot.positions[unit]]
                mask[(slice(None),) * slot.axis + (places,)] = True
    return found


def fresh_channels(graph: Graph, fresh: Mapping[str, Sequence[int]]) -> Iterator[Channels]:
    """A gate for each fresh channel, at all that reads it."""
    for space in analyse(graph).spaces:
        if space.name in fresh:
            readers = [
                (slot.parameter, slot.axis, [slot.positions[unit] for unit in fresh[space.name]])
                for slot in space.consumers
            ]
            yield Channels(space.name, readers)


def pruned(master: Master, before: Mapping[str, int]) -> Master:
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
