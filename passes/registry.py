"""Passes by name: growir's own and those of installed packages, read from JSON and from the steps of a history.

A sequence reads its parts by name and is a pass itself. So this module imports no pass: `growir.passes`, which Python
imports before any module in it, hands its own over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from numpy.typing import NDArray

from growir.errors import GrowirError, PassRefused, cut
from growir.graph import Step
from growir.nearest import suggestion
from growir.rewrite import Pass, Rewrite

_own: dict[str, type[Pass]] = {}


def hold(kinds: Iterable[type[Pass]]) -> None:
    """Know growir's own passes from now on."""
    _own.update((kind.name, kind) for kind in kinds)


@cache
def all_passes() -> Mapping[str, type[Pass]]:
    """Every pass by name, with those that installed packages add through the entry-point group `growir.passes`."""
    found = dict(_own)
    for entry in entry_points(group="growir.passes"):
        try:
            kind = entry.load()
        except (ImportError, AttributeError) as error:
            text = f"entry point {entry.name!r} of growir.passes cannot be loaded: {entry.value}: {error}"
            raise GrowirError(text) from error
        if not (isinstance(kind, type) and issubclass(kind, Pass)):
            raise GrowirError(f"entry point {entry.name!r} of growir.passes is no growir.rewrite.Pass: {entry.value}")
        if kind.name in found:
            raise GrowirError(_two_of_a_name(found[kind.name], kind))
        found[kind.name] = kind
    return found


def find_pass(name: str) -> type[Pass] | None:
    """The pass of this name; installed packages are only searched for names growir does not have itself."""
    return _own.get(name) or all_passes().get(name)


def _two_of_a_name(first: type[Pass], second: type[Pass]) -> str:
    both = " and ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in (first, second))
    return f"two passes are called {first.name!r}: {both}; give the second another name"


def check_name(kind: type[Pass]) -> None:
    """Raise PassRefused if a history would read the steps of this class as those of another."""
    if not isinstance(getattr(kind, "name", None), str):
        text = f"the pass {cut(kind.__qualname__)} has no name"
        raise PassRefused(f'{text}; say in the class what histories call it: name: ClassVar[str] = "..."')
    known = find_pass(kind.name)
    # One that a notebook or a reload defined anew is another object, but the same class.
    if known is not None and (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise PassRefused(_two_of_a_name(known, kind))


def needed_pass(given: object, also: str = "") -> Pass:
    """What was given as a pass, if it is one.

    Args:
        given: Whatever a caller gave.
        also: What else would be right there, for the message.

    Raises:
        PassRefused: It is no pass, or its class has the name of another.
    """
    if isinstance(given, Pass):
        check_name(type(given))
        return given
    shown, todo = cut(repr(given)), "several passes go into one Sequence(passes=...)"
    if isinstance(given, type) and issubclass(given, Pass):
        todo = f"make one of the class: {given.__name__}(...)"
    elif isinstance(given, Mapping):
        todo = "growir.passes.pass_from_data makes a pass of its JSON form"
    elif isinstance(given, Rewrite):
        shown, todo = "a rewrite", "give the pass that made it"
    raise PassRefused(f"a pass such as Widen(node=..., by=...){also} is needed, but this is {shown}; {todo}")


def pass_from_data(data: Mapping[str, Any], values: Mapping[str, NDArray[Any]] | None = None) -> Pass:
    """A pass from its JSON form, {"pass": name, ...fields}. Raises PassRefused saying what is wrong with it.

    A "version" says which version of the pass spelled the fields; without one it is that of this growir.
    """
    fields = dict(data)
    if "pass" not in fields:
        raise PassRefused('a pass says its name, {"pass": "widen", ...}, but this one has none')
    name = fields.pop("pass")
    kind = find_pass(name) if isinstance(name, str) else None
    if kind is None:
        names = sorted(all_passes())
        near = suggestion(name, names) if isinstance(name, str) else ""
        raise PassRefused(f"there is no pass {cut(name)!r}; there are: {', '.join(names)}.{near}")
    if "version" in fields:
        version = fields.pop("version")
        upgraded = kind.upgraded(version, fields) if type(version) is int else None
        if upgraded is None:
            raise PassRefused(f"{kind.name}: version {cut(version)} of this pass cannot be run here")
        fields = dict(upgraded)
    fields["values"] = dict(values or {})
    return kind(**fields)


def pass_to_data(step: Pass) -> dict[str, Any]:
    """A pass's JSON form, without the arrays in its `values`; `pass_from_data` reads it."""
    return {"pass": step.name, **step.model_dump(mode="json"), "version": step.version}


def pass_from_step(step: Step, values: Mapping[str, NDArray[Any]]) -> Pass:
    """The pass a history step records. Raises PassRefused if it is unknown here, or recorded by another version."""
    return pass_from_data({**step.fields, "pass": step.kind, "version": step.version}, values)
