"""Tensors in tuples, lists and mappings, as deep as they come: what a target may be, and inputs are.

{"boxes": a, "labels": (b, c)}   holds a, b and c; what else stands in it (None, a name) goes along as it is
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import torch


def is_mapping(nest: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether parts stand under names."""
    return isinstance(nest, Mapping)


def is_row(nest: object) -> TypeGuard[tuple[Any, ...] | list[Any]]:
    """Whether parts stand in a row."""
    return isinstance(nest, tuple | list)


def is_tuple(nest: object) -> TypeGuard[tuple[Any, ...]]:
    """Whether parts stand in a tuple; a list of numbers may also be an array."""
    return isinstance(nest, tuple)


def tensors_of(nest: object) -> Iterator[torch.Tensor]:
    """The tensors of a nest, in order."""
    if isinstance(nest, torch.Tensor):
        yield nest
    elif is_mapping(nest):
        for part in nest.values():
            yield from tensors_of(part)
    elif is_row(nest):
        for part in nest:
            yield from tensors_of(part)


def mapped(of: Callable[..., Any], *nests: Any) -> Any:
    """The nest of what a function makes of each leaf, or of the leaves at one place of several nests alike."""
    first: object = nests[0]
    if is_mapping(first):
        return {key: mapped(of, *(nest[key] for nest in nests)) for key in first}
    if is_row(first):
        parts = [mapped(of, *found) for found in zip(*nests, strict=True)]
        if isinstance(first, list):
            return parts
        # The constructor of a named tuple takes its parts one by one.
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    return of(*nests)


def on_tensors(of: Callable[[torch.Tensor], Any], nest: Any) -> Any:
    """The nest of what a function makes of each tensor; what is no tensor stays."""

    def found(leaf: Any) -> Any:
        return of(leaf) if isinstance(leaf, torch.Tensor) else leaf

    return mapped(found, nest)


def joined(nests: Sequence[Any]) -> Any:
    """One nest of several alike, tensors end to end along their first axis; of what is no tensor, the first one's."""

    def ends(*leaves: Any) -> Any:
        return torch.cat(leaves) if isinstance(leaves[0], torch.Tensor) else leaves[0]

    return mapped(ends, *nests)
