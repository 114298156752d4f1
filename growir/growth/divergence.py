"""Training that diverges: what was found, and what whoever started the training has to say of it."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch

from growir.errors import RunError


class Diverged(RunError):
    """Outputs or a loss that are not finite.

    Attributes:
        found: Where, and what, in words.
    """

    def __init__(self, message: str, found: str) -> None:
        super().__init__(message)
        self.found = found


@contextmanager
def telling(what: str, advice: str) -> Generator[None]:
    """Have training that diverges say what it is of a run, and what would mend it there.

    Raises:
        RunError: It diverged.
    """
    try:
        yield
    except Diverged as error:
        raise RunError(f"{what} diverged: {error.found}; {advice}") from None


def refuse_divergence(losses: Iterable[float], weights: Iterable[torch.Tensor], what: str, rate: str) -> None:
    """Look at what a training ended with.

    Args:
        losses: Its.
        weights: All that learned.
        what: It is called, in words.
        rate: The setting that says how fast it learned.

    Raises:
        RunError: A loss or a weight is not finite.
    """
    if not all(map(math.isfinite, losses)) or not all(torch.isfinite(tensor).all() for tensor in weights):
        raise RunError(f"{what} diverged: loss or weights are NaN or infinite; {advice(rate)}")


def advice(rate: str) -> str:
    """What may mend training that diverges, as a user would write it."""
    return f"clip gradients ([train] clip = 1.0), or lower [train] {rate}"
