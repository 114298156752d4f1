"""Sources over a DataLoader of the user's, or over anything else that gives batches each time it is walked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, TypeGuard

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from growir.data.collated import batch_of
from growir.data.draws import Apart, seed_of
from growir.data.mapstyle import DatasetSource, is_stream
from growir.data.nests import joined, tensors_of
from growir.data.shuffling import Shuffle
from growir.data.source import Batch, Indexed, of_part, slices
from growir.data.streams import EveryFew, batches_said
from growir.errors import DataError, counted

_END = object()


def loader_source(loader: Iterable[Any], where: str = "the loader") -> LoaderSource:
    """A source over a loader: an indexed one where the loader reads a data set by number.

    Args:
        loader: A DataLoader, or what gives batches, (inputs, target), each time it is walked.
        where: What messages call it.

    Raises:
        DataError: It can be walked only once, or keeps what makes it impossible to go on.
    """
    if _is_loader(loader) and not is_stream(loader.dataset) and loader.batch_sampler is not None:
        return IndexedLoader(loader, where)
    return LoaderSource(loader, where)


class LoaderSource:
    """Batches as a loader gives them, of its own size and in its own order.

    Before an epoch the generators that a loader and its data set draw from, torch's, numpy's, Python's and the loader's
    own, are seeded by the shuffle's key and the epoch, and what training draws stays apart.

    Args:
        loader: What gives batches, (inputs, target), each time it is walked.
        where: What messages call it.

    Raises:
        DataError: It can be walked only once, or keeps what makes it impossible to go on.
    """

    def __init__(self, loader: Iterable[Any], where: str = "the loader") -> None:
        if not hasattr(loader, "__iter__") or hasattr(loader, "__next__"):
            raise DataError(
                f"{where}: {type(loader).__name__} cannot be walked again for each epoch; give a DataLoader, a list of "
                "batches, or an object whose __iter__ begins anew"
            )
        if _is_loader(loader):
            check_loader(loader, where)
        self.loader: Any = loader
        self.where = where
        self._ended: tuple[int, int] | None = None  # batches and samples of the first whole epoch
        self._given: int | None = None  # batches of the last one, before any joined

    def __len__(self) -> int:
        """How many samples an epoch has; the first time, all are read for it if none was walked."""
        return self._counts()[1]

    def batch_count(self, size: int) -> int:
        """Batches of an epoch, of whatever size; the first time, all are read for it if none was walked."""
        return self._counts()[0]

    def _counts(self) -> tuple[int, int]:
        if self._ended is None:
            for _ in self.batches(1, None):
                pass
        assert self._ended is not None
        return self._ended

    def batches(self, size: int, shuffle: Shuffle | None, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """One epoch; batches that are left out are read all the same.

        Raises:
            DataError: It gives no batch, something else than pairs, or not as many as in the epoch before.
        """
        count = samples = 0
        for batch in self._whole_batches(shuffle, epoch):
            if count >= start:
                yield batch
            count += 1
            samples += len(batch)
        self._check_end(count, samples)

    def _whole_batches(self, shuffle: Shuffle | None, epoch: int) -> Iterator[Batch]:
        """An epoch, of which a last batch of a single sample has joined the one before."""
        held: Batch | None = None
        single: Batch | None = None  # behind `held`, joins it if nothing more comes
        number, first = -1, self._first_held()
        for number, raw in enumerate(self._raw(shuffle, epoch)):
            batch = batch_of(raw, self.where)
            if number < first:
                yield batch
                continue
            if held is not None and single is not None:
                yield held
                held, single = single, None
            if held is not None and len(batch) == 1 < len(held):
                single = batch
                continue
            if held is not None:
                yield held
            held = batch
        if held is not None:
            yield held if single is None else self._joined(held, single)
        self._given = number + 1

    def _first_held(self) -> int:
        """From which batch on each is held back until the next but one is there, as it costs memory that is near."""
        return 0 if self._given is None else self._given - 2

    def _joined(self, last: Batch, single: Batch) -> Batch:
        if [t.shape[1:] for t in tensors_of(tuple(last))] != [t.shape[1:] for t in tensors_of(tuple(single))]:
            raise DataError(
                f"{self.where}: the last batch is a single sample, which batch norm cannot take, and is of another "
                "shape than the batch before, so that it cannot join it; give the loader drop_last=True or another "
                "batch_size"
            )
        return Batch(*joined([tuple(last), tuple(single)]))

    def _check_end(self, count: int, samples: int) -> None:
        if not count:
            raise DataError(f"{self.where}: it gave no batch; give data with one sample or more")
        if self._ended is None:
            self._ended = count, samples
        if self._ended != (count, samples):
            batches, before = self._ended
            raise DataError(
                f"{self.where}: an epoch gave {counted(samples, 'sample')} in {batches_said(count)}, but one before "
                f"{counted(before, 'sample')} in {batches_said(batches)}; each time it is walked it must give as many"
            )

    def _raw(self, shuffle: Shuffle | None, epoch: int) -> Iterator[Any]:
        apart = Apart(seed_of(shuffle, epoch), generators_of(self.loader))
        with apart.used():
            set_epoch(self.loader, 0 if shuffle is None else epoch)
            found = iter(self.loader)
        quiet = self._draws_nothing_more()
        while True:
            with nullcontext() if quiet else apart.used():
                raw = next(found, _END)
            if raw is _END:
                return
            yield raw

    def _draws_nothing_more(self) -> bool:
        """Whether this process draws nothing once an epoch has begun: workers read, in an order known as a whole."""
        orders = RandomSampler, SequentialSampler
        workers, sampler = getattr(self.loader, "num_workers", 0), getattr(self.loader, "sampler", None)
        return workers > 0 and type(sampler) in orders and not generators_of(self.loader)

    def every(self, numbers: Sequence[int], of: int) -> EveryFew:
        """The batches whose number, modulo `of`, is one of `numbers`."""
        return EveryFew(self, numbers, of, self.where)


class IndexedLoader(LoaderSource):
    """A loader over a data set whose samples have numbers: parts of it are read by the loader's sampler and workers.

    An epoch of a part has, in the sampler's order, those of the samples that it draws which are in the part.
    """

    def __init__(self, loader: DataLoader[Any], where: str = "the loader") -> None:
        super().__init__(loader, where)
        self.dataset = DatasetSource(
            self.loader.dataset,
            workers=loader.num_workers,
            collate=self.loader.collate_fn,
            pin_memory=loader.pin_memory,
            where=where,
        )

    def __len__(self) -> int:
        """Samples of the data set; an epoch has fewer where the loader drops some."""
        return len(self.dataset)

    @property
    def whole(self) -> Indexed:
        """Itself."""
        return self

    @property
    def indices(self) -> torch.Tensor:
        """All samples, (n,)."""
        return self.dataset.indices

    def part(self, indices: torch.Tensor | Sequence[int]) -> LoaderPart:
        """Some of the samples, of the same data set."""
        return LoaderPart(self, of_part(self.indices, indices))

    def rows(self, indices: torch.Tensor | Sequence[int]) -> Batch:
        """Some of the samples, read in this process."""
        return self.dataset.rows(indices)

    def batch_count(self, size: int) -> int:
        """Batches of an epoch, of whatever size."""
        sampler = self.loader.batch_sampler
        if type(sampler) is not BatchSampler:
            return super().batch_count(size)
        drawn, own = len(self.loader.sampler), sampler.batch_size
        if sampler.drop_last:
            return drawn // own
        return max(1, -(-drawn // own) - self._ends_single())

    def _ends_single(self) -> bool:
        """Whether a last batch of a single sample joins the one before, where batches are cut off one order."""
        own = self.loader.batch_sampler.batch_size
        return not self.loader.batch_sampler.drop_last and len(self.loader.sampler) % own == 1 < own

    def _first_held(self) -> int:
        if type(self.loader.batch_sampler) is BatchSampler and not self._ends_single():
            return len(self.loader)
        return super()._first_held()


class LoaderPart(DatasetSource):
    """Some of the samples of a loader, in batches of its size and in the order of its sampler."""

    def __init__(self, whole: IndexedLoader, indices: torch.Tensor) -> None:
        self.__dict__.update(whole.dataset.__dict__)
        self.loader: Any = whole.loader
        self.worker_init = self.loader.worker_init_fn
        self._indices, self._whole = indices, whole

    def batch_count(self, size: int) -> int:
        """Batches of an epoch, of whatever size; about as many where the sampler draws some more often than others."""
        return len(self.plan(size, None, 0, 0))

    def plan(self, size: int, shuffle: Shuffle | None, epoch: int, start: int) -> list[torch.Tensor]:
        """Which samples of the data set stand in which batch of an epoch."""
        sampler: Any = self.loader.batch_sampler
        chosen = torch.zeros(len(self.dataset), dtype=torch.bool)
        chosen[self.indices] = True
        with Apart(seed_of(shuffle, epoch), generators_of(self.loader)).used():
            set_epoch(self.loader, 0 if shuffle is None else epoch)
            if type(sampler) is not BatchSampler:
                drawn = [torch.tensor(list(batch), dtype=torch.int64) for batch in sampler]
                return [batch[chosen[batch]] for batch in drawn if chosen[batch].any()][start:]
            order = torch.tensor(list(sampler.sampler), dtype=torch.int64)
        found = list(slices(order[chosen[order]], sampler.batch_size, 0))
        if sampler.drop_last and len(found) > 1 and len(found[-1]) < sampler.batch_size:
            del found[-1]
        return found[start:]


def _is_loader(given: object) -> TypeGuard[DataLoader[Any]]:
    return isinstance(given, DataLoader)


def check_loader(loader: DataLoader[Any], where: str) -> None:
    """Raise DataError for a setting of a loader by which a run that goes on would see other batches."""
    if loader.persistent_workers:
        raise DataError(
            f"{where}: its workers keep their random numbers from epoch to epoch (persistent_workers=True), so a run "
            "that goes on would see other augmentation; give it persistent_workers=False"
        )
    if loader.num_workers > 1 and not getattr(loader, "in_order", True):
        raise DataError(
            f"{where}: its batches come in whichever order they are ready (in_order=False), so no run could be "
            "repeated; give it in_order=True"
        )


def generators_of(loader: Iterable[Any]) -> list[torch.Generator]:
    """The generators that a loader and its samplers were given."""
    found = [getattr(holder, "generator", None) for holder in _drawing(loader)]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


def set_epoch(loader: Iterable[Any], epoch: int) -> None:
    """Tell a loader, its samplers and its data set the epoch, where they ask for it, as DistributedSampler does."""
    for holder in _drawing(loader):
        tell = getattr(holder, "set_epoch", None)
        if callable(tell):
            tell(epoch)


def _drawing(loader: Iterable[Any]) -> list[Any]:
    """A loader and those of its parts that may draw an order; anything else than a DataLoader has some or none."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    parts = [getattr(loader, name, None) for name in ("sampler", "dataset")]
    return list({id(p): p for p in (loader, batch_sampler, getattr(batch_sampler, "sampler", None), *parts)}.values())
