"""Sources over data sets and loaders: the same bits however many workers, and from wherever a run goes on."""

from __future__ import annotations

import random
import re
import weakref
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    WeightedRandomSampler,
)

from growir.data import Data
from growir.data.loaders import IndexedLoader, LoaderPart, LoaderSource, loader_source
from growir.data.mapstyle import DatasetSource
from growir.data.nests import tensors_of
from growir.data.parts import halves
from growir.data.shuffling import Shuffle
from growir.data.source import Indexed, Source, Stream
from growir.data.streams import EveryFew
from growir.errors import DataError


class Noisy(Dataset[Any]):
    """Samples told apart by their target, each with noise from all three generators."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = [float(torch.rand(())), random.random(), float(np.random.rand())]  # noqa: NPY002  # as data sets do
        return torch.tensor(noise), index


class Flow(IterableDataset[Any]):
    """Samples one after the other, of which nobody knows how many there are."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        for index in range(self.count):
            yield torch.rand(2), index


class Mixing(IterableDataset[Any]):
    """Samples in an order that is drawn anew each time."""

    def __iter__(self) -> Iterator[Any]:
        for index in torch.randperm(24).tolist():
            yield torch.ones(2), index


class Growing:
    """A loader that gives a batch more each time."""

    def __init__(self) -> None:
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        self.count += 1
        return iter([(torch.zeros(2, 1), torch.zeros(2))] * self.count)


def globals_state() -> list[Any]:
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002  # the global one is the matter
    return [torch.get_rng_state().tolist(), numpy["state"]["key"].tolist(), numpy["state"]["pos"], random.getstate()]


def walk(source: Source, shuffle: Shuffle | None, epoch: int = 0, start: int = 0, size: int = 4) -> list[Any]:
    """Batches as lists; the process draws between them, and its own draws must go on undisturbed."""
    found: list[Any] = []
    for batch in source.batches(size, shuffle, epoch, start):
        random.seed(7)
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002  # as training code may
        found.append([*(value.tolist() for value in tensors_of(batch.inputs)), batch.target.tolist()])
    return found


def indexed(loader: DataLoader[Any]) -> IndexedLoader:
    source = loader_source(loader)
    assert isinstance(source, IndexedLoader)
    return source


def samples(walked: list[Any]) -> list[int]:
    return list(chain(*(batch[-1] for batch in walked)))


def weighted(count: int, generator: torch.Generator | None = None) -> Any:
    return WeightedRandomSampler([1.0] * (count - 1) + [20.0], count, generator=generator)


SOURCES: dict[str, Callable[[], Source]] = {
    "data set": lambda: DatasetSource(Noisy(13)),
    "part of a data set": lambda: DatasetSource(Noisy(20)).part(torch.arange(12, 0, -1)),
    "shuffled loader": lambda: loader_source(DataLoader(Noisy(13), batch_size=4, shuffle=True)),
    "loader in order": lambda: loader_source(DataLoader(Noisy(13), batch_size=4)),
    "loader that drops": lambda: loader_source(DataLoader(Noisy(14), batch_size=4, shuffle=True, drop_last=True)),
    "loader with a generator": lambda: loader_source(
        DataLoader(Noisy(13), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3))
    ),
    "loader with weights": lambda: loader_source(
        DataLoader(Noisy(13), batch_size=4, sampler=weighted(13, torch.Generator()))
    ),
    "loader with batches of its own": lambda: loader_source(
        DataLoader(Noisy(13), batch_sampler=[[0, 5, 2], [7, 9], [1, 3, 4, 6]])
    ),
    "part of a shuffled loader": lambda: indexed(DataLoader(Noisy(20), batch_size=4, shuffle=True)).part(
        torch.arange(13)
    ),
    "part of a loader with weights": lambda: indexed(DataLoader(Noisy(13), batch_size=4, sampler=weighted(13))).part(
        torch.arange(5, 13)
    ),
    "part of batches": lambda: indexed(DataLoader(Noisy(13), batch_sampler=[[0, 5, 2], [7, 9], [1, 3, 4, 6]])).part(
        [0, 2, 3, 4, 12]
    ),
    "stream": lambda: loader_source(DataLoader(Flow(13), batch_size=4)),
    "part of a stream": lambda: loader_source(DataLoader(Flow(23), batch_size=4)).every((0, 2), 3),
    "list of batches": lambda: loader_source(
        [(torch.ones(3, 1), torch.arange(3)), (torch.ones(1, 1), torch.arange(1))]
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_batches_are_a_function_of_the_key_the_epoch_and_the_start(name: str) -> None:
    source = SOURCES[name]()
    for key in ((3, 1), None):
        for epoch in range(2):
            shuffle = None if key is None else Shuffle(key)
            whole = walk(source, shuffle, epoch)
            assert len(whole) > 0
            assert "weights" in name or len(whole) == source.batch_count(4)
            for start in range(len(whole) + 1):
                assert walk(SOURCES[name](), shuffle, epoch, start) == whole[start:]


@pytest.mark.parametrize("name", [name for name in SOURCES if "list" not in name])
def test_the_process_draws_as_if_nothing_had_been_read(name: str) -> None:
    source = SOURCES[name]()
    before = globals_state()
    for _ in source.batches(4, Shuffle((1,)), 1):
        assert globals_state() == before
    len(source)
    if isinstance(source, Indexed):
        source.rows(torch.tensor([0, 1]))
    assert globals_state() == before


def test_a_normal_number_drawn_ahead_is_kept() -> None:
    np.random.seed(0)  # noqa: NPY002  # the global one is the matter
    expected = np.random.randn(4).tolist()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    first = np.random.randn()  # noqa: NPY002
    batches = loader_source(DataLoader(Noisy(4), batch_size=2)).batches(2, None)
    next(batches)
    assert [first, *np.random.randn(3)] == expected  # noqa: NPY002


@pytest.mark.parametrize("name", ["data set", "part of a data set", "part of a shuffled loader", "shuffled loader"])
def test_epochs_and_keys_draw_anew_and_no_shuffle_the_same(name: str) -> None:
    source = SOURCES[name]()
    noise = [walk(source, Shuffle(key), epoch) for key in ((1,), (2,)) for epoch in (0, 1)]
    assert all(a != b for k, a in enumerate(noise) for b in noise[:k])
    assert walk(source, None, 0) == walk(source, None, 1)


@pytest.mark.parametrize("name", ["data set", "part of a shuffled loader"])
def test_the_number_of_workers_changes_nothing(name: str) -> None:
    def source(workers: int) -> Source:
        if name == "data set":
            return DatasetSource(Noisy(13), workers=workers)
        return indexed(DataLoader(Noisy(20), batch_size=4, shuffle=True, num_workers=workers)).part(range(13))

    expected = walk(source(0), Shuffle((5,)), 1)
    assert walk(source(2), Shuffle((5,)), 1) == expected
    assert walk(source(2), Shuffle((5,)), 1, 2) == expected[2:]


@pytest.mark.parametrize("kind", [Noisy, Flow])
def test_a_loader_with_workers_goes_on_as_it_would_have(kind: type[Any]) -> None:
    source = loader_source(DataLoader(kind(9), batch_size=2, num_workers=2, shuffle=kind is Noisy or None))
    whole = walk(source, Shuffle((5,)), 1)
    assert walk(source, Shuffle((5,)), 1) == whole
    assert walk(source, Shuffle((5,)), 1, 3) == whole[3:]
    assert walk(source, Shuffle((6,)), 1) != whole


def test_a_sample_s_noise_is_its_own() -> None:
    of = DatasetSource(Noisy(13))
    noise = {index: x for batch in walk(of, Shuffle((1,))) for x, index in zip(*batch, strict=True)}
    part = of.part([8, 3, 5])
    found = {index: x for batch in walk(part, Shuffle((1,))) for x, index in zip(*batch, strict=True)}
    assert found == {index: noise[index] for index in (8, 3, 5)}


@given(st.integers(2, 20), st.lists(st.integers(0, 19), min_size=1, max_size=12), st.booleans())
def test_parts_and_rows_agree(count: int, chosen: list[int], of_loader: bool) -> None:
    chosen = [k % count for k in chosen]
    dataset = Noisy(count)
    of: Any = loader_source(DataLoader(dataset, batch_size=3)) if of_loader else DatasetSource(dataset)
    part = of.part(torch.tensor(chosen))
    assert part.whole is of
    assert part.indices.tolist() == chosen
    assert len(part) == len(chosen)
    rows = part.rows(torch.arange(len(chosen)))
    assert rows.target.tolist() == chosen
    assert torch.equal(rows.inputs[0], of.rows(chosen).inputs[0])
    inner = part.part([len(chosen) - 1])
    assert inner.indices.tolist() == [chosen[-1]]
    assert torch.equal(inner.rows([0]).inputs[0], rows.inputs[0][-1:])


@given(st.integers(1, 30), st.integers(1, 6), st.booleans())
def test_a_loader_s_batches_are_counted_without_reading(count: int, size: int, drops: bool) -> None:
    loader = DataLoader(Noisy(count), batch_size=size, shuffle=True, drop_last=drops and count >= size)
    source = loader_source(loader)
    assert isinstance(source, IndexedLoader)
    assert source.batch_count(99) == len(walk(source, None))


def test_a_last_sample_joins_the_batch_before() -> None:
    source = loader_source(DataLoader(Noisy(9), batch_size=4))
    assert [batch[-1] for batch in walk(source, None)] == [[0, 1, 2, 3], [4, 5, 6, 7, 8]]
    singles = [(torch.zeros(n, 1), torch.full((n,), n)) for n in (2, 1, 3, 1)]
    assert [batch[-1] for batch in walk(loader_source(singles), None)] == [[2, 2], [1], [3, 3, 3, 1]]
    one = loader_source(DataLoader(Noisy(3), batch_size=1))
    assert [batch[-1] for batch in walk(one, None)] == [[0], [1], [2]]


def test_a_loader_keeps_its_order_and_its_sampler_its_frequencies() -> None:
    loader = DataLoader(Noisy(13), batch_size=4, sampler=weighted(13))
    part = indexed(loader).part(torch.arange(6, 13))
    drawn = samples([batch for epoch in range(20) for batch in walk(part, Shuffle((1,)), epoch)])
    assert set(drawn) <= set(range(6, 13))
    assert drawn.count(12) > len(drawn) / 2
    in_order = indexed(DataLoader(Noisy(13), batch_size=4))
    assert samples(walk(in_order.part([5, 2, 9]), Shuffle((1,)))) == [2, 5, 9]


class Epochs(SequentialSampler):
    """A sampler that asks for the epoch, as DistributedSampler does."""

    told: int | None = None

    def set_epoch(self, epoch: int) -> None:
        self.told = epoch


def test_a_sampler_hears_the_epoch() -> None:
    sampler = Epochs(Noisy(5))
    source = indexed(DataLoader(Noisy(5), batch_size=2, sampler=sampler))
    for of in (source, source.part([1, 2])):
        walk(of, Shuffle((1,)), 3)
        assert sampler.told == 3
        walk(of, None, 3)
        assert sampler.told == 0


def test_kinds_of_loaders() -> None:
    indexed = loader_source(DataLoader(Noisy(5)))
    assert isinstance(indexed, Indexed)
    assert isinstance(indexed.part(torch.tensor([0])), LoaderPart)
    for loader in (DataLoader(Flow(5)), [(torch.ones(1), torch.ones(1))], DataLoader(Noisy(5), batch_size=None)):
        stream = loader_source(loader)
        assert type(stream) is LoaderSource
        assert isinstance(stream, Stream)
        assert not isinstance(stream, Indexed)


# -- the three parts ---------------------------------------------------------------------------------------------------


def test_three_parts_of_every_kind_of_data() -> None:
    kinds: dict[str, Data] = {
        "data set": Data.from_dataset(Noisy(60)),
        "loader": Data.from_loaders(DataLoader(Noisy(60), batch_size=4, shuffle=True)),
        "stream": Data.from_loaders(DataLoader(Flow(60), batch_size=4)),
        "list": Data.from_loaders([(torch.ones(4, 1), torch.arange(4 * k, 4 * k + 4)) for k in range(15)]),
    }
    for name, data in kinds.items():
        cut = data.cut(0)
        assert cut.select is not None
        parts = [*halves(cut.train), cut.select]
        for epoch in range(2):
            found = [samples(walk(part, Shuffle((1,)), epoch)) for part in parts]
            assert [len(part) for part in found] == [20, 20, 20], name
            assert [len(part) for part in parts] == [20, 20, 20], name
            assert sorted(chain(*found)) == list(range(60)), name
        assert cut.everything() is data.train, name


def test_parts_of_a_stream_that_shuffles_stay_apart() -> None:
    cut = Data.from_loaders(DataLoader(Mixing(), batch_size=4)).cut(0)
    assert cut.select is not None
    apart = [set(samples(walk(part, Shuffle((k,)), k))) for k, part in enumerate([*halves(cut.train), cut.select])]
    assert [len(part) for part in apart] == [8, 8, 8]
    assert set.union(*apart) == set(range(24))
    assert samples(walk(cut.everything(), Shuffle((1,)), 0)) != samples(walk(cut.everything(), Shuffle((1,)), 1))


class Counted:
    """A loader that knows how many of its batches are still there."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.given: list[weakref.ref[torch.Tensor]] = []

    def __iter__(self) -> Iterator[Any]:
        for k in range(self.count):
            x = torch.full((2, 1), k)
            self.given.append(weakref.ref(x))
            yield x, x[:, 0]

    def alive(self) -> int:
        return sum(reference() is not None for reference in self.given)


@pytest.mark.parametrize("part", ["whole", "every other", "mixed"])
def test_a_stream_is_never_in_memory_as_a_whole(part: str) -> None:
    loader = Counted(40)
    source: Source = loader_source(loader)
    if part == "every other":
        source, _ = halves(source)
    elif part == "mixed":
        source = Data(source, loader_source(Counted(3)), None).everything()
    most = 0
    for _ in range(2):
        for _batch in source.batches(2, Shuffle((1,))):
            most = max(most, loader.alive())
    assert len(source) >= 40
    assert 1 <= most <= 3


def test_a_share_of_a_stream() -> None:
    cut = Data.from_loaders([(torch.ones(2, 1), torch.full((2,), k)) for k in range(23)], select=0.1).cut(0)
    assert cut.select is not None
    assert samples(walk(cut.select, None)) == [9, 9, 19, 19]
    assert cut.select.batch_count(5) == 2
    assert cut.train.batch_count(5) == 21


def test_parts_of_other_streams_are_mixed() -> None:
    first, second = (LoaderSource([(torch.ones(1), torch.ones(1))] * 4) for _ in range(2))
    whole = Data(first.every((0,), 2), second.every((1,), 2), None).everything()
    assert len(walk(whole, None)) == 4
    assert Data(first.every((0,), 2), first.every((1,), 3), None).everything() is not first


def test_own_data_to_choose_and_test_on() -> None:
    data = Data.from_dataset(Noisy(8), select=Noisy(5), test=Noisy(3), workers=0, collate=None)
    loaders = Data.from_loaders(DataLoader(Noisy(8)), select=DataLoader(Noisy(5)), test=DataLoader(Flow(3)))
    for found in (data, loaders):
        assert found.select is not None
        assert found.test is not None
        assert (len(found.train), len(found.select), len(found.test)) == (8, 5, 3)
        assert found.cut(0) is found
        assert sorted(samples(walk(found.everything(), Shuffle((1,))))) == sorted([*range(8), *range(5)])


def test_collate_functions_are_the_user_s() -> None:
    def collate(found: list[Any]) -> Any:
        return {"noise": torch.stack([x for x, _ in found])}, {"index": torch.tensor([k for _, k in found])}

    for source in (DatasetSource(Noisy(5), collate=collate), loader_source(DataLoader(Noisy(5), collate_fn=collate))):
        batch = next(source.batches(3, None))
        assert isinstance(batch.inputs, dict)
        assert list(batch.inputs) == ["noise"]
        assert batch.target["index"].tolist()[0] == 0


# -- what is refused ---------------------------------------------------------------------------------------------------


def refused(says: str, make: Callable[[], object]) -> None:
    with pytest.raises(DataError, match=re.escape(says)):
        make()


def test_what_is_no_data_set() -> None:
    refused(
        "the data set: Flow has no samples by number (__getitem__ and __len__); give a loader over it to",
        lambda: DatasetSource(Flow(3)),
    )
    refused("the training data: int has no samples by number", lambda: Data.from_dataset(3))
    refused(
        "the selection data: there are no samples in it; give one or more",
        lambda: Data.from_dataset(Noisy(3), select=Noisy(0)),
    )


def test_what_cannot_be_walked_again() -> None:
    refused(
        "the training loader: generator cannot be walked again for each epoch; give a DataLoader",
        lambda: Data.from_loaders(x for x in [1]),
    )
    refused("the test loader: int cannot be walked again", lambda: Data.from_loaders([1], test=3))  # type: ignore[arg-type]
    refused(
        "the loader: its workers keep their random numbers from epoch to epoch (persistent_workers=True)",
        lambda: loader_source(DataLoader(Noisy(3), num_workers=1, persistent_workers=True)),
    )
    refused(
        "the loader: its batches come in whichever order they are ready (in_order=False)",
        lambda: loader_source(DataLoader(Noisy(3), num_workers=2, in_order=False)),
    )


def test_nothing_in_a_loader() -> None:
    says = "the loader: it gave no batch; give data with one sample or more"
    refused(says, lambda: walk(loader_source([]), None))
    refused(says, lambda: walk(loader_source(DataLoader(Flow(0))), None))


def test_a_loader_that_ends_differently() -> None:
    source = loader_source(Growing())
    assert len(walk(source, None)) == 1
    refused(
        "the loader: an epoch gave 4 samples in 2 batches, but one before 2 samples in 1 batch; each time",
        lambda: walk(source, None),
    )


def test_a_stream_too_short_to_be_cut() -> None:
    cut = Data.from_loaders([(torch.ones(4, 1), torch.ones(4))]).cut(0)
    select = cut.select
    assert isinstance(select, EveryFew)
    refused(
        "the training loader: it has 1 batch, too few to be cut by the batch; make its batches smaller",
        lambda: walk(select, None),
    )


def test_a_last_sample_of_another_shape() -> None:
    ragged = [(torch.zeros(2, 5), torch.zeros(2)), (torch.zeros(1, 4), torch.zeros(1))]
    refused(
        "the loader: the last batch is a single sample, which batch norm cannot take, and is of another shape",
        lambda: walk(loader_source(ragged), None),
    )


NO_PAIRS: dict[str, tuple[Any, str]] = {
    "a mapping": (
        {"ids": torch.ones(2), "labels": torch.ones(2)},
        "a batch is a mapping of ids, labels, but (inputs, target) is needed; return a pair",
    ),
    "a tensor": (torch.ones(2), "a batch is of Tensor, but (inputs, target) is needed"),
    "three": (
        (torch.ones(2),) * 3,
        "a batch has 3 parts, but (inputs, target) is needed; put several inputs into a tuple",
    ),
    "words": ((["a", "b"], torch.ones(2)), "the inputs of a batch are a list of str, str, but a tensor is needed"),
    "no inputs": (({}, torch.ones(2)), "the inputs of a batch are a mapping of nothing, but a tensor is needed"),
    "a nest": (
        ({"a": (torch.ones(2),)}, torch.ones(2)),
        "the inputs of a batch are a mapping of a: tuple, but a tensor is",
    ),
    "a single sample": (
        (torch.tensor(1.0), torch.ones(2)),
        "the inputs of a batch are of Tensor, but a tensor is needed",
    ),
    "None": ((None, torch.ones(2)), "the inputs of a batch are of NoneType, but a tensor is needed"),
}


@pytest.mark.parametrize("name", NO_PAIRS)
def test_what_is_no_pair(name: str) -> None:
    batch, says = NO_PAIRS[name]
    refused(f"the loader: {says}", lambda: walk(loader_source([batch]), None))


def test_pairs_of_every_kind() -> None:
    a, b = torch.ones(2, 1), np.ones((2, 1), np.float32)
    for given_inputs, kind in ((a, tuple), (b, tuple), ((a, b), tuple), ([a, b], tuple), ({"p": a, "q": b}, dict)):
        batch = next(loader_source([[given_inputs, (b, {"w": a})]]).batches(1, None))
        assert isinstance(batch.inputs, kind)
        assert len(batch) == 2
        assert isinstance(batch.target[0], torch.Tensor)
