"""The errors growir raises on purpose; any other exception is a bug in growir."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_PROBLEMS = 20
MAX_NAME = 60


def cut(name: object, most: int = MAX_NAME) -> str:
    """Return a name as a message shows it: one line, at most 60 characters, unprintables escaped."""
    text = str(name)
    if len(text) > most:
        text = text[: most - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def counted(count: int, noun: str) -> str:
    """How many of something there are, in words: "1 step", "1,200 steps"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class GrowirError(Exception):
    """Base of every error a user can cause."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document: where it is, and what would be right."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


def listed(problems: Sequence[Problem], source: str = "", what: str = "problems") -> str:
    """The text of an error: its one problem, or how many there are and the first twenty of them."""
    head = f"{source}: " if source else ""
    if len(problems) == 1:
        return f"{head}{problems[0]}"
    lines = [f"  {problem}" for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"  ... and {len(problems) - MAX_PROBLEMS} more {what}")
    return "\n".join([f"{head}{len(problems)} {what}", *lines])


class GraphError(GrowirError):
    """A graph document or network is wrong; `problems` holds everything found."""

    def __init__(self, problems: Iterable[Problem] | str, source: str = "") -> None:
        found = [Problem("", problems)] if isinstance(problems, str) else list(problems)
        self.problems: tuple[Problem, ...] = tuple(found)
        self.source = source
        super().__init__(listed(self.problems, source))

    def at(self, source: str) -> GraphError:
        """Return the same error, naming the file it came from."""
        return self if self.source else type(self)(self.problems, source)

    def __reduce__(self) -> tuple[type[GraphError], tuple[tuple[Problem, ...], str]]:
        return (type(self), (self.problems, self.source))


class PassRefused(GrowirError):
    """A rewrite cannot be applied to this (valid) graph: the reason, and what would work."""


class ModelError(GrowirError):
    """A torch model cannot be imported, or a module does not belong to the network."""


class ExportError(GrowirError):
    """A network cannot be exported as asked."""


class DataError(GrowirError):
    """The data given to a run is unusable."""


class RunError(GrowirError):
    """A growth run cannot start, go on or be resumed."""
