"""The events of a run as they were recorded: one reader for command line, report and plots.

A run that is under way, was killed or is damaged has a log too: what cannot be read is counted and left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from growir.errors import RunError, cut
from growir.runs.earlier import of_today
from growir.runs.records import (
    KINDS,
    Ended,
    Event,
    Finished,
    Fitted,
    Growth,
    InputsChosen,
    Interrupted,
    Other,
    Selected,
    Sized,
    Skipped,
    Started,
    Timed,
    Trained,
    Undone,
)

EVENTS = "events.jsonl"


@dataclass(slots=True)
class Grown:
    """A growth, and what followed it.

    Attributes:
        growth: The growth.
        trained: The training that followed, of which several growths of one number may share one.
        undone: That it was taken back, if it was.
    """

    growth: Growth
    trained: Trained | None = None
    undone: Undone | None = None

    @property
    def taken_back(self) -> str | None:
        """Why it was taken back, as a line shows it; None where it stands."""
        return None if self.undone is None else cut(self.undone.reason)

    def to_json(self) -> dict[str, Any]:
        """The growth as JSON values, with the losses after the training, and why it was taken back if it was."""
        found = self.growth.to_json()
        if self.trained is not None:
            after = self.trained
            found |= {"train_loss": after.train_loss, "selection_loss": after.selection_loss}
            found["seconds_training"] = after.seconds
            scores = {"train": after.train, "selection": after.selection}
            known = {part: dict(score) for part, score in scores.items() if score is not None}
            found |= {"trained": known} if known else {}
        return found | ({} if self.undone is None else {"undone": self.undone.reason})


@dataclass(slots=True)
class RunLog:
    """The events of a run, as far as they can be read.

    Attributes:
        started: The first event; None where it is missing.
        inputs: Which inputs were chosen, and among which; None where nothing was to choose.
        starts: How the branches of a contest started that have said so.
        growths: Each growth, and what followed it.
        skipped: Where policies find nothing to choose.
        reason: Why growth ended, if it has.
        why: More of that, where more is known.
        ends: The ends of the branches.
        fitted: What each branch came to, or networks of several sizes.
        sized: Which size was chosen; None where none was tried, and before.
        timed: Which length of the final fit was chosen; None where only one was tried, and before.
        selected: Which branch was chosen; None before, and where there are none.
        finished: The last event of a finished run; None before.
        interrupted: Whether somebody stopped it.
        unreadable: The numbers of lines that hold no event.
    """

    started: Started | None = None
    inputs: InputsChosen | None = None
    starts: dict[str, Started] = field(default_factory=dict[str, Started])
    growths: list[Grown] = field(default_factory=list[Grown])
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    reason: str | None = None
    why: str | None = None
    ends: dict[str, Ended] = field(default_factory=dict[str, Ended])
    fitted: list[Fitted] = field(default_factory=list[Fitted])
    sized: Sized | None = None
    timed: Timed | None = None
    selected: Selected | None = None
    finished: Finished | None = None
    interrupted: bool = False
    unreadable: list[int] = field(default_factory=list[int])

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """The log of some events, in order."""
        log = cls()
        for event in events:
            _note(log, event)
        return log

    @property
    def state(self) -> str:
        """finished, stopped, or not finished."""
        if self.finished is not None:
            return "finished"
        return "stopped" if self.interrupted else "not finished"

    @property
    def name(self) -> str:
        """The run's name and seed, as a page begins with them."""
        name, seed = (self.started.name, self.started.seed) if self.started is not None else (None, None)
        return f"{cut('a run' if name is None else name)}, seed {'?' if seed is None else cut(seed)}"

    @property
    def branched(self) -> bool:
        """Whether several branches grew."""
        return any(grown.growth.branch is not None for grown in self.growths)

    def to_json(self) -> dict[str, Any]:
        """The log as JSON values."""
        return {
            "state": self.state,
            "started": _json(self.started),
            "inputs": _json(self.inputs),
            "growths": [grown.to_json() for grown in self.growths],
            "skipped": [event.to_json() for event in self.skipped],
            "ended": self.reason,
            "ended_why": self.why,
            "branches": {
                "started": {branch: start.to_json() for branch, start in self.starts.items()},
                "ended": {branch: end.reason or "?" for branch, end in self.ends.items()},
                "fitted": [fitted.to_json() for fitted in self.fitted],
                "selected": _json(self.selected),
            },
            "sized": _json(self.sized),
            "timed": _json(self.timed),
            "finished": _json(self.finished),
            "unreadable_lines": self.unreadable,
        }


def _json(event: Event | None) -> dict[str, Any]:
    return {} if event is None else event.to_json()


def read_event(found: object) -> Event | None:
    """The event that JSON values hold, of whichever version of growir; None if they hold none."""
    if not isinstance(found, dict):
        return None
    values = cast("Mapping[str, Any]", found)
    name = values.get("event")
    if not isinstance(name, str):
        return None
    kind = KINDS.get(name)
    return Other(found=values) if kind is None else kind.from_json(of_today(values))


def read_run(folder: Path) -> RunLog:
    """The log of a run directory. Raises RunError if it has no events."""
    path = folder / EVENTS
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RunError(f"{path}: no events to read: {error.strerror or error}") from None
    events = [_read_line(line) for line in lines]
    log = RunLog.of(event for event in events if event is not None)
    log.unreadable = [number for number, event in enumerate(events, 1) if event is None]
    return log


def _read_line(line: bytes) -> Event | None:
    """The event of a line, or None: the last line of a run that was killed may be cut short."""
    try:
        found: object = json.loads(line)
        json.dumps(found, allow_nan=False)  # what is no JSON could not be printed as such
    except (ValueError, RecursionError):
        return None
    return read_event(found)


def _note(log: RunLog, event: Event) -> None:
    match event:
        case Started():
            if event.branch is not None:
                log.starts[event.branch] = event
            if event.branch is None or log.started is None:
                log.started = event
        case Growth():
            log.growths.append(Grown(event))
        case Trained():
            for grown in _meant(log, event.step, event.branch):
                grown.trained = event
        case Undone():
            for grown in _meant(log, event.step, event.branch):
                grown.undone = event
        case Ended():
            log.reason, log.why = event.reason or "?", event.why
            if event.branch is not None:
                log.ends[event.branch] = event
        case Skipped():
            log.skipped.append(event)
        case InputsChosen():
            log.inputs = event
        case Fitted():
            log.fitted.append(event)
        case Sized():
            log.sized = event
            for grown in log.growths:
                growth = grown.growth
                after = growth.step is not None and event.step is not None and growth.step > event.step
                if after and growth.branch == event.branch and grown.undone is None:
                    grown.undone = Undone(branch=event.branch, step=growth.step, reason="size")
        case Timed():
            log.timed = event
        case Selected():
            log.selected = event
        case Finished():
            log.finished, log.interrupted = event, False
        case Interrupted():
            log.interrupted = True
        case _:
            pass  # of a later version


def _meant(log: RunLog, step: int | None, branch: str | None) -> Iterator[Grown]:
    """The growths that a later event speaks of: those of its step and branch that stand."""
    # One that names no branch follows what it speaks of.
    if branch is None and log.growths:
        branch = log.growths[-1].growth.branch
    for grown in log.growths:
        if (grown.growth.step, grown.growth.branch, grown.undone) == (step, branch, None):
            yield grown
