"""What a run says of itself while it grows: a line for each growth, and each word explained where it first stands."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from growir.columns import LINE, fold, wrapped
from growir.errors import cut
from growir.runs.records import (
    Ended,
    Event,
    Fitted,
    Growth,
    InputsChosen,
    Selected,
    Sized,
    Skipped,
    Started,
    Timed,
    Undone,
)
from growir.runs.report import selection_text, sized_text, timed_text
from growir.runs.values import Json
from growir.runs.words import (
    GAIN,
    PROBATION,
    TRIAL,
    TRIMMED,
    UNDONE,
    amount,
    decimal,
    end_text,
    moves,
    neurons,
    selection_part,
    short,
    skipped_text,
    what_grew,
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
        self._columns: object = ""  # the same of the line above the columns
        self._told: set[str] = set()

    def lines(self, event: Event) -> Iterator[str]:
        """The lines of an event that is worth some."""
        match event:
            case InputsChosen():
                tried = ", ".join(f"{decimal(each.loss, '.4f')} with {amount(each.inputs)}" for each in event.tried)
                count = amount(event.inputs)
                yield wrapped(f"reads {count} inputs: loss on the selection part after a short fit {tried}")
                yield from self._once("selection", selection_part(None))
            case Started():
                size = amount(event.parameters)
                yield wrapped(f"{cut(event.name)}: {_data_text(event)}, starting at {size} parameters")
                yield from self._once("selection", selection_part(event))
                if self._strategies:
                    names = " and ".join(self._strategies)
                    yield wrapped(f"The strategies {names} grow a network each; in the end one is chosen.")
            case Skipped():
                yield wrapped(skipped_text(event))
            case Growth():
                yield from self._header(event, columns=True)
                yield from self._growth(event)
                yield from self._legends(event)
            case Ended():
                yield from self._header(event, columns=False)
                yield _under(f"growth ends: {end_text(event.reason, event.why)}")
            case Undone():
                why = UNDONE.get(event.reason or "", cut(event.reason))
                yield _under(f"growth {amount(event.step)} is taken back: {why}")
            case Fitted():
                loss = f"a loss of {decimal(event.loss, '.4f')}"
                if not event.trial:
                    yield _under(f"a fit leaves {loss} on the selection part")
                    return
                yield from self._header(event, columns=False)
                yield from self._once("trial", TRIAL)
                came = loss if event.loss is not None else "it diverges"
                start = "" if event.keep in (None, 1.0) else f", weights times {event.keep:g}"
                size, length = amount(event.parameters), amount(event.epochs)
                yield _under(f"trial of {size} parameters, {length} epochs{start}: {came}")
            case Sized():
                self._branch = event.branch  # whose lengths are tried next
                yield f"\n{wrapped(sized_text(event))}"
            case Timed():
                yield wrapped(timed_text(event))
            case Selected():
                self._branch = event.branch
                yield f"\n{selection_text(event)}"
            case _:
                pass

    def _once(self, key: str, text: str) -> Iterator[str]:
        if key not in self._told:
            self._told.add(key)
            yield wrapped(text)

    def _header(self, event: Event, *, columns: bool) -> Iterator[str]:
        """What stands above the growths of a run, or of a branch of a tournament; no columns where there are none."""
        branch = event.branch
        if branch != self._branch:
            self._branch = branch
            if branch is None:
                yield ""
            else:
                yield f"\nstrategy {cut(branch)}: {STRATEGIES[branch]}" if branch in STRATEGIES else f"\n{cut(branch)}"
        if columns and branch != self._columns:
            self._columns = branch
            yield from self._once("gain", GAIN)
            yield _HEADER

    def _growth(self, event: Growth) -> Iterator[str]:
        """The line of a growth, or two where it does not fit one."""
        of = f", best of {event.candidates}" if (event.candidates or 0) > 1 else ""
        of = ", on probation" if event.probation else ", trimmed" if event.trims else of
        predicted, measured = (decimal(gain, ".4f") for gain in (event.predicted_gain, event.measured_gain))
        first, *others = fold(f"{what_grew(event.what)}{of}", _WHAT)
        yield (
            f"{amount(event.step):>4}  {first:<{_WHAT}}  {predicted:>9} {measured:>8}  {amount(event.parameters):>10}"
        )
        yield from (f"{_INDENT}{line}" for line in others)

    def _legends(self, event: Growth) -> Iterator[str]:
        """What the words of a growth line mean, where they stand for the first time."""
        grew = moves(event.passes)
        if len(grew) == 1:
            yield from self._moves(grew[0])
        if event.probation:
            yield from self._explained("probation", PROBATION)
        elif event.trims:
            because = TRIMMED if event.because is None else f"trimmed: {cut(event.because, 200)}"
            yield from self._explained("trimmed", because)
        elif (event.candidates or 0) > 1:
            yield from self._explained(
                "best", f"of {event.candidates} candidates that were measured, this one did best"
            )

    def _moves(self, step: Json) -> Iterator[str]:
        kind = str(step.get("pass"))
        said = {"add_edge": _edge, "add_node": _node, "widen": _widened}.get(kind)
        if said is not None:
            yield from self._explained(kind, said(step))
        source = str(step.get("source"))
        if source in INPUTS:
            yield from self._explained(f"input {source}", f"{source} stands for {INPUTS[source]}")

    def _explained(self, key: str, text: str) -> Iterator[str]:
        if key not in self._told:
            self._told.add(key)
            yield _under(f"({text})")


def _data_text(event: Started) -> str:
    """What there is to learn; of runs from before test parts could be missing, what they say."""
    beside = ""
    if event.test_samples is not None:
        how = "held out to test on" if event.held_out else "to test on"
        beside = f" and {event.test_samples:,} {how}" if event.test_samples else " and none to test on"
    into = f" into {event.outputs} classes" if event.task == "classification" and event.outputs else ""
    return f"{cut(event.task)}{into}, {amount(event.samples)} samples{beside}"


def _under(text: str) -> str:
    """A paragraph under what grew."""
    return textwrap.fill(text, LINE, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False)


def _edge(step: Json) -> str:
    return f"an edge is weights without a hidden layer: what they make of {short(step['source'])} is {_added(step)}"


def _node(step: Json) -> str:
    return f"{short(step['created'][0])} is a new hidden layer: what it gives is weighted and {_added(step)}"


def _added(step: Json) -> str:
    """Where a growth is added, and the sum if it made one for that: what read the target reads the sum now."""
    made = step["created"][-1]
    return f"added to {short(step['target'])}" + (f"; {made} is the sum" if made.startswith("sum_") else "")


def _widened(step: Json) -> str:
    return f"the layer {short(step['node'])} has {neurons(step['by'])} more"
