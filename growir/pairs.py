"""The pairs of a split: where both units of each lie in what makes them, and the numbers that part the two.

A unit with incoming weights w becomes two with w - theta and w + theta. Theta is given as a fresh block is: with the
extents of the tensor before the rewrite, but along the axis of the units one position for each that is split.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from growir.addresses import Address, axis_names
from growir.ops import Param
from growir.ops.rule import ParamAxes
from growir.ops.spaces import Axis, Space, as_axis, extent, grown, shares_of, spaces_on
from growir.remap import Place

Gains = Mapping[Space, int]  # new units by space


def pair_places(
    key: str,
    param: Param,
    use: ParamAxes,
    axes: Collection[int],
    gains: Gains,
    split: tuple[Space, Sequence[int]],
    stride: int,
) -> Iterator[Place]:
    """The places of a tensor where numbers may part the two units of each pair, one for each axis that makes them.

    There is none where units of other spaces inside those that are split change too.

    Args:
        key: The tensor.
        param: It.
        use: What its axes are made of.
        axes: Those that move and are the same for all groups.
        gains: New units of every space that changes.
        split: The space, and its units that are split.
        stride: How many of its units are the smallest growth.
    """
    space, units = split
    found: dict[int, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = {}
    for axis in sorted(set(axes) - use.consumes):
        terms = use.axes[axis]
        if space in spaces_on(terms) and param.dtype == "float":
            old, new = pair_positions(terms, gains, space, units)
            if len(new) == len(units) * sum(size for other, size in shares_of(terms) if other is space):
                # Each run of the space on the axis has all pairs, one after the other.
                runs = [np.repeat(np.arange(len(units)), size) for size in _runs(terms, space)]
                found[axis] = old, new, np.concatenate(runs) // stride
    names = axis_names(param.axes)
    for axis, (old, new, strides) in found.items():
        address = Address.of(key, [names[axis]] if len(found) > 1 else [])
        shape = tuple(len(new) if k == axis else size for k, size in enumerate(param.shape))
        yield Place(address, shape, {axis: new}, strides={axis: strides}, partners={axis: old})


def pair_positions(
    axis: Axis, gains: Gains, space: Space, units: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the two of each pair lie on an axis after a split; copies lie behind a space's old units."""
    stays: list[NDArray[np.int64]] = []
    copies: list[NDArray[np.int64]] = []
    chosen = np.array(units)

    def visit(axis: Axis, start: int) -> None:
        for other, block in axis:
            size = grown(as_axis(block), gains)
            if other is space:
                inner = start + np.arange(size)
                stays.append((chosen[:, None] * size + inner).ravel())
                copies.append(((space.size + np.arange(len(chosen)))[:, None] * size + inner).ravel())
            whole = grown(((other, block),), gains)
            if not isinstance(block, int):
                for at in range(start, start + whole, size):
                    visit(block, at)
            start += whole

    visit(axis, 0)
    return np.concatenate(stays), np.concatenate(copies)


def _runs(axis: Axis, space: Space) -> Iterator[int]:
    """The positions of one unit in each run of a space on an axis."""
    for other, block in axis:
        if other is space:
            yield extent(block)
        elif not isinstance(block, int):
            for _ in range(1 if other is None else other.size):
                yield from _runs(block, space)
