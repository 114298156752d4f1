"""What grew and why it ended, in words: of recorded passes, which may be damaged or from another package."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from growir.errors import counted, cut
from growir.runs.records import Skipped, Started
from growir.runs.values import Json, count, mappings, number
from growir.show import MAX_DEPTH, field_text, some

REASONS: Mapping[str, str] = {
    "parameters": "nothing more fits the budget",
    "no move": "there is nothing that could grow",
    "steps": "the number of growths is reached",
    "growths": "the schedule has had all its growths",
    "schedule": "the schedule has come to its end",
    "seconds": "the time is over",
    "no gain": "no candidate lowers the loss of the selection part by more than chance would, at once or trained",
    "criterion": "the information criterion no longer falls",
    "size": "larger networks are no better after a fit",
    "no larger": "what grows goes again: two growths in a row left the network no larger",
}
# Of a growth that was taken back after the training that followed it.
UNDONE: Mapping[str, str] = {
    "no gain": "trained, it does not lower the loss of the selection part by more than chance would",
    "criterion": "the information criterion does not fall by it",
}
GAIN = (
    "A gain is by how much a growth lowers the loss before it is trained: as predicted to first order, and as measured "
    "on the selection part."
)
TRIAL = (
    "A trial is a fit, of a fork, that says what a network of its size comes to on the selection part; growth goes on "
    "from the unfitted network."
)
PROBATION = (
    "on probation: nothing gains at once, so the most promising candidate is trained; it stays if that lowers the loss "
    "on the selection part by more than chance would; by the strategy widen, in any case"
)
TRIMMED = (
    "trimmed: the selection part does not miss what went by more than chance would, so it would not pass as a growth; "
    "the gain is that of all together"
)
# Of a recorded pass, what tells nothing of what it does.
_UNSAID = frozenset("event step pass version created values seed cost".split())
MOST = 6  # passes of one growth that are told one by one
MAX_WHAT = 1000  # characters that say what grew


def selection_part(started: Started | None) -> str:
    """What the selection part is; a third of the samples where a run does not say how many it has."""
    parts = "two thirds of the samples; the last third, the selection part, measures"
    if started is not None and started.samples and started.selection_samples:
        samples, select = started.samples, started.selection_samples
        if abs(3 * select - samples) > 3:
            parts = f"{samples - select:,} of the {samples:,} samples; the others, the selection part, measure"
    return f"While it grows, a network is trained on {parts} what each growth is worth."


def short(name: object) -> str:
    """A node's name as a growth is told: of the layer and the activation of a state that growth made, the state's."""
    return re.sub(r"^(node_[0-9]+)\.[a-z0-9_]+$", r"\1", cut(name))


def neurons(many: object) -> str:
    """So many neurons in words."""
    return f"{cut(many)} {'neuron' if many == 1 else 'neurons'}"


def describe_step(found: Mapping[str, Any], depth: int = 0) -> str:
    """A recorded pass in a few words; it may be damaged, or from another package."""
    created = found.get("created")
    made = short(cast("list[object]", created)[0]) if isinstance(created, list) and created else "?"
    source, target, node = (short(found.get(key, "?")) for key in ("source", "target", "node"))
    match found.get("pass"):
        case "add_edge":
            return f"edge {source} -> {target}"
        case "add_node":
            way = (source, target) if made == "?" else (source, made, target)  # what was only tried made nothing
            return f"{neurons(found.get('width', '?'))} {' -> '.join(way)}"
        case "remove_edge":
            return f"no edge {source} -> {target}"
        case "insert_block":
            return f"{'residual ' if found.get('residual', True) else ''}block behind {short(found.get('after', '?'))}"
        case "stack":
            what = "copy" if found.get("copy_weights") is True else "block"
            return f"{what} {_module(found.get('module'), made)} behind {short(found.get('after', '?'))}"
        case "unstack":
            return f"no block {_module(found.get('block'), '?')}"
        case "widen":
            return f"{node} wider by {cut(found.get('by', '?'))}"
        case "prune" | "split" as name:
            channels = found.get("channels")
            many = len(cast("list[object]", channels)) if isinstance(channels, list) else None
            if name == "prune":
                return f"{node} narrower by {'?' if many is None else many}"
            return f"{node}: {'? channels' if many is None else counted(many, 'channel')} split"
        case "sequence":
            if depth == MAX_DEPTH:
                return "..."
            return describe(mappings(found.get("passes")), depth + 1)
        case name:
            fields = {k: v for k, v in found.items() if k not in _UNSAID and v not in ([], {}, None, False)}
            return " ".join(filter(None, (cut(name), field_text(fields))))


def _module(told: object, other: str) -> str:
    """The module that a block stands in, which a pass tells by its path or by its nodes; another word if by neither."""
    if isinstance(told, list) and told:
        nodes = [str(name).split(".") for name in cast("list[object]", told)]
        shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*nodes, strict=False))
        return short(".".join(parts[0] for parts in shared) or ".".join(nodes[-1]))
    return short(told) if isinstance(told, str) else other


def describe(passes: Sequence[Json], depth: int = 0) -> str:
    """Recorded passes in a few words: the first of many, and how many more there are."""
    grew = moves(passes)
    told = [describe_step(each, depth) for each in grew[:MOST]]
    return "; ".join([*told, f"+{len(grew) - MOST}"] if len(grew) > MOST else told)


def moves(passes: Sequence[Json]) -> Sequence[Json]:
    """Recorded passes without the updates of weights that stand beside a growth; where there is nothing else, all."""
    return [each for each in passes if each.get("pass") != "update"] or passes


def what_grew(what: str | None) -> str:
    """What a record says that grew, as a line shows it."""
    return cut(what or "?", MAX_WHAT)


def reason_text(reason: object) -> str:
    """Why growth ended, in a sentence."""
    return REASONS.get(reason, cut(reason)) if isinstance(reason, str) else "-"


def end_text(reason: object, why: str | None) -> str:
    """Why growth ended, with what more is known."""
    return reason_text(reason) + (f": {cut(why, MAX_WHAT)}" if why else "")


def reasons_text(found: Mapping[str, Any]) -> str:
    """Why some things are not, by name: those of one reason together; of many the first, and how many more."""
    names: dict[str, list[str]] = {}
    for name, why in found.items():
        names.setdefault(cut(why, MAX_WHAT), []).append(cut(name))
    told = [f"{some(each, MOST)} ({why})" for why, each in names.items()]
    return "; ".join([*told[:MOST], f"+{len(told) - MOST}"] if len(told) > MOST else told)


def skipped_text(event: Skipped) -> str:
    """Where a policy finds nothing to choose."""
    return f"{cut(event.policy or '?')} chooses nothing in {reasons_text(event.spaces)}"


def amount(value: object) -> str:
    """A whole number with commas; a dash where there is none."""
    found = count(value)
    return "-" if found is None else f"{found:,}"


def decimal(value: object, form: str) -> str:
    """A measured number in some form; a dash where there is none."""
    found = number(value)
    return "-" if found is None else format(found, form)
