"""Where a checkpoint has its state_dicts and its saved optimizers, whatever it calls them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch

from growir.errors import ModelError, cut
from growir.planning import Saved

Path = tuple[str, ...]
DEPTH = 3  # how deep in a checkpoint its parts may lie


def parts_of(path: Path, value: object) -> Iterator[tuple[Path, Mapping[Any, Any]]]:
    """The mappings in a checkpoint, with where they are."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, Any]", value)
        yield path, mapping
        if len(path) < DEPTH:
            for key, inner in mapping.items():
                yield from parts_of((*path, str(key)), inner)
    elif isinstance(value, list | tuple) and len(path) < DEPTH:
        for k, inner in enumerate(cast("Sequence[object]", value)):
            yield from parts_of((*path, str(k)), inner)


def rest_of(value: object, path: Path, done: set[Path]) -> Iterator[Path]:
    """Where lies what is carried as it is: the largest parts in which nothing was grown."""
    if path in done:
        return
    if not any(other[: len(path)] == path for other in done):
        yield path
    elif isinstance(value, Mapping):
        for key, inner in cast("Mapping[Any, object]", value).items():
            yield from rest_of(inner, (*path, str(key)), done)
    else:
        for k, inner in enumerate(cast("Sequence[object]", value)):
            yield from rest_of(inner, (*path, str(k)), done)


def replaced(value: object, path: Path, grown: Mapping[Path, object]) -> object:
    """A checkpoint with other parts in some places; whatever has none of these in it is the same object."""
    if path in grown:
        return grown[path]
    if not any(other[: len(path)] == path for other in grown):
        return value
    if isinstance(value, Mapping):
        mapping = cast("Mapping[Any, object]", value)
        pairs = ((key, replaced(inner, (*path, str(key)), grown)) for key, inner in mapping.items())
        return OrderedDict(pairs) if isinstance(value, OrderedDict) else dict(pairs)
    parts = [replaced(inner, (*path, str(k)), grown) for k, inner in enumerate(cast("Sequence[object]", value))]
    return tuple(parts) if isinstance(value, tuple) else parts


def spelled(path: Path) -> str:
    """A place in a checkpoint as messages and arguments have it."""
    return ".".join(path) or "the whole"


def _asked(given: str | Sequence[str]) -> list[Path]:
    return [tuple(each.split(".")) if each else () for each in ([given] if isinstance(given, str) else given)]


# -- weights ----------------------------------------------------------------------------------------------------------


def find_weights(
    parts: Mapping[Path, Mapping[Any, Any]], given: str | Sequence[str] | None, saved: Mapping[str, Saved]
) -> list[tuple[Path, str]]:
    """Where the weights are, and those of their averages, each with what stands before the model's names."""
    if given is not None:
        asked = _asked(given)
        if not asked:
            raise ModelError("weights: at least one state_dict is needed")
        for path in asked:
            if path not in parts:
                raise ModelError(f"there is no {cut(spelled(path))} in the checkpoint; {_holds(parts)}")
        answers = [_prefix(parts[path], saved) for path in asked]
        for path, (prefix, problem) in zip(asked, answers, strict=True):
            if prefix is None:
                raise ModelError(f"{cut(spelled(path))} is no state_dict of the plan's small model: {problem}")
        return [(path, prefix) for path, (prefix, _) in zip(asked, answers, strict=True) if prefix is not None]
    tried = {path: _prefix(part, saved) for path, part in parts.items() if _tensors_in(part)}
    found = [(path, prefix) for path, (prefix, _) in tried.items() if prefix is not None]
    if not found:
        if not tried:
            raise ModelError(f"the checkpoint has no state_dict, which maps names to tensors; {_holds(parts)}")
        path = max(tried, key=lambda path: len(saved.keys() & parts[path].keys()))
        raise ModelError(
            f"the checkpoint is of another model than the plan: {cut(spelled(path))} is nearest to its small model, "
            f"but {tried[path][1]}"
        )
    if len(found) > 1:
        several = [spelled(path) for path, _ in found]
        raise ModelError(
            f"{' and '.join(map(cut, several))} are all state_dicts of the plan's small model; say which are the "
            f"weights, and then those that grow with them as averages: weights={several!r} (--weights)"
        )
    return found


def _holds(parts: Mapping[Path, Mapping[Any, Any]]) -> str:
    return f"it holds {cut(', '.join(map(str, parts[()])) or 'nothing', 200)}"


def _tensors_in(part: Mapping[Any, Any]) -> bool:
    return any(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in part.items())


def _prefix(part: Mapping[Any, Any], saved: Mapping[str, Saved]) -> tuple[str | None, str]:
    """What stands before the model's names in a state_dict, or else why it is none of this model."""
    keys = [key for key in part if isinstance(key, str)]
    found = ([key.removesuffix(name) for key in keys if f".{key}".endswith(f".{name}")] for name in saved)
    prefixes = next((each for each in found if each), [""])  # by the first name that is there: a tied one may not be
    problems = [_problem(part, prefix, saved) for prefix in prefixes]
    fitting = [prefix for prefix, problem in zip(prefixes, problems, strict=True) if problem is None]
    if len(fitting) > 1:
        return None, f"the model is in it {len(fitting)} times, behind {', '.join(map(repr, fitting))}"
    return (fitting[0], "") if fitting else (None, next(problem for problem in problems if problem))


def _problem(part: Mapping[Any, Any], prefix: str, saved: Mapping[str, Saved]) -> str | None:
    """Why a state_dict is none of the model, if it is none."""
    there = {entry.parameter for name, entry in saved.items() if prefix + name in part}
    for name, entry in saved.items():
        value = part.get(prefix + name)
        if value is None and (entry.parameter is None or entry.parameter not in there):
            return f"has no {cut(prefix + name)}"
        if value is not None and not isinstance(value, torch.Tensor):
            return f"{cut(prefix + name)} is no tensor there"
        if value is not None and tuple(value.shape) != entry.shape:
            return f"{cut(prefix + name)} has shape {list(value.shape)} there, and {list(entry.shape)} in the plan"
    for key in part:
        if isinstance(key, str) and key.startswith(prefix) and key.removeprefix(prefix) not in saved:
            return f"has {cut(key)}, which the plan's small model has not"
    return None


# -- optimizers -------------------------------------------------------------------------------------------------------


def find_optimizers(parts: Mapping[Path, Mapping[Any, Any]], given: str | Sequence[str] | None) -> list[Path]:
    """Where the saved optimizers are. Raises ModelError if there is none where one was said to be."""
    found = [path for path, part in parts.items() if isinstance(part.get("param_groups"), list) and "state" in part]
    if given is None:
        return found
    for path in (asked := _asked(given)):
        if path not in found:
            there = f"there are {', '.join(map(spelled, found))}" if found else "there is none"
            raise ModelError(f"{cut(spelled(path))} is no saved optimizer: {there}")
    return asked
