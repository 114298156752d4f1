"""Training that diverges: what was found, and what whoever started the training has to say of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

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
