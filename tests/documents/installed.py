"""What README's install makes, of all that is installed here: the rest is hidden from what reads as a reader would."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Put into a folder on PYTHONPATH: Python runs it in every process before anything else. A finder cannot say that there
# is no such module, only that it knows of none; so every finder is made to know of none.
SITE = """
import sys


class Without:
    def __init__(self, finder, hidden):
        self.finder, self.hidden = finder, hidden

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.hidden else self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Without(finder, frozenset({hidden!r})) for finder in sys.meta_path]
"""


def distributions(name: str, extras: Iterable[str] = ()) -> frozenset[str]:
    """The names of a distribution and of all it needs, with these of its extras."""
    seen: set[tuple[str, str]] = set()
    waiting: list[tuple[str, str]] = [(str(canonicalize_name(name)), extra) for extra in ("", *extras)]
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        try:
            needed = metadata.requires(each[0]) or []
        except metadata.PackageNotFoundError:  # what another platform or Python needs
            continue
        for text in needed:
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": each[1]}):
                waiting += [(str(canonicalize_name(wanted.name)), extra) for extra in ("", *wanted.extras)]
    return frozenset(name for name, _ in seen)


@cache
def hidden(extras: tuple[str, ...]) -> tuple[str, ...]:
    """The modules that are installed here and that growir with these extras does not bring."""
    there = distributions("growir", extras) | {"pip"}  # which every virtual environment has
    return tuple(
        sorted(
            module
            for module, owners in metadata.packages_distributions().items()
            if not any(canonicalize_name(owner) in there for owner in owners)
        )
    )


def site(extras: tuple[str, ...]) -> str:
    """The text of a sitecustomize.py that hides them."""
    return SITE.replace("{hidden!r}", repr(set(hidden(extras))))
