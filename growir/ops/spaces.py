"""Channel spaces, and what axes are made of.

Every axis of every value is a list of terms: (space, block), each unit of the space being a block of adjacent
positions, or (None, n), n positions that belong to no space. A block is a number of positions, or an axis again: then
every unit holds the same units of other spaces. A space is a *copy structure*, how many copies of which unit, not an
identity: "tied" and "same" are one relation.

    heads of size 4:            ((H, 4),)
    q, k and v of such heads:   ((H, 4), (H, 4), (H, 4))
    groups of heads of size 4:  ((G, ((R, 4),)),)       each unit of G holds R heads; both G and R may grow

A worked case. Convolutions `a`, `b` and `c` make 4, 2 and 6 channels of 2 x 2 positions from an input `x` of 3:

    a                  ((A, 1),)                          4 positions
    b                  ((B, 1),)                          2
    c                  ((C, 1),)                          6
    cat(a, b)          ((A, 1), (B, 1))                   6
    sum = cat + c      ((A, 1), (B, 1))                   6; the two unify: C is bound to A and B
    all = cat(sum, x)  ((A, 1), (B, 1), (None, 3))        9; nobody may change the channels of x
    flatten(all)       ((A, 4), (B, 4), (None, 12))      36; each unit is now a block of 4 positions

What it takes to widen `a` by one unit can be read off. `c` makes the space, too, so its weight gets a row of its own
behind the first 4; the sum has 7 channels; and the layer behind `flatten` gets 4 columns behind the first 16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Pin:
    """Why a space may not change its width: the node that forbids it and the reason."""

    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node} ({self.reason})"


class Space:
    """A set of `size` channels that come and go together wherever they appear.

    `factor` says that it was made to split an axis in a reshape. Where such a space is pinned and makes no axis of a
    parameter, it is no more than a number of positions.
    """

    __slots__ = ("bind", "factor", "pins", "size")

    def __init__(self, size: int, factor: bool = False) -> None:
        self.size = size
        self.factor = factor
        self.bind: Axis | None = None
        self.pins: tuple[Pin, ...] = ()


Term: TypeAlias = "tuple[Space | None, int | tuple[Term, ...]]"
Axis: TypeAlias = "tuple[Term, ...]"
Block: TypeAlias = "int | Axis"
Axes: TypeAlias = "tuple[Axis, ...]"


def fixed(size: int) -> Axis:
    """An axis of positions that belong to no space."""
    return ((None, size),)


def as_axis(block: Block) -> Axis:
    """What one unit holds, as an axis."""
    return ((None, block),) if isinstance(block, int) else block


def as_block(axis: Axis) -> Block:
    """The same as a block: a number where no space lies on the axis."""
    return length(axis) if all(space is None for space, _ in axis) else axis


def extent(block: Block) -> int:
    """Positions of one block."""
    return block if isinstance(block, int) else length(block)


def length(axis: Axis) -> int:
    """Positions on an axis."""
    return sum([_size(space, block) for space, block in axis])


def _size(space: Space | None, block: Block) -> int:
    positions = block if isinstance(block, int) else length(block)
    return positions if space is None else space.size * positions


def grown(axis: Axis, units: Mapping[Space, int]) -> int:
    """Positions on an axis once spaces have so many units more."""
    total = 0
    for space, block in axis:
        positions = block if isinstance(block, int) else grown(block, units)
        total += positions if space is None else (space.size + units.get(space, 0)) * positions
    return total


def spaces_on(axis: Axis) -> Iterator[Space]:
    """Every space on an axis, outer ones before those in their blocks; one that lies there twice comes twice."""
    for space, block in axis:
        if space is not None:
            yield space
        if not isinstance(block, int):
            yield from spaces_on(block)


def shares_of(axis: Axis) -> Iterator[tuple[Space, int]]:
    """Each space on an axis with the positions that one of its units takes there, all its places together."""
    for space, block in axis:
        if space is not None:
            yield space, extent(block)
        if not isinstance(block, int):
            for inner, positions in shares_of(block):
                yield inner, positions * (1 if space is None else space.size)


def is_nested(axis: Axis) -> bool:
    """Whether units of some space on an axis hold other spaces."""
    return not all(isinstance(block, int) for _, block in axis)
