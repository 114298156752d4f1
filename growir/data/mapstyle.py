"""A source over a map-style data set of torch: read sample by sample, by worker processes where asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.utils.data
from torch.utils.data import DataLoader, Dataset

from growir.data.collated import batch_of
from growir.data.draws import IN_ORDER, Apart, seed_at, seed_globals, seed_of
from growir.data.shuffling import Shuffle
from growir.data.source import Batch, Indexed, bounds, of_part, slices
from growir.errors import DataError


class _Keyed(Dataset[Any]):
    """A data set whose random numbers are a function of a seed and a sample's number."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, index: int) -> Any:
        seed_globals(seed_at(self.seed, index))
        return self.dataset[index]


class DatasetSource:
    """A data set with `__len__` and `__getitem__`, whose samples are (inputs, target).

    What it draws at random, such as augmentation, from the generators of torch, numpy and Python's random, is a
    function of the shuffle's key, the epoch and the sample: the number of workers changes nothing.

    Args:
        dataset: The data set.
        workers: Processes that read samples; 0 reads in this one.
        collate: Makes a batch, (inputs, target), of a list of samples; torch's default_collate if None.
        pin_memory: Whether batches go to memory from which a GPU copies by itself.
        where: What messages call it.

    Raises:
        DataError: It is no such data set, or has no samples.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        where: str = "the data set",
    ) -> None:
        if is_stream(dataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise DataError(
                f"{where}: {type(dataset).__name__} has no samples by number (__getitem__ and __len__); give a loader "
                "over it to Data.from_loaders"
            )
        if not len(dataset):
            raise DataError(f"{where}: there are no samples in it; give one or more")
        self.dataset, self.workers, self.pin_memory, self.where = dataset, workers, pin_memory, where
        self.collate = collate or torch.utils.data.default_collate
        self.worker_init: Callable[[int], None] | None = None
        self._indices: torch.Tensor | None = None
        self._whole: Indexed = self

    def __len__(self) -> int:
        return len(self.dataset if self._indices is None else self._indices)

    @property
    def whole(self) -> Indexed:
        """The source that this is a part of."""
        return self._whole

    @property
    def indices(self) -> torch.Tensor:
        """Which samples of the data set these are, (n,)."""
        return torch.arange(len(self.dataset)) if self._indices is None else self._indices

    def part(self, indices: torch.Tensor | Sequence[int]) -> DatasetSource:
        """Some of the samples, of the same data set."""
        found = object.__new__(type(self))
        found.__dict__.update(self.__dict__)
        found._indices = of_part(self.indices, indices)
        return found

    def rows(self, indices: torch.Tensor | Sequence[int]) -> Batch:
        """Some of the samples, read in this process."""
        keyed = _Keyed(self.dataset, IN_ORDER)
        with Apart(IN_ORDER).used():
            samples = [keyed[k] for k in integers(of_part(self.indices, indices))]
            return batch_of(self.collate(samples), self.where)

    def batch_count(self, size: int) -> int:
        """Batches of an epoch."""
        return len(bounds(len(self), size)) - 1

    def plan(self, size: int, shuffle: Shuffle | None, epoch: int, start: int) -> list[torch.Tensor]:
        """Which samples of the data set stand in which batch of an epoch."""
        order = self.indices if shuffle is None else self.indices[shuffle.order(len(self), epoch)]
        return list(slices(order, size, start))

    def batches(self, size: int, shuffle: Shuffle | None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """One epoch; batches that are left out are not read."""
        plan = [integers(chosen) for chosen in self.plan(size, shuffle, epoch, start)]
        if not plan:
            return
        seed = seed_of(shuffle, epoch)
        loader = DataLoader(
            _Keyed(self.dataset, seed),
            batch_sampler=plan,
            num_workers=min(self.workers, len(plan)),
            collate_fn=self.collate,
            pin_memory=self.pin_memory,
            worker_init_fn=self.worker_init,
            generator=torch.Generator(),  # else the loader draws from the process's
        )
        apart = None if self.workers else Apart(seed)
        found = iter(loader)
        for _ in plan:
            with nullcontext() if apart is None else apart.used():
                raw = next(found)
            yield batch_of(raw, self.where)


def integers(indices: torch.Tensor) -> list[int]:
    """Indices as Python's numbers, which data sets of lists and of torch alike take."""
    found: list[int] = indices.tolist()  # pyright: ignore[reportUnknownVariableType]  # torch's own stub
    return found


def is_stream(dataset: object) -> bool:
    """Whether a data set of torch has no samples by number; its class has `__getitem__` all the same."""
    kind: type[Any] = torch.utils.data.IterableDataset
    return isinstance(dataset, kind)
