"""Which stage grows next, and which grow no more (Wen et al. 2020, algorithm 1): a pure function of the log.

Stages take turns. Before each growth it is asked whether the last one has brought anything; if not, the stage that grew
last grows no more, and its neighbour is next. Under stagnation from some moment on three stages end like this:

    grown       a b c a b | c a b        the bar is where nothing is gained any more
    closed                  b c a        each after one more growth of its neighbour

so that depths differ by at most one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from growir.growth.schedule import Entry, Log, Measure, stagnant

Stops = Callable[[Sequence[Entry]], bool]


@dataclass(frozen=True, slots=True)
class Circle:
    """The stages that still grow.

    Attributes:
        growing: Their names, in order.
        following: The one that is next; None where none is left.
        barren: The one that the last growth was of, where that has brought nothing.
    """

    growing: tuple[str, ...]
    following: str | None
    barren: str | None = None

    def turns(self) -> tuple[str, ...]:
        """All of them, the next one first."""
        if self.following is None:
            return ()
        at = self.growing.index(self.following)
        return self.growing[at:] + self.growing[:at]


def circle(log: Log, names: Sequence[str], stops: Stops) -> Circle:
    """What the log of a run leaves of a circle of stages.

    A growth that was taken back, or a block that went again, closes its stage too.

    Args:
        log: What happened so far; growths are of candidates called as their stages.
        names: The stages, in order.
        stops: Whether the entries so far say that the last growth has brought nothing.
    """
    growing, at = list(names), 0
    last: str | None = None

    def close(stopped: bool) -> bool:
        nonlocal at
        if not stopped or last not in growing:
            return False
        gone = growing.index(last)
        del growing[gone]
        at = at - 1 if gone < at else at
        return True

    for k, entry in enumerate(log.entries):
        if entry.what == "growth":
            close(stops(log.entries[:k]))
            last = entry.chosen[0] if entry.chosen else None
            if last in growing:
                at = growing.index(last) + 1
        elif entry.what == "undone" or (entry.what == "trimmed" and entry.chosen):
            close(stopped=True)
    barren = last if close(stops(log.entries)) else None
    return Circle(tuple(growing), growing[at % len(growing)] if growing else None, barren)


def unrewarded(entries: Sequence[Entry], measure: Measure, window: int, by: float) -> bool:
    """Whether growth has brought nothing: no more than `by`, of the accuracy or of the loss.

    Args:
        entries: Of a log.
        measure: What is looked at on the data that selects.
        window: Over so many epochs up to now; 0 for all since the last growth.
        by: What would be something.
    """
    if window:
        return stagnant(entries, measure, window, by)
    grown = max((k for k, entry in enumerate(entries) if entry.what == "growth"), default=0)
    sign = -1.0 if measure == "loss" else 1.0

    def best(part: Sequence[Entry]) -> float:
        values = (entry.metrics.get(measure) for entry in part if entry.what == "trained")
        return max((sign * value for value in values if value is not None), default=-math.inf)

    before, after = best(entries[:grown]), best(entries[grown:])
    return math.isfinite(before) and math.isfinite(after) and not after - before > by
