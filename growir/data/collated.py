"""What a loader or a collate function gives, as a batch."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from growir.data.nests import is_mapping, is_row, mapped
from growir.data.source import Batch
from growir.errors import DataError, cut

PAIR = "return a pair of inputs and a target from the data set or its collate function"


def batch_of(given: object, where: str) -> Batch:
    """A pair of inputs and a target, in a tuple or list, as a Batch.

    Args:
        given: The pair. Its inputs are a tensor, several in a tuple or list, or a mapping by the names of inputs;
            arrays of numpy become tensors.
        where: What messages call the source.

    Raises:
        DataError: It is something else.
    """
    if isinstance(given, Batch):
        return given
    if is_mapping(given):
        keys = ", ".join(cut(key, 24) for key in list(given)[:6])
        raise DataError(f"{where}: a batch is a mapping of {keys}, but (inputs, target) is needed; {PAIR}")
    if not is_row(given):
        raise DataError(f"{where}: a batch is of {type(given).__name__}, but (inputs, target) is needed; {PAIR}")
    if len(given) != 2:
        raise DataError(
            f"{where}: a batch has {len(given)} parts, but (inputs, target) is needed; put several inputs into a tuple "
            "or a mapping of their own, and what belongs to the target, such as weights, with it"
        )
    inputs, target = mapped(_tensor, given[0]), mapped(_tensor, given[1])
    if isinstance(inputs, torch.Tensor) and inputs.ndim:
        return Batch((inputs,), target)
    found = dict(inputs) if is_mapping(inputs) else tuple(inputs) if is_row(inputs) else None
    if not found or not all(_is_batch(value) for value in (found.values() if is_mapping(found) else found)):
        raise DataError(
            f"{where}: the inputs of a batch are {_said(given[0])}, but a tensor is needed, or several in a tuple or "
            f"a mapping, each with a first axis of samples; {PAIR}"
        )
    return Batch(found, target)


def _tensor(leaf: Any) -> Any:
    return torch.from_numpy(leaf) if _is_array(leaf) and leaf.dtype.kind in "biuf" else leaf


def _is_array(leaf: object) -> TypeGuard[NDArray[Any]]:
    return isinstance(leaf, np.ndarray)


def _is_batch(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0


def _said(inputs: object) -> str:
    if is_mapping(inputs):
        return "a mapping of " + (
            ", ".join(f"{cut(k, 24)}: {type(v).__name__}" for k, v in inputs.items()) or "nothing"
        )
    if is_row(inputs):
        return f"a {type(inputs).__name__} of " + (", ".join(type(part).__name__ for part in inputs) or "nothing")
    return f"of {type(inputs).__name__}"
