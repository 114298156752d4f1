"""Tensors whose axes gather, scale, drop or gain positions, and the blocks of numbers for what they gain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from growir.addresses import Address
from growir.ops import Init, Normal
from growir.params import draw, spread

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fresh:
    """Numbers that no old entry gives: an initialiser and the seed and step that key its draw, or given ones.

    Attributes:
        init: The initialiser.
        seed: Keys the draw, with `step` and the parameter.
        step: See there.
        given: Numbers in place of a draw.
        mean: Whether fresh positions of an axis start as the mean of the old ones unless numbers are given.
        like: Whether what is drawn is scaled to the deviation of the tensor before, where both have one.
    """

    init: Init
    seed: int = 0
    step: int = 0
    given: NDArray[Any] | None = None
    mean: bool = False
    like: bool = False

    def block(self, shape: tuple[int, ...], key: str) -> NDArray[Any]:
        """The numbers for a block of this shape, float64 unless given otherwise."""
        if self.given is not None:
            return self.given
        return draw(self.init, shape, seed=self.seed, step=self.step, key=key)

    def like_old(self, shape: tuple[int, ...], key: str, deviation: float) -> NDArray[Any]:
        """The same with a draw that has the deviation of the old tensor, if it has any at all."""
        block, own = self.block(shape, key), spread(self.init)
        return block * (deviation / own) if self.given is None and own and deviation else block


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """Numbers that keep copies apart where they are read, and that sum to zero over the copies of each position.

    A position w of a weight that is summed over, and whose k copies have one value x, gives the sum of (w / k + e_i) x,
    which is w x whatever the e_i are. With k = 2 these are e and -e.

    Attributes:
        by: For each new position the deviation of these numbers, in deviations of the tensor before; 0 for none.
        init: What the tensor starts as: its deviation counts where the tensor itself has none.
        seed: Keys the draw, with `step`, the parameter and the axis.
        step: See there.
    """

    by: NDArray[np.float64]
    init: Init
    seed: int = 0
    step: int = 0

    def block(self, shape: tuple[int, ...], axis: int, index: NDArray[np.int64], key: str) -> NDArray[np.float64]:
        """The numbers for a tensor of this shape and deviation 1, one of whose axes took these old positions."""
        drawn = draw(Normal(1.0), shape, seed=self.seed, step=self.step, key=f"{key}/apart/{axis}")
        block = np.moveaxis(drawn, axis, 0)
        order = np.argsort(index, kind="stable")
        _, starts, counts = np.unique(index[order], return_index=True, return_counts=True)
        sums = np.add.reduceat(block[order], starts, axis=0)
        each = np.repeat(np.arange(len(starts)), counts)[np.argsort(order, kind="stable")]
        many = counts[each]
        # k numbers less their mean have k - 1 parts in k of their variance.
        factor = self.by * np.sqrt(many / np.maximum(many - 1, 1)) * ((many > 1) & (index >= 0))
        wide = (-1,) + (1,) * (block.ndim - 1)
        block -= sums[each] / many.reshape(wide)
        block *= factor.reshape(wide)
        return drawn

    def unit(self, deviation: float) -> float:
        """What the numbers of `block` count, for a tensor of this deviation."""
        return deviation or spread(self.init)


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
        apart: What keeps copies apart, of a map without groups; None where nothing does.
    """

    axis: int
    index: NDArray[np.int64]
    scale: NDArray[np.float64] | None
    moment: NDArray[np.float64] | None
    fresh: Fresh
    apart: Apart | None = None

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
class Place:
    """Fresh positions of a remapped tensor that numbers may be given for.

    The numbers have the extents of the tensor *before* the rewrite, but along the axes where the place lies those of
    its own positions: `shape`. Along the other axes they go where old entries go. Take a weight of 4 rows and 3 columns
    that gets 2 rows and 1 column: the new rows are (2, 3), the new column is (4, 1), and where they meet is (2, 1).

    Attributes:
        address: What it is called.
        shape: Of the numbers.
        at: For each axis where it lies the new positions; a row for each group where the axis's map has groups.
        given: The numbers, where the pass has some.
        makers: For each of these positions which pass of a sequence makes it, by its place; 0 outside of sequences.
        strides: And the how many-th of that pass's growth strides it belongs to, the smallest growths its space has.
        partners: Of a split, for each axis the position of each pair's other unit: the numbers are added at `at`, and
            taken away there.
    """

    address: Address
    shape: tuple[int, ...]
    at: Mapping[int, NDArray[np.int64]]
    given: NDArray[Any] | None = None
    makers: Mapping[int, NDArray[np.int64]] = field(default_factory=dict[int, "NDArray[np.int64]"])
    strides: Mapping[int, NDArray[np.int64]] = field(default_factory=dict[int, "NDArray[np.int64]"])
    partners: Mapping[int, NDArray[np.int64]] = field(default_factory=dict[int, "NDArray[np.int64]"])


@dataclass(frozen=True, slots=True, eq=False)
class Remap:
    """A tensor whose axes gather, scale, drop or gain positions; axes are done in order.

    Attributes:
        key: The tensor.
        axes: What becomes of its axes.
        places: Where numbers may be given. If none are said and one axis alone moves, what it gains is a place called
            after the tensor.
    """

    key: str
    axes: tuple[AxisMap, ...]
    places: tuple[Place, ...] = ()

    def places_in(self, shape: Sequence[int]) -> tuple[Place, ...]:
        """The places, of a tensor with these extents along the axes that do not move."""
        if self.places or len(self.axes) != 1 or self.axes[0].index.ndim > 1 or not len(self.axes[0].new):
            return self.places
        (part,) = self.axes
        block = tuple(len(part.new) if k == part.axis else size for k, size in enumerate(shape))
        return (Place(Address(self.key), block, {part.axis: part.new}, part.fresh.given),)


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

    def reshape(self, array: T, shape: tuple[int, ...]) -> T:
        """The same numbers, row by row, with other extents."""
        ...

    def shape(self, array: T) -> tuple[int, ...]:
        """Its extents."""
        ...

    def deviation(self, array: T) -> float:
        """The standard deviation of all its numbers."""
        ...

    def mean_along(self, array: T, axis: int) -> T:
        """The mean along an axis, which stays with extent 1; summed in float64, in the array's dtype."""
        ...

    def create(self, block: NDArray[Any]) -> T:
        """A new array with these numbers and their dtype."""
        ...

    def copy(self, array: T) -> T:
        """A new array with the same numbers."""
        ...

    def cast(self, block: T | NDArray[Any], array: T) -> T:
        """The block in the dtype, and on the device, of an array."""
        ...


def mapped(array: T, part: AxisMap, backend: Backend[T], move: Callable[[T, AxisMap], T]) -> T:
    """One axis of a tensor moved, group by group where the map has groups."""
    if part.index.ndim == 1:
        return move(array, part)
    size = backend.shape(array)[0] // len(part.index)
    parts = [
        move(backend.take(array, 0, np.arange(g * size, (g + 1) * size)), own) for g, own in enumerate(part.groups())
    ]
    return backend.join(parts)


def remapped(edit: Remap, array: T, backend: Backend[T], numbers: Callable[[str, tuple[int, ...]], T | None]) -> T:
    """A tensor after its axes have moved, one after the other.

    Args:
        edit: Where its positions come from.
        array: The tensor.
        backend: The array library.
        numbers: What is given at an address, of this shape; None if nothing is.
    """
    found: list[tuple[Place, T | NDArray[Any]]] = []
    for place in edit.places_in(backend.shape(array)):
        given = numbers(place.address, place.shape)
        block = place.given if given is None else given
        if block is not None:
            found.append((place, block))
    done: list[AxisMap] = []
    for part in edit.axes:
        # A place where axes meet is filled with the last of them, over what the others left there.
        due = [(place, block) for place, block in found if part.axis in place.at]
        due = [(place, block) for place, block in due if place.at.keys() <= {part.axis, *(a.axis for a in done)}]
        fills = [
            _Fill(place.at, _lifted(backend.cast(block, array), place, done, backend), place.partners)
            for place, block in sorted(due, key=lambda pair: len(pair[0].at))
        ]
        array = _moved(array, part, fills, edit.key, backend)
        done.append(part)
    return array


@dataclass(frozen=True, slots=True, eq=False)
class _Fill(Generic[T]):
    """A block, and for each axis where it has extents of its own the positions where it goes."""

    at: Mapping[int, NDArray[np.int64]]
    block: T
    partners: Mapping[int, NDArray[np.int64]]

    def in_group(self, g: int, axis: int, rows: range, backend: Backend[T]) -> _Fill[T]:
        """What of it lies in one group of an axis's map, which these positions of axis 0 are."""
        at, block = dict(self.at), self.block
        mine = np.array(rows)
        if 0 in at:
            mine = np.flatnonzero((at[0] >= rows.start) & (at[0] < rows.stop))
            at[0] = at[0][mine] - rows.start
        at[axis] = at[axis][g]
        return _Fill(at, backend.take(block, 0, mine), self.partners)


def _lifted(block: T, place: Place, done: Sequence[AxisMap], backend: Backend[T]) -> T:
    """Given numbers where old entries went along the axes that have moved; zero at what these gained."""

    def move(array: T, part: AxisMap) -> T:
        array = backend.take(array, part.axis, part.index.clip(0))
        if part.scale is not None:
            array = backend.scale(array, part.axis, part.scale)
        return backend.put(array, part.axis, part.new, 0.0) if len(part.new) else array

    for part in done:
        if part.axis not in place.at:
            block = mapped(block, part, backend, move)
    return block


def _moved(array: T, part: AxisMap, fills: Sequence[_Fill[T]], key: str, backend: Backend[T]) -> T:
    """A tensor with one axis moved, and its fresh positions filled."""
    if part.index.ndim > 1:
        groups = part.groups()
        size = backend.shape(array)[0] // len(groups)
        parts: list[T] = []
        for g, own in enumerate(groups):
            rows = range(g * size, (g + 1) * size)
            mine = [fill.in_group(g, part.axis, rows, backend) for fill in fills]
            parts.append(_moved(backend.take(array, 0, np.array(rows)), own, mine, key, backend))
        return backend.join(parts)
    old = array
    array = backend.take(array, part.axis, part.index.clip(0))
    if part.scale is not None:
        array = backend.scale(array, part.axis, part.scale)
    if part.apart is not None:
        block = part.apart.block(backend.shape(array), part.axis, part.index, key)
        block *= part.apart.unit(backend.deviation(old))
        array = backend.add(array, block)
    new = part.new
    if len(new) > sum(
        len(f.at[part.axis]) for f in fills if len(f.at) == 1 and not f.partners
    ):  # some start by themselves
        shape = list(backend.shape(array))
        shape[part.axis] = len(new)
        if part.fresh.mean and part.fresh.given is None:
            means = backend.take(backend.mean_along(old, part.axis), part.axis, np.zeros(len(new), np.int64))
            array = backend.put(array, part.axis, new, means)
        elif part.fresh.like:
            drawn = part.fresh.like_old(tuple(shape), key, backend.deviation(old))
            array = backend.put(array, part.axis, new, drawn)
        else:
            array = backend.put(array, part.axis, new, part.fresh.block(tuple(shape), key))
    for fill in fills:
        if fill.partners:
            array = _parted(array, fill, backend)
        else:
            array = _put(array, fill.at, fill.block, backend)
    return array


def _parted(array: T, fill: _Fill[T], backend: Backend[T]) -> T:
    """The two units of each pair moved apart by the numbers."""
    ((axis, new),) = fill.at.items()
    minus = backend.scale(backend.take(fill.block, axis, np.arange(len(new))), axis, np.full(len(new), -1.0))
    for positions, by in ((new, fill.block), (fill.partners[axis], minus)):
        array = backend.put(array, axis, positions, backend.add(backend.take(array, axis, positions), by))
    return array


def _put(array: T, at: Mapping[int, NDArray[np.int64]], block: T, backend: Backend[T]) -> T:
    """Write a block at positions of several axes."""
    (axis, positions), *rest = at.items()
    if rest:
        block = _put(backend.take(array, axis, positions), dict(rest), block, backend)
    return backend.put(array, axis, positions, block)


def defaults(edit: Remap, array: T, backend: Backend[T]) -> dict[str, T]:
    """What each place starts with where nothing is given, by address, as `remapped` would take it.

    Numbers that the edit itself has been given count; where an old row has copies, those of the first one do.
    """
    found: dict[str, T] = {}
    done: list[AxisMap] = []
    for place in edit.places_in(backend.shape(array)):
        if place.given is not None:
            found[place.address] = backend.cast(place.given, array)
    for part in edit.axes:
        array = _moved(array, part, [], edit.key, backend)
        done.append(part)
        axes = {each.axis for each in done}
        for place in edit.places_in(backend.shape(array)):
            if part.axis in place.at and place.at.keys() <= axes and place.given is None:
                block = _region(array, place, done, backend)
                if place.partners:  # the two of a pair start as one
                    block = backend.scale(block, part.axis, np.zeros(len(place.at[part.axis])))
                found[place.address] = block
    return found


def _region(array: T, place: Place, done: Sequence[AxisMap], backend: Backend[T]) -> T:
    """The entries of a place; along other axes those that old positions went to, in their order."""
    for part in done:
        positions = place.at.get(part.axis)
        if part.index.ndim == 1:
            array = backend.take(array, part.axis, _firsts(part.index) if positions is None else positions)
            continue
        rows = [_firsts(row) for row in part.index] if positions is None else list(positions)
        size = backend.shape(array)[0] // len(rows)
        groups = (backend.take(array, 0, np.arange(g * size, (g + 1) * size)) for g in range(len(rows)))
        array = backend.join([backend.take(each, part.axis, row) for each, row in zip(groups, rows, strict=True)])
    return array


def _firsts(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each old position went first."""
    olds, first = np.unique(index, return_index=True)
    found: NDArray[np.int64] = first[olds >= 0]
    return found
