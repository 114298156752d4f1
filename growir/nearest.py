"""The nearest names to one that does not exist, for messages: what was looked up may have been a slip of the pen."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from heapq import nlargest
from pathlib import Path

from growir.errors import cut

MAX_GUESSED = 200  # characters of what a likely slip is looked for; longer names come from broken files
MAX_NEAR = 3
NEAR = 0.6  # how alike names are that a slip of the pen may have changed into each other
MAX_LISTED = 8  # names that a message lists where none is near


def nearest(word: str, choices: Iterable[str]) -> list[str]:
    """The names that a likely slip of the pen may have meant, at most three, in the order of the choices.

    A part of a dotted name comes first, in either direction, then names that are about as near as the nearest:

        conv1 among block.conv1, block.conv2    block.conv1
        layer among layer.0, layer.1, head      layer.0, layer.1
        hed among head, heads                   head
    """
    names = list(dict.fromkeys(choices))
    if not word or len(word) > MAX_GUESSED:  # matching is quadratic in its length
        return []
    parts = [name for name in names if f".{word}." in f".{name}." or f".{name}." in f".{word}."]
    if parts:
        return parts[:MAX_NEAR]
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(name.lower(), name)
    found = {each: _likeness(each, word.lower()) for each in folded}
    ratios = {each: found[each] for each in nlargest(MAX_NEAR, found, found.__getitem__) if found[each] >= NEAR}
    best = max(ratios.values(), default=0.0)
    return [name for each, name in folded.items() if each in ratios and ratios[each] > best - 0.05]


def _likeness(name: str, word: str) -> float:
    """How alike two names are, from 0 to 1, or 0 for less than NEAR; equal last segments, as of tensors, say nothing.

    head.weight is not near stem.0.weight, though more than half of its letters are in both, and in order.
    """
    ours, theirs = name.split("."), word.split(".")
    while len(ours) > 1 and len(theirs) > 1 and ours[-1] == theirs[-1]:
        ours.pop()
        theirs.pop()
    matcher = difflib.SequenceMatcher(None, ".".join(ours), ".".join(theirs))
    if matcher.real_quick_ratio() < NEAR or matcher.quick_ratio() < NEAR:
        return 0.0
    return matcher.ratio()


def suggestion(word: str, choices: Iterable[str]) -> str:
    """' Did you mean ...?' for a likely slip of the pen, else nothing."""
    near = [repr(cut(name)) for name in nearest(word, choices)]
    return f" Did you mean {one_of(near)}?" if near else ""


def alternatives(word: str, choices: Iterable[str]) -> str:
    """The same, or what there is where it is little and nothing is near: ' There are a, b, c.'"""
    names = list(dict.fromkeys(choices))
    near = suggestion(word, names)
    if near or not 0 < len(names) <= MAX_LISTED:
        return near
    return f" There {'is' if len(names) == 1 else 'are'} {', '.join(cut(name) for name in names)}."


def neighbours(path: Path) -> str:
    """The same for a path where nothing is, among what is in its folder, as a sentence behind another."""
    try:
        near = "" if path.exists() else suggestion(path.name, sorted(entry.name for entry in path.parent.iterdir()))
    except OSError:
        return ""
    return f".{near}" if near else ""


def one_of(words: Sequence[str]) -> str:
    """'a', 'a or b', 'a, b or c'."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
