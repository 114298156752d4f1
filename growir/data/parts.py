"""The three parts of a run's data: what is trained on, what selects, and what is tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from growir.data.loaders import loader_source
from growir.data.mapstyle import DatasetSource
from growir.data.memory import ArraySource
from growir.data.mixing import Mixed
from growir.data.nests import is_row
from growir.data.source import Indexed, Source, Stream
from growir.data.streams import EveryFew
from growir.errors import DataError

FINEST = 1000  # a share is read as a fraction of whole numbers up to this, so that 0.3333333 is a third


@dataclass(frozen=True, slots=True)
class Data:
    """The data of a run.

    Attributes:
        train: What is trained on; until `cut`, also what `select` will be taken from.
        select: What decides about growth, and is not trained on before the end; None until `cut`.
        test: What is read once, at the end; None where nothing is tested on.
        share: Of `train` that `cut` makes the selection part of; None leaves it to the run.
    """

    train: Source
    select: Source | None
    test: Source | None
    share: float | None = None

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share < 1:
            raise DataError(
                f"select={self.share:g}: the share of the training data that selects lies between 0 and 1, such as "
                "0.1; give one, or data of its own"
            )

    @classmethod
    def from_arrays(
        cls,
        x_train: Any,
        y_train: Any,
        *,
        select: float | tuple[Any, Any] | None = None,
        test: tuple[Any, Any] | None = None,
    ) -> Data:
        """Data in memory. Inputs are not copied.

        Args:
            x_train: An array (n, ...), a tuple of one for each input of the network, or a mapping by their names; of
                numpy or torch.
            y_train: An array (n, ...), or tuples and mappings of them, as the objective takes it.
            select: A share of these samples, drawn by the run's seed, or inputs and targets of its own; None leaves the
                share to the run.
            test: Inputs and targets to test on.

        Raises:
            DataError: Arrays hold no samples or no numbers, are not as long as each other, or the share is none.
        """
        share, own = _asked(select)
        return cls(
            ArraySource(x_train, y_train, "the training arrays"),
            None if own is None else ArraySource(*_pair(own, "select"), "the selection arrays"),
            None if test is None else ArraySource(*_pair(test, "test"), "the test arrays"),
            share,
        )

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        *,
        select: Any = None,
        test: Any = None,
        workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
    ) -> Data:
        """Data from map-style data sets, whose samples are (inputs, target).

        Args:
            dataset: What is trained on: has `__len__` and `__getitem__`. Its augmentation is its own.
            select: A share of its samples, drawn by the run's seed, or a data set of its own, such as the same one
                without augmentation; None leaves the share to the run.
            test: A data set to test on.
            workers: Processes that read samples.
            collate: Makes a batch, (inputs, target), of a list of samples; torch's default_collate if None.
            pin_memory: Whether batches go to memory from which a GPU copies by itself.

        Raises:
            DataError: One is no such data set, or has no samples, or the share is none.
        """
        share, own = _asked(select)

        def source(of: Any, where: str) -> Source:
            return DatasetSource(of, workers=workers, collate=collate, pin_memory=pin_memory, where=where)

        return cls(
            source(dataset, "the training data"),
            None if own is None else source(own, "the selection data"),
            None if test is None else source(test, "the test data"),
            share,
        )

    @classmethod
    def from_loaders(cls, train: Iterable[Any], *, select: Any = None, test: Iterable[Any] | None = None) -> Data:
        """Data from DataLoaders, or what else gives batches, (inputs, target), each time it is walked.

        Batches are of the loader's own size, in its own order.

        Args:
            train: What is trained on.
            select: A share of it, or a loader of its own; None leaves the share to the run. What reads samples by
                number is cut by sample, other loaders by the batch.
            test: What is tested on.

        Raises:
            DataError: One cannot be walked again, or has no samples, or the share is none.
        """
        share, own = _asked(select)
        return cls(
            loader_source(train, "the training loader"),
            None if own is None else loader_source(own, "the selection loader"),
            None if test is None else loader_source(test, "the test loader"),
            share,
        )

    def cut(self, seed: int, share: float = 1 / 3) -> Data:
        """The same with a selection part, cut off `train` by number where there is none yet.

        Of an indexed source it is drawn by the seed: the last samples of an order, of which the others, an even number,
        are trained on. Of a stream it is the same batches of every few.

        Args:
            seed: Of the draw.
            share: Of the samples, where the data says none itself.

        Raises:
            DataError: A part would be empty, or the source cannot be cut.
        """
        if self.select is not None:
            return self
        share = share if self.share is None else self.share
        part = Fraction(share).limit_denominator(FINEST)
        if not 0 < part < 1:
            raise DataError(
                f"select={share:g}: the share of the training data that selects lies between 0 and 1, such as 0.1"
            )
        if isinstance(self.train, Indexed):
            train, select = _by_index(self.train, seed, part)
        elif isinstance(self.train, Stream):
            before = part.denominator - part.numerator
            train = self.train.every(range(before), part.denominator)
            select = self.train.every(range(before, part.denominator), part.denominator)
        else:
            raise DataError(
                f"a source of {type(self.train).__name__} cannot be cut: it has neither `part` nor `every`; give "
                "select= data of its own"
            )
        return replace(self, train=train, select=select)

    def everything(self) -> Source:
        """What is trained on and what selects, for the last fit.

        Samples are in the order of the whole where both are parts of one source.
        """
        train, select = self.train, self.select
        if select is None:
            return train
        if isinstance(train, Indexed) and isinstance(select, Indexed) and train.whole is select.whole:
            indices = torch.from_numpy(np.unique(torch.cat([train.indices, select.indices]).numpy()))  # and sorted
            return train.whole if len(indices) == len(train.whole) else train.whole.part(indices)
        if isinstance(train, EveryFew) and isinstance(select, EveryFew):
            whole = train.with_others(select)
            if whole is not None:
                return whole
        return Mixed(train, select)


def halves(source: Source) -> tuple[Source, Source]:
    """A source as two halves: its first samples and its last, or every other batch of a stream.

    Raises:
        DataError: The source cannot be cut.
    """
    if isinstance(source, Indexed):
        count, half = len(source), len(source) // 2
        return source.part(torch.arange(half)), source.part(torch.arange(half, count))
    if isinstance(source, Stream):
        return source.every((0,), 2), source.every((1,), 2)
    raise DataError(
        f"a source of {type(source).__name__} cannot be cut into halves: it has neither `part` nor `every`; give it "
        "one of them, or train on arrays, a data set or a loader"
    )


def _by_index(source: Indexed, seed: int, share: Fraction) -> tuple[Source, Source]:
    count = len(source)
    # Even, so that what is trained on has two equal halves.
    kept = 2 * int(count * (1 - share) / 2)
    if not 0 < kept < count:
        raise DataError(
            f"select={float(share):g}: of {count} samples that leaves {kept} to train on and {count - kept} to select "
            "by; give more samples, another share, or a selection part of its own"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return source.part(order[:kept]), source.part(order[kept:])


def _asked(select: Any) -> tuple[float | None, Any]:
    """What `select` says: a share, or data of its own."""
    return (float(select), None) if isinstance(select, int | float) else (None, select)


def _pair(given: Any, name: str) -> tuple[Any, Any]:
    if is_row(given) and len(given) == 2:
        return given[0], given[1]
    raise DataError(f"{name}= takes (inputs, target), but is of {type(given).__name__}; give a pair of arrays")
