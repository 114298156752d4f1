"""Who is told what happens during a run of growth, and what comes of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from growir.graph import Graph
from growir.growth.progress import Progress
from growir.growth.session import Session
from growir.network import Network
from growir.replay import replayable, rewrites
from growir.runs import records

Event = records.Event


@dataclass(frozen=True, slots=True)
class Observer:
    """Who is told what happens during a run.

    Attributes:
        event: Gets the record of each event.
        accepted: Gets the graph after each accepted growth, step 0 being the start. It starts over at 0 with each
            branch of a contest, and at last where another network goes on than the last that grew.
        tried: Gets the session of each network that was fitted to be compared, which is a fork where growth goes on,
            and the record of the fit.
        checkpoint: Gets session and progress after each completed growth.
        tick: Gets phase, work done and work in all; it may raise to stop the run.
        epoch: Gets phase, epochs done, epochs in all and the mean training loss of the last, after each.
    """

    event: Callable[[Event], None] = lambda event: None
    accepted: Callable[[int, Graph], None] = lambda step, graph: None
    tried: Callable[[Session, records.Fitted], None] = lambda session, record: None
    checkpoint: Callable[[Session, Progress], None] = lambda session, progress: None
    tick: Callable[[str, int, int], None] = lambda phase, done, total: None
    epoch: Callable[[str, int, int, float], None] = lambda phase, done, total, loss: None


@dataclass(frozen=True, slots=True, eq=False)
class GrowthResult:
    """What a growth run found.

    Attributes:
        network: The found network after the final fit on all training data.
        grown: The same architecture before the final fit.
        finished: What came of the run, the last of its events.
        events: Every event, in order: records of `growir.runs.records`.
    """

    network: Network
    grown: Network
    finished: records.Finished
    events: list[Event] = field(repr=False)

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json of a run directory holds."""
        return self.finished.summary


def show_again(observer: Observer, start: Network, chosen: Network, step: int) -> None:
    """Show the growths of the network that goes on, for those who were shown another one's since.

    Args:
        observer: Who is shown them.
        start: What growth started from.
        chosen: The network that goes on.
        step: Its growths.
    """
    observer.accepted(0, start.graph)
    known = len(start.graph.history.steps) if start.graph.history else 0
    history = chosen.graph.history
    if history is None or not all(map(replayable, history.steps)):
        # The network it started from has passes that are unknown here: what lies between cannot be shown again.
        observer.accepted(step, chosen.graph)
        return
    for each, done in enumerate(rewrites(chosen.graph), 1 - known):
        if each > 0:
            observer.accepted(each, done.graph)
