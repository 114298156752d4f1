"""What a rewrite does to tensors, as data, and its execution on numpy arrays and torch tensors.

An edit names a parameter key and says where each entry of the new tensor comes from. The same edits run on weights and,
by role, on everything that has a weight's shape (`growir.moments`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, assert_never

import numpy as np
from numpy.typing import NDArray

from growir.addresses import Address
from growir.errors import GrowirError, cut
from growir.ops import Param
from growir.params import storage
from growir.remap import Apart as Apart
from growir.remap import AxisMap as AxisMap
from growir.remap import Backend as Backend
from growir.remap import Fresh as Fresh
from growir.remap import Place as Place
from growir.remap import Remap as Remap
from growir.remap import mapped as mapped
from growir.remap import remapped

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Create:
    """A tensor that did not exist.

    Attributes:
        key: The tensor.
        param: It.
        fresh: What it starts as.
        place: What its numbers are called when they are given; the key if None.
    """

    key: str
    param: Param
    fresh: Fresh
    place: Address | None = None

    @property
    def address(self) -> Address:
        """What its numbers are called."""
        return self.place or Address(self.key)


@dataclass(frozen=True, slots=True)
class Drop:
    """A tensor that is gone."""

    key: str


@dataclass(frozen=True, slots=True)
class Rename:
    """A tensor whose owner is gone and that now belongs to its next user."""

    old: str
    new: str


@dataclass(frozen=True, slots=True, eq=False)
class Shift:
    """Numbers added to a tensor, entry by entry; what follows its gradient stays. `place` is as for `Create`."""

    key: str
    by: NDArray[Any]
    place: Address | None = None

    @property
    def address(self) -> Address:
        """What its numbers are called."""
        return self.place or Address(self.key)


@dataclass(frozen=True, slots=True, eq=False)
class Derive:
    """A tensor worked out from others, as they are at this point of the edits; optimizer state starts anew.

    Attributes:
        key: The tensor; it may exist already, and be a source.
        formula: A pure function of the backend and the sources. It uses only what numpy and torch share, operators,
            `reshape`, `sum(axis)` and the backend's own methods, so that both executors agree and autograd can follow.
        sources: Keys of the tensors the formula takes.
    """

    key: str
    formula: Callable[..., Any]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """A tensor that did not exist and starts as another one is, as do averages and masks of it.

    Attributes:
        key: The new tensor.
        source: The tensor that it starts as.
    """

    key: str
    source: str


@dataclass(frozen=True, slots=True)
class Pack:
    """Tensors that are gone and have become one, with all that lies beside them.

    Attributes:
        key: The new tensor. It is the first source's heir: it stands in the optimizer where that one did.
        sources: The old tensors, which lie in it one after the other along their first axis.
        shape: What it is then seen as; an axis of length 1 in front lets a `Remap` stack copies of it.
    """

    key: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]


Edit = Remap | Create | Drop | Rename | Shift | Derive | Copy | Pack


def within(edits: Sequence[Edit], k: int) -> list[Edit]:
    """The edits of a pass that is passes[k] of a sequence: what may be given is called "k/address"."""
    return [_within(edit, k) for edit in edits]


def _within(edit: Edit, k: int) -> Edit:
    match edit:
        case Create() | Shift():
            return replace(edit, place=edit.address.within(k))
        case Remap(places=places):
            return replace(edit, places=tuple(_place_within(each, k) for each in places))
        case _:
            return edit


def among(edits: Sequence[Edit], keys: Iterable[str]) -> list[Edit]:
    """The edits that can be done where only some tensors are at hand: those of these, and what is made of nothing."""
    known, found = set(keys), list[Edit]()
    for edit in edits:
        reads, gone, made = _touched(edit)
        done = known.issuperset(reads)
        known -= {*gone, *made}
        if done:
            known |= {*made}
            found.append(edit)
    return found


def _touched(edit: Edit) -> tuple[Iterable[str], Iterable[str], Iterable[str]]:
    """The tensors that an edit needs, those that are gone after it, and those that it gives."""
    match edit:
        case Create(key):
            return (), (), (key,)
        case Copy(key, source):
            return (source,), (), (key,)
        case Derive(key, _, sources):
            return sources, (), (key,)
        case Rename(old, new):
            return (old,), (old,), (new,)
        case Pack(key, sources):
            return sources, sources, (key,)
        case Drop(key):
            return (key,), (key,), ()
        case Remap(key) | Shift(key):
            return (key,), (), (key,)
        case _:
            assert_never(edit)


def apply_edits(
    edits: Sequence[Edit],
    tensors: Mapping[str, T],
    backend: Backend[T],
    dtype: np.dtype[Any],
    given: Mapping[str, T] | None = None,
) -> dict[str, T]:
    """The tensors after the edits; those that no edit names are shared, not copied.

    On torch the result is differentiable in `tensors` and in `given`, so an over-grown network is
    `functional_call(grown, apply_edits(edits, params, TORCH, dtype, {"fc1.weight": delta}), x)`.

    Args:
        edits: What to do.
        tensors: The tensors by key; none is changed.
        backend: The array library they belong to.
        dtype: The float dtype of tensors that come into being.
        given: By address (`growir.addresses`), the numbers of fresh positions, a created tensor or a shift, in place of
            the edits' own and of the same shape.

    Raises:
        GrowirError: Numbers are given for an address that is no such place, or of another shape.
    """
    given = given or {}
    out = dict(tensors)
    places: set[str] = set()

    def numbers(address: str, shape: tuple[int, ...]) -> T | None:
        if address not in given:
            return None
        if backend.shape(given[address]) != shape:
            found = backend.shape(given[address])
            raise GrowirError(f"{cut(address)}: its new numbers have shape {shape}, but {found} are given")
        places.add(address)
        return given[address]

    for edit in edits:
        match edit:
            case Remap(key):
                out[key] = remapped(edit, out[key], backend, numbers)
            case Create(key, param, fresh):
                made = numbers(edit.address, param.shape)
                if made is None:
                    made = backend.create(fresh.block(param.shape, key).astype(storage(param, dtype)))
                out[key] = made
            case Drop(key):
                del out[key]
            case Rename(old, new):
                out[new] = out.pop(old)
            case Shift(key, by):
                shift = numbers(edit.address, by.shape)
                out[key] = backend.add(out[key], by if shift is None else shift)
            case Derive(key, formula, sources):
                out[key] = formula(backend, *(out[source] for source in sources))
            case Copy(key, source):
                out[key] = backend.copy(out[source])
            case Pack(key, sources, shape):
                out[key] = backend.reshape(backend.join([out.pop(source) for source in sources]), shape)
            case _:
                assert_never(edit)
    if strange := sorted(given.keys() - places):
        raise GrowirError(f"{cut(strange[0])}: no edit has new numbers there that could be given")
    return out


def _place_within(place: Place, k: int) -> Place:
    makers = {axis: np.full(at.shape, k) for axis, at in place.at.items()}
    return replace(place, address=place.address.within(k), makers=makers)


class NumpyBackend:
    """Edits on numpy arrays."""

    def take(self, array: NDArray[Any], axis: int, index: NDArray[np.int64]) -> NDArray[Any]:
        return np.take(array, index, axis=axis)

    def scale(self, array: NDArray[Any], axis: int, factor: NDArray[np.float64]) -> NDArray[Any]:
        array *= factor.astype(array.dtype).reshape([-1 if k == axis else 1 for k in range(array.ndim)])
        return array

    def put(
        self, array: NDArray[Any], axis: int, index: NDArray[np.int64], block: NDArray[Any] | float
    ) -> NDArray[Any]:
        array[(slice(None),) * axis + (index,)] = block
        return array

    def add(self, array: NDArray[Any], block: NDArray[Any]) -> NDArray[Any]:
        total: NDArray[Any] = array + block.astype(array.dtype)
        return total

    def join(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(arrays)

    def reshape(self, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        return array.reshape(shape)

    def shape(self, array: NDArray[Any]) -> tuple[int, ...]:
        return array.shape

    def deviation(self, array: NDArray[Any]) -> float:
        return float(array.std(dtype=np.float64)) if array.size else 0.0

    def mean_along(self, array: NDArray[Any], axis: int) -> NDArray[Any]:
        mean: NDArray[Any] = array.mean(axis, dtype=np.float64, keepdims=True).astype(array.dtype)
        return mean

    def create(self, block: NDArray[Any]) -> NDArray[Any]:
        return block

    def copy(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.copy()

    def cast(self, block: NDArray[Any], array: NDArray[Any]) -> NDArray[Any]:
        return block.astype(array.dtype, copy=False)


NUMPY: Backend[NDArray[Any]] = NumpyBackend()
