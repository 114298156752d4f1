"""Rules that say from a run's loss when a growth is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from growir.errors import ModelError


def check_share(what: str, name: str, value: object, *, zero: bool = False) -> None:
    """Raise ModelError unless a value is a part of the budget; zero is none unless it is allowed."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    if not number or not (value or zero):
        raise ModelError(f"{what}: {name}={value!r} is no part of the budget, from 0 to 1")


@dataclass(frozen=True, slots=True)
class Progress:
    """What a rule decides by.

    Attributes:
        share: The part of the budget that is spent.
        since: The part that was spent when the network last grew; 0 if it never did.
        losses: Since then, the mean loss of each two-thousandth of the budget, (share, loss), the latest last.
    """

    share: float
    since: float
    losses: Sequence[tuple[float, float]]

    def last(self, window: float) -> Sequence[tuple[float, float]] | None:
        """The losses of the last part of the budget; None if there are not yet as many."""
        if self.share - self.since < window:
            return None
        return [each for each in self.losses if each[0] > self.share - window]


class Rule(Protocol):
    """Says that a growth is due."""

    def __call__(self, progress: Progress, /) -> bool:
        """Whether it is."""
        ...


@dataclass(frozen=True, slots=True)
class Plateau:
    """Growth is due where the loss has hardly fallen over a window.

    Attributes:
        window: A part of the budget; its two halves are compared.
        least: By which part of itself the mean loss of the second half is below that of the first, if it still falls.
    """

    window: float = 0.1
    least: float = 0.01

    def __post_init__(self) -> None:
        check_share("Plateau", "window", self.window)

    def __call__(self, progress: Progress, /) -> bool:
        losses = progress.last(self.window)
        if losses is None:
            return False
        middle = progress.share - self.window / 2
        halves = [[loss for at, loss in losses if (at > middle) == late] for late in (False, True)]
        if not all(halves):
            return False
        first, second = (float(np.mean(half)) for half in halves)
        return second > first - self.least * abs(first)


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth is due where the loss falls by less than so much for each share of the budget.

    Attributes:
        below: By how much the loss would have to fall if all of the budget were spent at this rate.
        window: The part of the budget over which a line is fitted to the losses.
    """

    below: float
    window: float = 0.1

    def __post_init__(self) -> None:
        check_share("Slope", "window", self.window)

    def __call__(self, progress: Progress, /) -> bool:
        losses = progress.last(self.window)
        if losses is None or len(losses) < 3:
            return False
        at, loss = np.array(losses).T
        at = at - at.mean()
        return bool((at * loss).sum() / (at * at).sum() > -self.below)
