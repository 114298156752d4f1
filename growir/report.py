"""What grew, when, why, at what gain and cost: from a run's events, or from a graph's history.

A run that is under way, was killed or is damaged has a log too: what cannot be read is counted and left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from growir.document import step_data
from growir.errors import RunError, cut
from growir.graph import Graph
from growir.replay import MAX_CHECKED, replayable, rewrites
from growir.show import Grid, field_text, some

EVENTS = "events.jsonl"
HUGE = 1e300  # no measured number; an integer of a damaged file can be larger than any float
REASONS: Mapping[str, str] = {
    "parameters": "nothing more fits the budget",
    "steps": "the number of growths is reached",
    "seconds": "the time is over",
    "no gain": "no candidate lowers the loss of the selection part by more than chance would",
    "criterion": "the information criterion no longer falls",
}
# Of a growth event, what is no argument of the pass.
_MEASURED = frozenset(
    "event step pass version created values candidates improving predicted_gain measured_gain amplitude loss_before "
    "loss_after parameters macs hash seconds seed train_loss selection_loss seconds_training cost".split()
)

Event = dict[str, Any]


@dataclass(slots=True)
class RunLog:
    """The events of a run, as far as they can be read.

    Attributes:
        started: The first event; empty where it is missing.
        growths: Each growth event, with the losses after the training that followed.
        reason: Why growth ended, if it has.
        finished: The last event of a finished run; empty before.
        interrupted: Whether somebody stopped it.
        unreadable: The numbers of lines that hold no event.
    """

    started: Event = field(default_factory=dict[str, Any])
    growths: list[Event] = field(default_factory=list[Event])
    reason: str | None = None
    finished: Event = field(default_factory=dict[str, Any])
    interrupted: bool = False
    unreadable: list[int] = field(default_factory=list[int])

    @property
    def state(self) -> str:
        """finished, stopped, or not finished."""
        if self.finished:
            return "finished"
        return "stopped" if self.interrupted else "not finished"

    def to_json(self) -> Event:
        """The log as JSON values."""
        return {
            "state": self.state,
            "started": self.started,
            "growths": self.growths,
            "ended": self.reason,
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
    match event["event"]:
        case "started":
            log.started = event
        case "growth":
            log.growths.append(dict(event))
        case "trained":
            for growth in log.growths:
                if growth.get("step") == event.get("step"):
                    growth["train_loss"] = event.get("train_loss")
                    growth["selection_loss"] = event.get("selection_loss")
                    growth["seconds_training"] = event.get("seconds")
        case "ended":
            log.reason = str(event.get("reason"))
        case "finished":
            log.finished, log.interrupted = event, False
        case "interrupted":
            log.interrupted = True
        case _:  # of a later version
            pass


def describe_step(event: Mapping[str, Any]) -> str:
    """A recorded pass in a few words; it may be damaged, or from another package."""
    created = event.get("created")
    made = cut(cast("list[object]", created)[0]) if isinstance(created, list) and created else "?"
    source, target, node = (cut(event.get(key, "?")) for key in ("source", "target", "node"))
    match event.get("pass"):
        case "add_edge":
            return f"edge {source} -> {target}"
        case "add_node":
            return f"{cut(event.get('width', '?'))} neurons {source} -> {made} -> {target}"
        case "widen":
            return f"{node} wider by {cut(event.get('by', '?'))}"
        case "prune" | "split" as name:
            channels = event.get("channels")
            count = len(cast("list[object]", channels)) if isinstance(channels, list) else "?"
            return f"{node} narrower by {count}" if name == "prune" else f"{node}: {count} channels split"
        case "sequence":
            passes = event.get("passes")
            inner = cast("list[object]", passes) if isinstance(passes, list) else []
            return "; ".join(describe_step(cast("Event", part)) for part in inner if isinstance(part, dict))
        case name:
            fields = {k: v for k, v in event.items() if k not in _MEASURED and v not in ([], {}, None, False)}
            return " ".join(filter(None, (cut(name), field_text(fields))))


# -- as text ----------------------------------------------------------------------------------------------------------


def run_page(log: RunLog) -> Iterator[str | Grid]:
    """What `growir log` prints of a run."""
    start = log.started
    name = f"{cut(start.get('name', 'a run'))}, seed {cut(start.get('seed', '?'))}"
    begins = f", starting at {_count(start.get('parameters'))} parameters" if "parameters" in start else ""
    task = f": {cut(start['task'])}, {_count(start.get('samples'))} samples{begins}" if "task" in start else ""
    yield f"{name}{task}; {log.state}"
    if log.growths:
        yield _growth_grid(log)
    else:
        yield "no growths yet" if not log.reason else "no growths"
    if log.reason:
        yield f"growth ended: {REASONS.get(log.reason, cut(log.reason))}"
    if log.finished:
        yield _result(log.finished)
    if log.unreadable:
        which, one = some([str(number) for number in log.unreadable]), len(log.unreadable) == 1
        holds = "it holds" if one else "they hold"
        yield f"{'line' if one else 'lines'} {which} of {EVENTS} left out: {holds} no event"


_HEADERS = (
    "step",
    "growth",
    "best of",
    "predicted gain",
    "measured gain",
    "parameters",
    "added",
    "macs",
    "seconds",
    "train loss",
    "selection loss",
)


def _growth_grid(log: RunLog) -> Grid:
    rows: list[tuple[str, ...]] = []
    before = log.started.get("parameters")
    for growth in log.growths:
        after = growth.get("parameters")
        added = f"{after - before:+,}" if type(after) is int and type(before) is int else "-"
        before = after
        gains = [_decimal(growth.get(key), ".4f") for key in ("predicted_gain", "measured_gain")]
        losses = [_decimal(growth.get(key), ".4f") for key in ("train_loss", "selection_loss")]
        counts = [_count(after), added, _count(growth.get("macs")), _decimal(growth.get("seconds"), ".2f")]
        what = (_count(growth.get("step")), describe_step(growth), _count(growth.get("candidates")))
        rows.append((*what, *gains, *counts, *losses))
    return Grid(_HEADERS, tuple(rows), frozenset(_HEADERS) - {"growth"})


def _result(event: Event) -> str:
    scores: list[str] = []
    for key, when in (("test_before_fit", "before the final fit"), ("test_after_fit", "after it")):
        metrics: object = event.get(key)
        if isinstance(metrics, dict):
            found = cast("dict[str, object]", metrics)
            if "accuracy" in found:
                scores.append(f"{_decimal(found['accuracy'], '.2%')} correct {when}")
            else:
                scores.append(f"loss {_decimal(found.get('loss'), '.4g')} {when}")
    seconds, growing = (_decimal(event.get(key), ".1f") for key in ("seconds", "seconds_growing"))
    size = f"{_count(event.get('parameters'))} parameters, {_count(event.get('macs'))} macs"
    return "\n".join(
        filter(
            None,
            (f"test: {', '.join(scores)}" if scores else "", f"{size}, {seconds} seconds, {growing} of them growing"),
        )
    )


def _count(value: object) -> str:
    return f"{value:,}" if type(value) is int else "-"


def _decimal(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) and abs(value) < HUGE else "-"


# -- a history --------------------------------------------------------------------------------------------------------


def history_log(graph: Graph) -> list[Event]:
    """Each step of a graph's history, with the costs before and after where the history can be run again."""
    if graph.history is None:
        return []
    found: list[Event] = [{"step": k + 1, **step_data(step)} for k, step in enumerate(graph.history.steps)]
    costs = graph.history.base.costs()
    nodes = max(len(graph.nodes), len(graph.history.base.nodes))
    if len(found) * nodes > MAX_CHECKED or not all(map(replayable, graph.history.steps)):
        return found  # as loading has said, it cannot be run again
    for event, done in zip(found, rewrites(graph), strict=True):
        after = done.graph.costs()
        event["cost"] = {
            "parameters": [costs.parameters, after.parameters],
            "macs": [costs.macs, after.macs],
            "preserves": str(done.preserves),
        }
        costs = after
    return found


def history_page(graph: Graph) -> Iterator[str | Grid]:
    """What `growir log` prints of a document or network."""
    steps = history_log(graph)
    if not steps:
        yield f"{cut(graph.name)}: has not grown"
        return
    yield f"{cut(graph.name)}: {len(steps)} {'step' if len(steps) == 1 else 'steps'}"
    headers = ("step", "growth", "created", "preserves", "parameters", "added", "macs")
    rows: list[tuple[str, ...]] = []
    for event in steps:
        cost: Mapping[str, Any] = event.get("cost", {})
        numbers: Sequence[str] = ("-", "-", "-")
        if cost:
            before, after = cost["parameters"]
            numbers = (f"{after:,}", f"{after - before:+,}", f"{cost['macs'][1]:,}")
        created = some([str(name) for name in event["created"]], 3)
        rows.append((str(event["step"]), describe_step(event), created, str(cost.get("preserves", "-")), *numbers))
    yield Grid(headers, tuple(rows), frozenset({"step", "parameters", "added", "macs"}))
