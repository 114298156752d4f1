"""The events of a run as they were recorded, and the values in them.

A run that is under way, was killed or is damaged has a log too: what cannot be read is counted and left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from growir.errors import RunError, cut

EVENTS = "events.jsonl"
HUGE = 1e300  # no measured number; an integer of a damaged file can be larger than any float

Event = dict[str, Any]


@dataclass(slots=True)
class RunLog:
    """The events of a run, as far as they can be read.

    Attributes:
        started: The first event; empty where it is missing.
        inputs: Which inputs were chosen, and among which; empty where nothing was to choose.
        starts: The same of the branches of a tournament that have their own.
        growths: Each growth event, with the losses after the training that followed, and why it was taken back if it
            was.
        reason: Why growth ended, if it has.
        ends: The same of each branch.
        fitted: What each branch came to.
        selected: Which branch was chosen; empty before, and where there are none.
        finished: The last event of a finished run; empty before.
        interrupted: Whether somebody stopped it.
        unreadable: The numbers of lines that hold no event.
    """

    started: Event = field(default_factory=dict[str, Any])
    inputs: Event = field(default_factory=dict[str, Any])
    starts: dict[str, Event] = field(default_factory=dict[str, Event])
    growths: list[Event] = field(default_factory=list[Event])
    reason: str | None = None
    ends: dict[str, str] = field(default_factory=dict[str, str])
    fitted: list[Event] = field(default_factory=list[Event])
    selected: Event = field(default_factory=dict[str, Any])
    finished: Event = field(default_factory=dict[str, Any])
    interrupted: bool = False
    unreadable: list[int] = field(default_factory=list[int])

    @property
    def state(self) -> str:
        """finished, stopped, or not finished."""
        if self.finished:
            return "finished"
        return "stopped" if self.interrupted else "not finished"

    @property
    def name(self) -> str:
        """The run's name and seed, as a page begins with them."""
        return f"{cut(self.started.get('name', 'a run'))}, seed {cut(self.started.get('seed', '?'))}"

    @property
    def branched(self) -> bool:
        """Whether it is a tournament."""
        return any(branch_of(growth) is not None for growth in self.growths)

    def to_json(self) -> Event:
        """The log as JSON values."""
        return {
            "state": self.state,
            "started": self.started,
            "inputs": self.inputs,
            "growths": self.growths,
            "ended": self.reason,
            "branches": {"started": self.starts, "ended": self.ends, "fitted": self.fitted, "selected": self.selected},
            "finished": self.finished,
            "unreadable_lines": self.unreadable,
        }


def read_run(folder: Path) -> RunLog:
    """The log of a run directory. Raises RunError if it has no events."""
    path = folder / EVENTS
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RunError(f"{path}: no events to read: {error.strerror or error}") from None
    log = RunLog()
    for number, line in enumerate(lines, 1):
        event = _event(line)
        if event is None:
            log.unreadable.append(number)
        else:
            _note(log, event)
    return log


def _event(line: bytes) -> Event | None:
    """The event of a line, or None: the last line of a run that was killed may be cut short."""
    try:
        found: object = json.loads(line)
        json.dumps(found, allow_nan=False)  # what is no JSON could not be printed as such
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    event = cast("Event", found)
    return event if isinstance(event.get("event"), str) else None


def _note(log: RunLog, event: Event) -> None:
    branch = branch_of(event)
    match event["event"]:
        case "started":
            if branch is not None:
                log.starts[branch] = event
            if branch is None or not log.started:
                log.started = event
        case "growth":
            log.growths.append({key: value for key, value in event.items() if key not in ("trained", "undone")})
        case "trained":
            metrics = {part: event[part] for part in ("train", "selection") if part in event}
            for growth in _meant(log, event):
                growth["train_loss"] = event.get("train_loss")
                growth["selection_loss"] = event.get("selection_loss")
                growth["seconds_training"] = event.get("seconds")
                if metrics:
                    growth["trained"] = metrics
        case "undone":
            for growth in _meant(log, event):
                growth["undone"] = str(event.get("reason"))
        case "ended":
            log.reason = str(event.get("reason"))
            if branch is not None:
                log.ends[branch] = log.reason
        case "inputs":
            log.inputs = event
        case "fitted":
            log.fitted.append(event)
        case "selected":
            log.selected = event
        case "finished":
            log.finished, log.interrupted = event, False
        case "interrupted":
            log.interrupted = True
        case _:  # of a later version
            pass


def _meant(log: RunLog, event: Event) -> Iterator[Event]:
    """The growths that a later event speaks of: those of its step and branch that stand."""
    # One that names no branch follows what it speaks of.
    branch = branch_of(event) if "branch" in event or not log.growths else branch_of(log.growths[-1])
    for growth in log.growths:
        if growth.get("step") == event.get("step") and branch_of(growth) == branch and "undone" not in growth:
            yield growth


# -- values of a damaged file -----------------------------------------------------------------------------------------


def branch_of(event: Mapping[str, Any]) -> str | None:
    """The branch of a tournament that an event belongs to."""
    branch: object = event.get("branch")
    return branch if isinstance(branch, str) else None


def number(value: object) -> float | None:
    """A measured number, or None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= HUGE:
        return None
    return float(value)


def mapping(value: object) -> Event:
    """A JSON object; empty for what is none."""
    return cast("Event", value) if isinstance(value, dict) else {}


def mappings(value: object) -> list[Event]:
    """The objects of a JSON list."""
    found = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Event", entry) for entry in found if isinstance(entry, dict)]
