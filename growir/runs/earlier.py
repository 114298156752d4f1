"""Lines of events.jsonl as earlier versions of growir wrote them, brought into the form of today.

Lines without `record` are of version 1. Of these only a growth looks different: its pass stood flat among the other
keys, and what is a note of one policy now did too.

    {"event": "growth", "step": 1, "pass": "widen", "node": "a", "by": 4, "candidates": 2, "amplitude": 0.5}
    {"event": "growth", "record": 2, "step": 1, "passes": [{"pass": "widen", "node": "a", "by": 4}], "candidates": 2,
     "notes": {"amplitude": 0.5}}
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from growir.runs.records import Growth, Measured, Tried
from growir.runs.values import Json, count, mapping, mappings
from growir.runs.words import describe

_GROWTH = frozenset(each.name for each in fields(Growth)) - {"passes", "created", "notes"}
_NOTES = frozenset(each.name for each in fields(Measured))
_TRIED = frozenset(each.name for each in fields(Tried))
_LATER = frozenset(("train_loss", "selection_loss", "seconds_training", "trained", "undone"))  # of no growth


def of_today(found: Json) -> Json:
    """An event's line, of whichever version, as this one would have written it."""
    return _growth(found) if found.get("event") == "growth" and (count(found.get("record")) or 1) < 2 else found


def _growth(found: Json) -> Json:
    known, notes = {key: found[key] for key in _GROWTH if key in found}, {k: found[k] for k in _NOTES if k in found}
    skipped = _GROWTH | _NOTES | _LATER | {"event"}
    passes = [{key: value for key, value in found.items() if key not in skipped}]
    if "tried" in notes:
        notes["tried"] = [_tried(entry) for entry in mappings(notes["tried"])]
    if notes.get("probation") is True:  # nothing was predicted or measured but that nothing changes
        known |= {"predicted_gain": None, "measured_gain": None}
    what = describe(passes)
    return {
        **known,
        "event": "growth",
        "record": Growth.version,
        "policy": "dag",
        "what": what,
        "passes": passes,
        "created": found.get("created"),
        "chosen": [{"name": what, "gain": known.get("predicted_gain")}],
        "notes": notes,
    }


def _tried(found: Json) -> dict[str, Any]:
    known = {key: value for key, value in found.items() if key in _TRIED}
    passes = {key: value for key, value in found.items() if key not in _TRIED}
    return {**known, "small": mapping(found.get("small")) or None, "passes": [passes]}
