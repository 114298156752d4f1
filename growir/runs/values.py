"""Values of JSON that may be damaged: each function gives the value, or nothing where it is of another kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

HUGE = 1e300  # no measured number; an integer of a damaged file can be larger than any float

Json = Mapping[str, Any]
Metrics = Mapping[str, float | None]


def number(value: object) -> float | None:
    """A measured number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= HUGE:
        return None
    return float(value)


def count(value: object) -> int | None:
    """A whole number."""
    return value if type(value) is int and abs(value) < HUGE else None


def text(value: object) -> str | None:
    """A text."""
    return value if isinstance(value, str) else None


def flag(value: object) -> bool | None:
    """Yes or no."""
    return value if isinstance(value, bool) else None


def anything(value: object) -> Any:
    """A value of which nothing is asked."""
    return value


def mapping(value: object) -> Json:
    """A JSON object; empty for what is none."""
    return cast("Json", value) if isinstance(value, dict) else {}


def entries(value: object) -> tuple[object, ...]:
    """The entries of a JSON list; none of what is none."""
    return tuple(cast("list[object]", value)) if isinstance(value, list) else ()


def mappings(value: object) -> tuple[Json, ...]:
    """The objects of a JSON list."""
    return tuple(cast("Json", entry) for entry in entries(value) if isinstance(entry, dict))


def names(value: object) -> tuple[str, ...]:
    """The texts of a JSON list."""
    return tuple(entry for entry in entries(value) if isinstance(entry, str))


def numbers(value: object) -> tuple[float | None, ...]:
    """The entries of a JSON list, None for what is no measured number."""
    return tuple(number(entry) for entry in entries(value))


def sizes(value: object) -> tuple[int, ...]:
    """The whole numbers of a JSON list."""
    return tuple(entry for entry in entries(value) if type(entry) is int)


def metrics(value: object) -> Metrics | None:
    """Scores by name, of which some may be out of a float's range; None for what is no JSON object."""
    if not isinstance(value, dict):
        return None
    return {key: number(found) for key, found in cast("Json", value).items()}


def metrics_by_part(value: object) -> Mapping[str, Metrics]:
    """Scores of several parts of the data, or costs of several phases; empty for what is no JSON object."""
    return {part: metrics(found) or {} for part, found in mapping(value).items()}
