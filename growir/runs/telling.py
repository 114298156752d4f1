"""What a run says of itself while it grows: a line for each growth, and each word explained where it first stands."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from growir.columns import LINE, fold, wrapped
from growir.errors import cut
from growir.runs.reading import Event
from growir.runs.report import (
    GAIN,
    PROBATION,
    REASONS,
    SELECTION,
    UNDONE,
    describe_step,
    neurons,
    selection_text,
    short,
)

# A growth line has a step of 4 columns, what grew, both gains and the parameters: 80 together.
_WHAT = 42
_HEADER = f"step  {'growth':<{_WHAT - 4}}gain: predicted measured  parameters"
_INDENT = " " * 6  # under what grew

STRATEGIES: Mapping[str, str] = {
    "widen": "a hidden layer, which then only grows wider",
    "whole": "new edges, new layers and wider ones, whichever helps most",
    "restricted": "new edges, new layers and wider ones, only where the network lacks most",
    "bic": "new edges, new layers and wider ones, while an information criterion falls",
}
INPUTS: Mapping[str, str] = {
    "x": "the inputs",
    "varying": "the inputs that vary",
    "standard": "the inputs, standardised",
}


class Teller:
    """Turns the events of a run that started from nothing into lines of at most 80 columns.

    Args:
        strategies: Those of a tournament, in order; none where there is no tournament.
    """

    def __init__(self, strategies: Sequence[str] = ()) -> None:
        self._strategies = list(strategies)
        self._branch: object = ""  # whose header was told last; no branch is called so
        self._told: set[str] = set()

    def lines(self, event: Event) -> Iterator[str]:
        """The lines of an event that is worth some."""
        match event["event"]:
            case "inputs":
                tried = ", ".join(f"{each['loss']:.4f} with {each['inputs']}" for each in event["tried"])
                yield wrapped(f"reads {event['inputs']} inputs: loss on the selection part after a short fit {tried}")
                yield from self._once("selection", SELECTION)
            case "started":
                yield wrapped(
                    f"{cut(event['name'])}: {_data_text(event)}, starting at {event['parameters']} parameters"
                )
                yield from self._once("selection", SELECTION)
                if self._strategies:
                    names = " and ".join(self._strategies)
                    yield wrapped(f"The strategies {names} grow a network each; in the end one is chosen.")
            case "growth":
                yield from self._header(event, columns=True)
                yield from self._growth(event)
                yield from self._legends(event)
            case "ended":
                yield from self._header(event, columns=False)
                yield _under(f"growth ends: {REASONS[event['reason']]}")
            case "undone":
                yield _under(f"growth {event['step']} is taken back: {UNDONE[event['reason']]}")
            case "fitted":
                yield _under(f"a fit leaves a loss of {event['loss']:.4f} on the selection part")
            case "selected":
                yield f"\n{selection_text(event)}"
            case _:
                pass

    def _once(self, key: str, text: str) -> Iterator[str]:
        if key not in self._told:
            self._told.add(key)
            yield wrapped(text)

    def _header(self, event: Event, *, columns: bool) -> Iterator[str]:
        """What stands above the growths of a run, or of a branch of a tournament; no columns where there are none."""
        branch = event.get("branch")
        if branch == self._branch:
            return
        self._branch = branch
        if branch is None:
            yield ""
        else:
            yield f"\nstrategy {branch}: {STRATEGIES[branch]}"
        if columns:
            yield from self._once("gain", GAIN)
            yield _HEADER

    def _growth(self, event: Event) -> Iterator[str]:
        """The line of a growth, or two where it does not fit one."""
        of = f", best of {event['candidates']}" if event["candidates"] > 1 else ""
        gains = [f"{event[key]:.4f}" for key in ("predicted_gain", "measured_gain")]
        if event["probation"]:
            of, gains = ", on probation", ["-", "-"]
        first, *others = fold(f"{describe_step(event)}{of}", _WHAT)
        yield f"{event['step']:4}  {first:<{_WHAT}}  {gains[0]:>9} {gains[1]:>8}  {event['parameters']:>10,}"
        yield from (f"{_INDENT}{line}" for line in others)

    def _legends(self, event: Event) -> Iterator[str]:
        """What the words of a growth line mean, where they stand for the first time."""
        said = {"add_edge": _edge, "add_node": _node, "widen": _widened}.get(event["pass"])
        if said is not None:
            yield from self._explained(event["pass"], said(event))
        source = str(event.get("source"))
        if source in INPUTS:
            yield from self._explained(f"input {source}", f"{source} stands for {INPUTS[source]}")
        if event["probation"]:
            yield from self._explained("probation", PROBATION)
        elif event["candidates"] > 1:
            count = event["candidates"]
            yield from self._explained("best", f"of {count} candidates that were measured, this one did best")

    def _explained(self, key: str, text: str) -> Iterator[str]:
        if key not in self._told:
            self._told.add(key)
            yield _under(f"({text})")


def _data_text(event: Event) -> str:
    """What there is to learn: of events from before test parts could be missing, what they say."""
    beside = ""
    if "test_samples" in event:
        tested, how = event["test_samples"], "held out to test on" if event.get("held_out") else "to test on"
        beside = f" and {tested:,} {how}" if tested else " and none to test on"
    outputs = event.get("outputs")
    into = f" into {outputs} classes" if event["task"] == "classification" and outputs else ""
    return f"{event['task']}{into}, {event['samples']:,} samples{beside}"


def _under(text: str) -> str:
    """A paragraph under what grew."""
    return textwrap.fill(text, LINE, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False)


def _edge(event: Event) -> str:
    return f"an edge is weights without a hidden layer: what they make of {short(event['source'])} is {_added(event)}"


def _node(event: Event) -> str:
    return f"{short(event['created'][0])} is a new hidden layer: what it gives is weighted and {_added(event)}"


def _added(event: Event) -> str:
    """Where a growth is added, and the sum if it made one for that: what read the target reads the sum now."""
    made = event["created"][-1]
    return f"added to {short(event['target'])}" + (f"; {made} is the sum" if made.startswith("sum_") else "")


def _widened(event: Event) -> str:
    return f"the layer {short(event['node'])} has {neurons(event['by'])} more"
