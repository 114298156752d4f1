"""How far a run of growth has come: all that resuming needs besides the network and the optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from growir.growth.contest import Trial
from growir.growth.phase import Position
from growir.growth.schedule import Entry, Log
from growir.network import Network


@dataclass(slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: Growths done, in this branch.
        seconds: Wall-clock time of all completed growths.
        growing: Of that, time spent on proposing, scoring and rewriting.
        ended: Why growth ended, once it has.
        branch: Which branch of a contest is growing.
        trials: What was fitted to be compared: the branches before it, or networks of several sizes.
        metrics: By part, as after the last training.
        log: What the schedule of this branch has seen.
        steps: Steps of the optimizer between growths.
        grown: Of these, how many were done at the last growth; None before the first.
        position: Where a phase of training stands that is not over; None between two.
        found: The network that growth came to, while the final fit is under way.
        policy: What a policy that remembers has to be given back.
    """

    step: int = 0
    seconds: float = 0.0
    growing: float = 0.0
    ended: str | None = None
    branch: int = 0
    trials: tuple[Trial, ...] = ()
    metrics: Mapping[str, Mapping[str, float]] | None = None
    log: Log = field(default_factory=lambda: Log((Entry("started"),)))
    steps: int = 0
    grown: int | None = None
    position: Position | None = None
    found: Network | None = None
    policy: Mapping[str, Any] | None = None

    def noting(self, *entries: Entry) -> Log:
        """The log with something more in it."""
        return Log((*self.log.entries, *entries))
