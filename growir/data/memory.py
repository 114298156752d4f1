"""A source over arrays in memory, or mapped from a file: nothing of them is copied but what a batch gathers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from growir.data.nests import is_mapping, is_tuple, on_tensors
from growir.data.shuffling import Shuffle
from growir.data.source import Batch, bounds, of_part, slices
from growir.errors import DataError, cut

Inputs = tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor]


class ArraySource:
    """Arrays whose first axis are samples.

    Args:
        inputs: One array (n, ...), a tuple of one for each input of the network, or a mapping by their names: tensors,
            numpy's arrays, which may be mapped from a file (`np.load(path, mmap_mode="r")`), or what makes one.
        target: An array (n, ...), or tuples and mappings of them, as the objective takes it.
        where: What messages call them.

    Raises:
        DataError: One is no array of numbers, or has no samples, or they are not as many everywhere.
    """

    def __init__(self, inputs: Any, target: Any, where: str = "the arrays") -> None:
        if is_mapping(inputs):
            named = {str(name): as_tensor(given, f"{where}: input {name}") for name, given in inputs.items()}
            self.inputs: Inputs = named
            lengths = {f"input {name}": value for name, value in named.items()}
        else:
            several = inputs if is_tuple(inputs) else (inputs,)
            self.inputs = tuple(as_tensor(given, f"{where}: input {k}") for k, given in enumerate(several, start=1))
            lengths = {f"input {k}": value for k, value in enumerate(self.inputs, start=1)}
        if not lengths:
            raise DataError(f"{where}: there is no input; give an array of samples, or several")
        self.target = as_tensors(target, f"{where}: the target", lengths)
        self._indices: torch.Tensor | None = None
        self._whole = self
        self.count = len(next(iter(lengths.values())))
        for name, value in lengths.items():
            if len(value) != self.count:
                first = next(iter(lengths))
                raise DataError(
                    f"{where}: {first} holds {self.count} samples, but {name} {len(value)}; give as many of each"
                )
        if not self.count:
            raise DataError(f"{where}: there are no samples in them; give one or more")

    def __len__(self) -> int:
        return self.count

    @property
    def whole(self) -> ArraySource:
        """The source that this is a part of."""
        return self._whole

    @property
    def indices(self) -> torch.Tensor:
        """Which samples of the whole these are, (n,)."""
        return torch.arange(self.count) if self._indices is None else self._indices

    def part(self, indices: torch.Tensor | Sequence[int]) -> ArraySource:
        """Some of the samples, on the same arrays."""
        found = object.__new__(ArraySource)
        found.inputs, found.target, found._whole = self.inputs, self.target, self._whole
        found._indices = of_part(self.indices, indices)
        found.count = len(found._indices)
        return found

    def rows(self, indices: torch.Tensor | Sequence[int]) -> Batch:
        """Some of the samples, gathered."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return self._at(chosen if self._indices is None else self._indices[chosen])

    def batch_count(self, size: int) -> int:
        """Batches of an epoch."""
        return len(bounds(self.count, size)) - 1

    def batches(self, size: int, shuffle: Shuffle | None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """One epoch; in order, batches of the whole are views of the arrays."""
        if shuffle is None and self._indices is None:
            for begin, end in list(pairwise(bounds(self.count, size)))[start:]:
                yield self._at(slice(begin, end))
            return
        if shuffle is None:
            order = self.indices
        else:
            order = shuffle.order(self.count, epoch)
            order = order if self._indices is None else self._indices[order]
        for chosen in slices(order, size, start):
            yield self._at(chosen)

    def _at(self, place: torch.Tensor | slice) -> Batch:
        inputs, target = self.inputs, self.target
        # Most data is a tuple of arrays and one array: a step of a small network takes no longer than a walk of nests.
        if isinstance(inputs, tuple) and isinstance(target, torch.Tensor):
            return Batch(tuple(value[place] for value in inputs), target[place])
        return Batch(on_tensors(lambda t: t[place], inputs), on_tensors(lambda t: t[place], target))


def as_tensors(nest: Any, where: str, lengths: dict[str, torch.Tensor]) -> Any:
    """Arrays in tuples and mappings as tensors, each noted in `lengths` under the name of its place."""
    if is_mapping(nest):
        return {key: as_tensors(part, f"{where}, {key}", lengths) for key, part in nest.items()}
    if is_tuple(nest):
        return tuple(as_tensors(part, f"{where}, part {k}", lengths) for k, part in enumerate(nest, start=1))
    found = as_tensor(nest, where)
    lengths[where.rpartition(": ")[2]] = found
    return found


def as_tensor(given: Any, where: str) -> torch.Tensor:
    """An array as a tensor on the same memory. Raises DataError if it is no array of numbers with samples."""
    if isinstance(given, torch.Tensor):
        found = given
    else:
        try:
            array = np.asarray(given)
            with warnings.catch_warnings():
                # Mapped files cannot be written to; nothing here writes.
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                found = torch.from_numpy(array)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{where} is no array of numbers that torch can take: {cut(error)}; give one of real numbers, in "
                "order of memory (np.ascontiguousarray)"
            ) from None
    if found.ndim == 0:
        raise DataError(f"{where} is a single number; an array whose first axis are samples is needed")
    return found
