"""What a policy that remembers gives to a checkpoint: JSON values and numpy arrays by name, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from growir.errors import RunError, cut

Memory = Mapping[str, Any]
_KINDS = "biuf"  # truth values, whole numbers and floats: what a file of tensors holds


def checked_memory(policy: str, given: object) -> Memory:
    """What a policy's `state` gave, if a file can give it back as it was.

    Raises:
        RunError: It is no mapping by name, or holds something that would come back as something else.
    """
    if not isinstance(given, Mapping):
        raise RunError(
            f"policy {policy}: state gives {cut(type(given).__name__)}, but a mapping by name is needed, of JSON "
            "values and numpy arrays"
        )
    found = cast("Mapping[object, object]", given)
    for name, value in found.items():
        if not isinstance(name, str):
            raise RunError(f"policy {policy}: state has the name {cut(repr(name))}, but names are text")
        if not _returns(value):
            raise RunError(
                f"policy {policy}: state has {cut(type(value).__name__)} as {cut(name)!r}, which a checkpoint cannot "
                "give back as it is; give JSON values (numbers, text, lists, dicts with text as keys) or numpy arrays "
                "of numbers"
            )
    return cast("Memory", dict(found))


def _returns(value: object) -> bool:
    """Whether a checkpoint gives a value back as it is."""
    if isinstance(value, np.ndarray):
        return cast("NDArray[Any]", value).dtype.kind in _KINDS
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def divided(memory: Memory) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The JSON values and the arrays of a memory."""
    arrays: dict[str, NDArray[Any]] = {k: cast("Any", v) for k, v in memory.items() if isinstance(v, np.ndarray)}
    return {name: value for name, value in memory.items() if name not in arrays}, arrays
