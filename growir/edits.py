"""What a rewrite does to tensors, as data, and its execution on numpy arrays and torch tensors.

An edit names a parameter key and says where each entry of the new tensor comes from. The same edits run on weights and,
by role, on everything that has a weight's shape (`growir.moments`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, assert_never

import numpy as np
from numpy.typing import NDArray

from growir.errors import GrowirError, cut
from growir.ops import Init, Param
from growir.params import draw, storage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fresh:
    """Numbers that no old entry gives: an initialiser and the seed and step that key its draw, or given ones.

    With `mean`, fresh positions of an axis start as the mean of the old ones unless numbers are given.
    """

    init: Init
    seed: int = 0
    step: int = 0
    given: NDArray[Any] | None = None
    mean: bool = False

    def block(self, shape: tuple[int, ...], key: str) -> NDArray[Any]:
        """The numbers for a block of this shape, float64 unless given otherwise."""
        if self.given is not None:
            return self.given
        return draw(self.init, shape, seed=self.seed, step=self.step, key=key)


@dataclass(frozen=True, slots=True, eq=False)
class AxisMap:
    """Where the positions of one axis come from.

    Attributes:
        axis: The axis; axes that consume come after axis 0.
        index: For each new position the old one, or -1 for a fresh one. A grouped weight whose groups take different
            channels has one row for each group (and so have scale and moment); axis 0 falls into as many equal parts.
        scale: For each new position the factor on the weight, 1 where None.
        moment: For each new position the factor on the gradient, 1 where None.
        fresh: What fills fresh positions.
    """

    axis: int
    index: NDArray[np.int64]
    scale: NDArray[np.float64] | None
    moment: NDArray[np.float64] | None
    fresh: Fresh

    @property
    def new(self) -> NDArray[np.int64]:
        """The fresh positions, of a map without groups."""
        return np.flatnonzero(self.index < 0)

    def groups(self) -> list[AxisMap]:
        """One map for each group."""
        rows = range(len(self.index))
        scales = [None] * len(rows) if self.scale is None else list(self.scale)
        moments = [None] * len(rows) if self.moment is None else list(self.moment)
        return [AxisMap(self.axis, self.index[g], scales[g], moments[g], self.fresh) for g in rows]


@dataclass(frozen=True, slots=True, eq=False)
class Remap:
    """A tensor whose axes gather, scale, drop or gain positions; axes are done in order."""

    key: str
    axes: tuple[AxisMap, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Create:
    """A tensor that did not exist."""

    key: str
    param: Param
    fresh: Fresh


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
    """Numbers added to a tensor, entry by entry; what follows its gradient stays."""

    key: str
    by: NDArray[Any]


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


Edit = Remap | Create | Drop | Rename | Shift | Derive


class Backend(Protocol[T]):
    """The few array operations that edits need; one class per array library."""

    def take(self, array: T, axis: int, index: NDArray[np.int64]) -> T:
        """Gather along an axis into a new array."""
        ...

    def scale(self, array: T, axis: int, factor: NDArray[np.float64]) -> T:
        """Multiply along an axis, in the array's dtype; the argument may be reused."""
        ...

    def put(self, array: T, axis: int, index: NDArray[np.int64], block: T | NDArray[Any] | float) -> T:
        """Write a block along an axis, cast to the array's dtype; the argument may be reused."""
        ...

    def add(self, array: T, block: T | NDArray[Any]) -> T:
        """A new array with a block of the same shape added, in the array's dtype."""
        ...

    def join(self, arrays: Sequence[T]) -> T:
        """One array of several, one after the other along axis 0."""
        ...

    def shape(self, array: T) -> tuple[int, ...]:
        """Its extents."""
        ...

    def mean_along(self, array: T, axis: int) -> T:
        """The mean along an axis, which stays with extent 1; summed in float64, in the array's dtype."""
        ...

    def create(self, block: NDArray[Any]) -> T:
        """A new array with these numbers and their dtype."""
        ...


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
        given: By key, the numbers of a fresh block, a created tensor or a shift, in place of the edits' own and of the
            same shape.

    Raises:
        GrowirError: Numbers are given for a key that has no such place, or of another shape.
    """
    given = given or {}
    out = dict(tensors)
    places: set[str] = set()

    def numbers(key: str, shape: tuple[int, ...]) -> T | None:
        if key not in given:
            return None
        if backend.shape(given[key]) != shape:
            found = backend.shape(given[key])
            raise GrowirError(f"{cut(key)}: its new numbers have shape {shape}, but {found} are given")
        places.add(key)
        return given[key]

    for edit in edits:
        match edit:
            case Remap(key):
                out[key] = _remap(edit, out[key], backend, numbers)
            case Create(key, param, fresh):
                made = numbers(key, param.shape)
                if made is None:
                    made = backend.create(fresh.block(param.shape, key).astype(storage(param, dtype)))
                out[key] = made
            case Drop(key):
                del out[key]
            case Rename(old, new):
                out[new] = out.pop(old)
            case Shift(key, by):
                shift = numbers(key, by.shape)
                out[key] = backend.add(out[key], by if shift is None else shift)
            case Derive(key, formula, sources):
                out[key] = formula(backend, *(out[source] for source in sources))
            case _:
                assert_never(edit)
    if strange := sorted(given.keys() - places):
        raise GrowirError(f"{cut(strange[0])}: no edit has new numbers there that could be given")
    return out


def mapped(array: T, part: AxisMap, backend: Backend[T], move: Callable[[T, AxisMap], T]) -> T:
    """One axis of a tensor moved, group by group where the map has groups."""
    if part.index.ndim == 1:
        return move(array, part)
    size = backend.shape(array)[0] // len(part.index)
    parts = [
        move(backend.take(array, 0, np.arange(g * size, (g + 1) * size)), own) for g, own in enumerate(part.groups())
    ]
    return backend.join(parts)


def _remap(edit: Remap, array: T, backend: Backend[T], numbers: Callable[[str, tuple[int, ...]], T | None]) -> T:
    def move(array: T, part: AxisMap) -> T:
        old = array
        array = backend.take(array, part.axis, part.index.clip(0))
        if part.scale is not None:
            array = backend.scale(array, part.axis, part.scale)
        new = part.new
        if len(new):
            shape = list(backend.shape(array))
            shape[part.axis] = len(new)
            block: T | NDArray[Any] | None = numbers(edit.key, tuple(shape))
            if block is None and part.fresh.mean and part.fresh.given is None:
                block = backend.take(backend.mean_along(old, part.axis), part.axis, np.zeros(len(new), np.int64))
            if block is None:
                block = part.fresh.block(tuple(shape), edit.key)
            array = backend.put(array, part.axis, new, block)
        return array

    for part in edit.axes:
        array = mapped(array, part, backend, move)
    return array


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

    def shape(self, array: NDArray[Any]) -> tuple[int, ...]:
        return array.shape

    def mean_along(self, array: NDArray[Any], axis: int) -> NDArray[Any]:
        mean: NDArray[Any] = array.mean(axis, dtype=np.float64, keepdims=True).astype(array.dtype)
        return mean

    def create(self, block: NDArray[Any]) -> NDArray[Any]:
        return block


NUMPY: Backend[NDArray[Any]] = NumpyBackend()
