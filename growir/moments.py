"""What lies beside weights, after the edits: gradients, optimizer state and masks.

Let w be a unit's outgoing weight and L the loss. A copy that takes the share s of w leaves incoming weights as they are
but receives s times the old gradient. So what follows the gradient scales by s there, what follows its square by s^2;
outgoing weights scale by s themselves and keep their gradient, so what lies beside them stays.

What a fresh entry starts with is a choice, `FreshState`. Adam's step is lr m / sqrt(v): with the second moment v of
old entries, fresh ones hardly move, since new units have small outgoing weights and so far smaller gradients. Near
zero, v follows their own gradients within a few steps. Example, the second moments of a weight with two inputs whose
three rows become four, by "small":

    [[4, 8],        [[4,      8],
     [2, 0],   ->    [2,      0],
     [6, 1]]         [6,      1],
                     [4e-4, 3e-4]]    a ten-thousandth of each column's mean: inputs differ by more than units do
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from growir.edits import AxisMap, Backend, Copy, Derive, Drop, Edit, Pack, Remap, Rename, Shift, apply_edits, mapped
from growir.errors import GrowirError, cut

T = TypeVar("T")

# How an entry of an optimizer's state follows its parameter's gradient when a copy receives s times the old one:
# "gradient" scales by s, "square" by s^2, "magnitude" by |s|; "update" (a sum of steps, already divided by their size)
# and "length" (how long steps are) stay; "weight" is made as the weight itself is.
Follows = Literal["gradient", "square", "magnitude", "update", "length", "weight"]
Entries = Mapping[str, Follows]

# What fresh entries of "square" and "magnitude" start with: a ten-thousandth of the mean of the old entries along the
# axis that gains positions, that mean, or zero. "length" takes the mean by each law; all others start from zero.
FreshState = Literal["small", "mean", "zero"]
# What the state of an added copy starts with: what the edits carry over from its unit, or what fresh entries start
# with, so that the two part also where they get gradients of one direction, which is all that Adam looks at.
CopyState = Literal["carried", "fresh"]
SMALL = 1e-4  # as if gradients had been a hundredth as large

ADAM: Entries = {"exp_avg": "gradient", "exp_avg_sq": "square", "max_exp_avg_sq": "square"}


def carry_moments(
    edits: Sequence[Edit],
    moments: Mapping[str, T],
    follows: Follows,
    backend: Backend[T],
    fresh: FreshState = "small",
    copies: CopyState = "carried",
) -> dict[str, T]:
    """What has its weight's shape, such as one entry of optimizer state, after the edits.

    Args:
        edits: What was done to the weights.
        moments: One tensor per key; keys that have none yet may be missing, and created tensors start without.
        follows: How it follows the gradient; gradients themselves are "gradient".
        backend: The array library.
        fresh: What fresh entries start with.
        copies: What added copies start with; the first one of each unit goes on as the unit itself. A whole tensor
            that is copied has what its source has, or none.
    """
    if follows == "weight":
        return _carry_weights(edits, moments, backend)

    def factor(part: AxisMap) -> NDArray[np.float64] | None:
        if part.moment is None:
            return None
        match follows:
            case "gradient":
                return part.moment
            case "square":
                return part.moment**2
            case "magnitude":
                return np.abs(part.moment)
            case _:
                return np.where(part.moment == 0, 0.0, 1.0)

    of_mean = {"small": SMALL, "mean": 1.0, "zero": 0.0}[fresh] if follows in ("square", "magnitude") else 0.0
    if follows == "length":
        of_mean = 1.0

    def filled(old: T, axis: int, count: int) -> T | float:
        if not of_mean:
            return 0.0
        means = backend.take(backend.mean_along(old, axis), axis, np.zeros(count, np.int64))
        return backend.scale(means, axis, np.full(count, of_mean))

    return _carry(edits, moments, factor, filled, backend, anew=copies == "fresh")


def carry_masks(edits: Sequence[Edit], masks: Mapping[str, T], backend: Backend[T]) -> dict[str, T]:
    """Masks (1 where a weight counts) after the edits: fresh entries count, and created tensors have no mask.

    Raises:
        GrowirError: A masked tensor is worked out anew from others, so that no entry of its mask means anything; or of
            tensors that become one only some are masked.
    """
    for edit in edits:
        bare = [source for source in edit.sources if source not in masks] if isinstance(edit, Pack) else []
        if isinstance(edit, Pack) and 0 < len(bare) < len(edit.sources):
            masked = next(source for source in edit.sources if source in masks)
            raise GrowirError(
                f"{cut(masked)}: it becomes one tensor with {cut(bare[0])}, which has no mask; give that one, too"
            )
        if isinstance(edit, Derive) and edit.key in masks:
            raise GrowirError(
                f"{cut(edit.key)}: the rewrite works it out anew, so its mask cannot follow; remove it first"
            )
    return _carry(edits, masks, lambda part: None, lambda old, axis, count: 1.0, backend)


def _carry(
    edits: Sequence[Edit],
    tensors: Mapping[str, T],
    factor: Callable[[AxisMap], NDArray[np.float64] | None],
    fresh: Callable[[T, int, int], T | float],
    backend: Backend[T],
    *,
    anew: bool = False,
) -> dict[str, T]:
    """Gathered along each axis and scaled; what fills fresh entries, `fresh` says of the old ones, axis and number.

    What is scaled by zero has no gradient of its own to go on from and counts as fresh, and so do copies but the first
    of each position if they start `anew`.
    """
    out = dict(tensors)

    def move(array: T, part: AxisMap) -> T:
        scale = factor(part)
        start = part.index < 0 if scale is None else (part.index < 0) | (scale == 0)
        if anew:
            first = np.zeros(len(part.index), bool)
            first[np.unique(part.index, return_index=True)[1]] = True
            start |= ~first
        old = array
        array = backend.take(array, part.axis, part.index.clip(0))
        if scale is not None:
            array = backend.scale(array, part.axis, scale)
        if not start.any():
            return array
        kept = np.unique(part.index[~start])
        places = np.flatnonzero(start)
        block = fresh(backend.take(old, part.axis, kept), part.axis, len(places)) if len(kept) else 0.0
        return backend.put(array, part.axis, places, block)

    for edit in edits:
        match edit:
            case Remap(key, axes) if key in out:
                for part in axes:
                    out[key] = mapped(out[key], part, backend, move)
            case Drop(key) | Derive(key):
                out.pop(key, None)
            case Rename(old, new) if old in out:
                out[new] = out.pop(old)
            case Copy(key, source) if source in out and not anew:
                out[key] = backend.copy(out[source])
            case Pack(key, sources, shape):
                parts = [out.pop(source) for source in sources if source in out]
                if len(parts) == len(sources):
                    # Numbers of steps are no part of any entry; all have the same.
                    whole = bool(backend.shape(parts[0]))
                    out[key] = backend.reshape(backend.join(parts), shape) if whole else parts[0]
            case _:
                pass
    return out


def _carry_weights(edits: Sequence[Edit], tensors: Mapping[str, T], backend: Backend[T]) -> dict[str, T]:
    """Second sets of weights (slow ones, averages): edited as the weights, with the same fresh numbers."""
    keys, chosen = set(tensors), list[Edit]()
    for edit in edits:
        match edit:
            case Remap(key) | Shift(key) if key in keys:
                chosen.append(edit)
            case Drop(key) | Derive(key) if key in keys:
                keys.discard(key)
                chosen.append(Drop(key))
            case Rename(old, new) if old in keys:
                keys.discard(old)
                keys.add(new)
                chosen.append(edit)
            case Copy(key, source) if source in keys:
                keys.add(key)
                chosen.append(edit)
            case Pack(key, sources):
                mine = [source for source in sources if source in keys]
                keys.difference_update(mine)
                if len(mine) == len(sources):
                    keys.add(key)
                    chosen.append(edit)
                else:
                    chosen += [Drop(source) for source in mine]
            case _:
                pass
    return apply_edits(chosen, tensors, backend, np.dtype(np.float64))


def carry_optimizer(
    edits: Sequence[Edit],
    state: Mapping[str, Mapping[str, T]],
    backend: Backend[T],
    entries: Entries = ADAM,
    fresh: FreshState = "small",
    copies: CopyState = "carried",
) -> dict[str, dict[str, T]]:
    """Optimizer state by parameter key and entry ("exp_avg", ...), after the edits; scalars such as `step` stay.

    A created tensor has no entry: the optimizer starts it as any new parameter.

    Args:
        edits: What was done to the weights.
        state: By parameter key, its entries.
        backend: The array library.
        entries: How each entry with its parameter's shape follows the gradient.
        fresh: What fresh entries start with.
        copies: What added copies start with.

    Raises:
        GrowirError: A resized parameter has an entry that is no scalar and that `entries` does not name.
    """
    out: dict[str, dict[str, T]] = {}
    for entry in sorted({entry for slots in state.values() for entry in slots}):
        column = {key: slots[entry] for key, slots in state.items() if entry in slots}
        if entry in entries:
            column = carry_moments(edits, column, entries[entry], backend, fresh, copies)
        else:
            grown = {edit.key for edit in edits if isinstance(edit, Remap)}
            grown |= {source for edit in edits if isinstance(edit, Pack) for source in edit.sources}
            at = next((key for key, array in column.items() if key in grown and backend.shape(array)), None)
            if at is not None:
                raise GrowirError(
                    f"optimizer state {entry!r} of {cut(at)} is no scalar, and how it follows growth is unknown; "
                    f"known are {', '.join(entries) or 'none'}"
                )
            left = [edit for edit in edits if not isinstance(edit, Remap)]
            column = carry_moments(left, column, "update", backend, copies=copies)
        for key, array in column.items():
            out.setdefault(key, {})[entry] = array
    return out
