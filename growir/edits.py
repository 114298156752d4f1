"""What a rewrite does to tensors, as data, and its execution on numpy arrays and on optimizer state.

An edit names a parameter key and says where each entry of the new tensor comes from. The same edits run on weights and,
by role, on everything that has a weight's shape. With w a unit's outgoing weight and L the loss: a copy that takes the
share s of w leaves incoming weights as they are but receives s times the old gradient, so first moments there scale by
s and second moments by s^2; the outgoing weights themselves scale by s and keep their gradient, so moments stay. Fresh
entries get a zero first moment and the tensor's mean second moment (zero would make Adam's first step there long).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, assert_never

import numpy as np
from numpy.typing import NDArray

from growir.errors import GrowirError
from growir.ops import Init, Param
from growir.params import draw, storage

T = TypeVar("T")

# How optimizer state follows the gradient: first moments linearly, second ones by the square.
MOMENTS: Mapping[str, int] = {
    "exp_avg": 1,
    "momentum_buffer": 1,
    "grad_avg": 1,
    "exp_avg_sq": 2,
    "max_exp_avg_sq": 2,
    "square_avg": 2,
}


@dataclass(frozen=True, slots=True)
class Fresh:
    """Numbers that no old tensor gives: an initialiser and the seed and step that key its draw, or given ones."""

    init: Init
    seed: int = 0
    step: int = 0
    given: NDArray[Any] | None = None

    def block(self, shape: tuple[int, ...], key: str) -> NDArray[Any]:
        """The numbers for a block of this shape, float64 unless given otherwise."""
        if self.given is not None:
            return self.given
        return draw(self.init, shape, seed=self.seed, step=self.step, key=key)


@dataclass(frozen=True, slots=True, eq=False)
class AxisMap:
    """Where the positions of one axis come from.

    Attributes:
        axis: The axis.
        index: For each new position the old one, or -1 for a fresh one.
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
        """The fresh positions."""
        return np.flatnonzero(self.index < 0)


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

    def put(self, array: T, axis: int, index: NDArray[np.int64], block: NDArray[Any] | float) -> T:
        """Write a block along an axis, cast to the array's dtype; the argument may be reused."""
        ...

    def add(self, array: T, block: NDArray[Any]) -> T:
        """A new array with a block of the same shape added, in the array's dtype."""
        ...

    def shape(self, array: T) -> tuple[int, ...]:
        """Its extents."""
        ...

    def mean(self, array: T) -> float:
        """The mean of all entries."""
        ...

    def create(self, block: NDArray[Any]) -> T:
        """A new array with these numbers and their dtype."""
        ...


def apply_edits(
    edits: Sequence[Edit], tensors: Mapping[str, T], backend: Backend[T], dtype: np.dtype[Any]
) -> dict[str, T]:
    """The tensors after the edits; those that no edit names are shared, not copied.

    Args:
        edits: What to do.
        tensors: The tensors by key; none is changed.
        backend: The array library they belong to.
        dtype: The float dtype of tensors that come into being.
    """
    out = dict(tensors)
    for edit in edits:
        match edit:
            case Remap(key):
                out[key] = _remap(edit, out[key], backend)
            case Create(key, param, fresh):
                out[key] = backend.create(fresh.block(param.shape, key).astype(storage(param, dtype)))
            case Drop(key):
                del out[key]
            case Rename(old, new):
                out[new] = out.pop(old)
            case Shift(key, by):
                out[key] = backend.add(out[key], by)
            case Derive(key, formula, sources):
                out[key] = formula(backend, *(out[source] for source in sources))
            case _:
                assert_never(edit)
    return out


def _remap(edit: Remap, array: T, backend: Backend[T]) -> T:
    for part in edit.axes:
        array = backend.take(array, part.axis, part.index.clip(0))
        if part.scale is not None:
            array = backend.scale(array, part.axis, part.scale)
        new = part.new
        if len(new):
            shape = list(backend.shape(array))
            shape[part.axis] = len(new)
            array = backend.put(array, part.axis, new, part.fresh.block(tuple(shape), edit.key))
    return array


def carry_moments(edits: Sequence[Edit], moments: Mapping[str, T], power: int, backend: Backend[T]) -> dict[str, T]:
    """Optimizer moments (or gradients, power 1) after the edits.

    Args:
        edits: What was done to the weights.
        moments: One moment per key; keys that have none yet may be missing, and created tensors start without.
        power: 1 for what follows the gradient, 2 for what follows its square.
        backend: The array library.
    """
    out = dict(moments)
    for edit in edits:
        match edit:
            case Remap(key, axes) if key in out:
                array = out[key]
                fill = backend.mean(array) if power == 2 else 0.0
                for part in axes:
                    array = backend.take(array, part.axis, part.index.clip(0))
                    if part.moment is not None:
                        array = backend.scale(array, part.axis, part.moment**power)
                    if len(part.new):
                        array = backend.put(array, part.axis, part.new, fill)
                out[key] = array
            case Drop(key) | Derive(key):
                out.pop(key, None)
            case Rename(old, new) if old in out:
                out[new] = out.pop(old)
            case _:
                pass
    return out


def carry_optimizer(
    edits: Sequence[Edit], state: Mapping[str, Mapping[str, T]], backend: Backend[T]
) -> dict[str, dict[str, T]]:
    """Optimizer state by parameter key and entry ("exp_avg", ...), after the edits; scalars such as `step` stay.

    A created tensor has no entry: the optimizer starts it as any new parameter.

    Raises:
        GrowirError: A resized parameter has an entry of its own shape that `MOMENTS` does not know.
    """
    entries = sorted({entry for slots in state.values() for entry in slots})
    out: dict[str, dict[str, T]] = {}
    for entry in entries:
        column = {key: slots[entry] for key, slots in state.items() if entry in slots}
        if entry in MOMENTS:
            column = carry_moments(edits, column, MOMENTS[entry], backend)
        else:
            grown = {edit.key for edit in edits if isinstance(edit, Remap)}
            if any(key in grown and backend.shape(array) for key, array in column.items()):
                raise GrowirError(
                    f"optimizer state {entry!r} has the shape of its parameter, and how it follows growth is unknown; "
                    f"known are {', '.join(MOMENTS)}"
                )
            column = carry_moments([e for e in edits if not isinstance(e, Remap)], column, 1, backend)
        for key, array in column.items():
            out.setdefault(key, {})[entry] = array
    return out


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
        total: NDArray[Any] = np.add(array, block, dtype=array.dtype, casting="same_kind")
        return total

    def shape(self, array: NDArray[Any]) -> tuple[int, ...]:
        return array.shape

    def mean(self, array: NDArray[Any]) -> float:
        return float(array.mean(dtype=np.float64)) if array.size else 0.0

    def create(self, block: NDArray[Any]) -> NDArray[Any]:
        return block


NUMPY: Backend[NDArray[Any]] = NumpyBackend()
