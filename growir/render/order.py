"""The order of what stands in each row of a picture, so that few arrows cross.

Going down and up by turns, each item is put at the mean place of its neighbours in the row before (the barycentre), and
then neighbours in a row change places as long as fewer arrows cross for it. The best order that was seen is kept.

    a   b          a   b          b   a
      X       ->   |   |    or    |   |
    c   d          d   c          c   d
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence, Set
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")

SWEEPS = 24
PATIENCE = 6  # sweeps without fewer crossings, after which there will be none
WORK = 20_000  # items times sweeps: a picture of thousands of items is swept less often
STARTS = 4
TURNS = 8  # how often neighbours of one picture are compared after a sweep


def ordered(rows: Sequence[Sequence[T]], up: Mapping[T, Set[T]], down: Mapping[T, Set[T]]) -> list[list[T]]:
    """The same rows, each in an order with few crossings.

    Args:
        rows: Items from above to below, each row in any order.
        up: For an item its neighbours in the row above.
        down: And in the row below.
    """
    best, fewest = [list(row) for row in rows], crossings(rows, down)
    # Where a sweep begins decides where it ends: from above and from below, and from either order of what is equal.
    for start in range(STARTS):
        if fewest:
            current = [list(reversed(row)) if start // 2 else list(row) for row in rows]
            found, count = _swept(current, up, down, start)
            if count < fewest:
                best, fewest = found, count
    return best


def _swept(
    current: list[list[T]], up: Mapping[T, Set[T]], down: Mapping[T, Set[T]], start: int
) -> tuple[list[list[T]], int]:
    """The best order that sweeps from this one come by, and how many arrows cross in it; changes `current`."""
    best, fewest = [list(row) for row in current], crossings(current, down)
    sweeps = max(4, min(SWEEPS, WORK // max(1, sum(map(len, current)))))
    stale = 0
    for sweep in range(start, start + sweeps):
        if not fewest or stale == PATIENCE:
            break
        downwards = sweep % 2 == 0
        side, step = (up, -1) if downwards else (down, 1)
        for k in range(1, len(current)) if downwards else range(len(current) - 2, -1, -1):
            place = {item: at for at, item in enumerate(current[k + step])}
            mean = {
                item: _mean([place[other] for other in side.get(item, ())], at) for at, item in enumerate(current[k])
            }
            # Every other time what has the same mean changes sides, so that not all depends on the order at first.
            if sweep % 4 > 1:
                current[k].reverse()
            current[k].sort(key=mean.__getitem__)
        _turned(current, up, down)
        found = crossings(current, down)
        stale += 1
        if found < fewest:
            best, fewest, stale = [list(row) for row in current], found, 0
    return best, fewest


def crossings(rows: Sequence[Sequence[T]], down: Mapping[T, Set[T]]) -> int:
    """How many pairs of arrows cross between the rows."""
    total = 0
    for row, below in pairwise(rows):
        place = {item: k for k, item in enumerate(below)}
        seen: list[int] = []
        for item in row:
            ends = sorted(place[other] for other in down.get(item, ()))
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _turned(rows: list[list[T]], up: Mapping[T, Set[T]], down: Mapping[T, Set[T]]) -> None:
    """Let neighbours in a row change places where fewer arrows cross for it, until none do."""
    for _ in range(TURNS):
        turned = False
        for k, row in enumerate(rows):
            sides: list[dict[T, list[int]]] = []
            for other, links in ((k - 1, up), (k + 1, down)):
                if 0 <= other < len(rows):
                    place = {item: at for at, item in enumerate(rows[other])}
                    sides.append({item: sorted(place[end] for end in links.get(item, ())) for item in row})
            for at in range(len(row) - 1):
                a, b = row[at], row[at + 1]
                gain = sum(_crossed(side[a], side[b]) - _crossed(side[b], side[a]) for side in sides)
                if gain > 0:
                    row[at], row[at + 1] = b, a
                    turned = True
        if not turned:
            return


def _crossed(left: Sequence[int], right: Sequence[int]) -> int:
    """How many arrows of two neighbours cross, by where the ends of each stand."""
    return sum(bisect_left(right, end) for end in left)


def _mean(values: Sequence[int], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
