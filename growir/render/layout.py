"""Layered layout: where boxes stand, and how arrows run between them, all downwards and around every box.

The layer of a box is the length of the longest path that leads to it (Sugiyama's method), so it stands below all it
reads from. A layer that is too wide for a page is drawn in several rows. An arrow over several rows runs in a lane of
its own, which all arrows from the same box share; lanes take part in ordering and spacing as narrow boxes do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from growir.render.order import ordered

MARGIN, GAP, ROW_GAP = 24, 24, 36
LANE, LANE_GAP = 6, 4  # room for arrows that pass a row
PAGE = 1100  # a layer that is wider than this is drawn in several rows
SWEEPS = 6


class Item(NamedTuple):
    """What takes room in a row: a box, or the lane of the arrows that start at one."""

    row: int
    box: int
    lane: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions in pixels.

    Attributes:
        corners: The upper left corner of each box.
        heights: The height that each box is drawn with.
        routes: For each edge the points its arrow runs through: straight down a lane between an even point and the
            next, curved from an odd one to the next even one.
        size: Width and height of the whole.
    """

    corners: tuple[tuple[int, int], ...]
    heights: tuple[int, ...]
    routes: Mapping[tuple[int, int], tuple[tuple[int, int], ...]]
    size: tuple[int, int]


def layered(
    widths: Sequence[int],
    heights: Sequence[int],
    edges: Iterable[tuple[int, int]],
    top: Collection[int] = (),
    layers: Sequence[int] | None = None,
    gap: int = ROW_GAP,
) -> Layout:
    """Lay out boxes.

    Args:
        widths: Of each box.
        heights: Of each box; all boxes of a row get the height of its highest.
        edges: Pairs (from, to), each from an earlier box to a later one.
        top: Boxes that stay in the first layer. Others that read nothing stand right above their first reader.
        layers: The layer of each box instead, in which every edge leads to a higher one.
        gap: The room between rows.

    Raises:
        ValueError: An edge leads from a box to an earlier one, or to itself.
    """
    found = sorted(set(edges))
    for start, end in found:
        if start >= end:
            raise ValueError(f"an arrow leads from box {start} to box {end}; boxes stand after those they read from")
    rows = _rows(layers_of(len(widths), found, top) if layers is None else layers, widths)
    where = {box: k for k, row in enumerate(rows) for box in row}
    items = [[Item(k, box, False) for box in row] for k, row in enumerate(rows)]
    last: dict[int, int] = {}
    for start, end in found:
        last[start] = max(last.get(start, 0), where[end])
    for box in sorted(last):
        for k in range(where[box] + 1, last[box]):
            items[k].append(Item(k, box, True))
    links = _links(found, where)
    placed = ordered(items, *links)
    room = {item: LANE if item.lane else widths[item.box] for row in placed for item in row}
    centres = _spaced(placed, links, room)
    left = min((centres[item] - room[item] / 2 for row in placed for item in row), default=0)
    x = {item: round(centre - left) + MARGIN for item, centre in centres.items()}
    tops, tall = [MARGIN], [max(heights[box] for box in row) for row in rows]
    for height in tall:
        tops.append(tops[-1] + height + gap)
    corners = tuple((x[Item(where[k], k, False)] - width // 2, tops[where[k]]) for k, width in enumerate(widths))
    routes: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {}
    for start, end in found:
        points = [(x[Item(where[start], start, False)], tops[where[start]] + tall[where[start]])]
        for k in range(where[start] + 1, where[end]):
            at = x[Item(k, start, True)]
            points += [(at, tops[k]), (at, tops[k] + tall[k])]
        routes[start, end] = (*points, (x[Item(where[end], end, False)], tops[where[end]]))
    right = max((corner[0] + width for corner, width in zip(corners, widths, strict=True)), default=0)
    right = max([right, *(px for route in routes.values() for px, _ in route)])
    sizes = tuple(tall[where[k]] for k in range(len(widths)))
    return Layout(corners, sizes, routes, (right + MARGIN, tops[-1] - gap + MARGIN if rows else 2 * MARGIN))


def layers_of(count: int, edges: Sequence[tuple[int, int]], top: Collection[int] = ()) -> list[int]:
    """The layer of each box: the number of arrows on the longest path to it, counted from what reads nothing.

    Those of `top` stay at 0. Where a path begins at others that read nothing, all that depends on these alone is moved
    down to right above its first reader.
    """
    layers = [0] * count
    fixed = [k in top for k in range(count)]
    for start, end in sorted(edges, key=lambda edge: edge[1]):
        layers[end] = max(layers[end], layers[start] + 1)
        fixed[end] |= fixed[start]
    first: dict[int, int] = {}
    for start, end in sorted(edges, key=lambda edge: -edge[0]):
        first[start] = min(first.get(start, count), layers[end])
        if not fixed[start]:
            layers[start] = first[start] - 1
    return layers


def _rows(layers: Sequence[int], widths: Sequence[int]) -> list[list[int]]:
    """The boxes of each row: a layer's in one if the page is wide enough, else in as many as it takes, evenly."""
    gathered: dict[int, list[int]] = {}
    for box, layer in enumerate(layers):
        gathered.setdefault(layer, []).append(box)
    rows: list[list[int]] = []
    for layer in sorted(gathered):
        boxes = gathered[layer]
        count = -(-sum(widths[box] + GAP for box in boxes) // PAGE)
        cuts = [k * len(boxes) // count for k in range(count + 1)]
        rows += [boxes[a:b] for a, b in pairwise(cuts) if b > a]
    return rows


Links = dict[Item, set[Item]]


def _links(edges: Sequence[tuple[int, int]], where: Mapping[int, int]) -> tuple[Links, Links]:
    """For each item its neighbours in the row above, and below."""
    up: Links = {}
    down: Links = {}
    for start, end in edges:
        chain = [Item(where[start], start, False)]
        chain += [Item(k, start, True) for k in range(where[start] + 1, where[end])]
        chain.append(Item(where[end], end, False))
        for a, b in pairwise(chain):
            down.setdefault(a, set()).add(b)
            up.setdefault(b, set()).add(a)
    return up, down


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _spaced(rows: Sequence[Sequence[Item]], links: tuple[Links, Links], room: Mapping[Item, int]) -> dict[Item, float]:
    """The centre of each item: near its neighbours, with room between it and the next."""
    centres: dict[Item, float] = {}
    offsets: dict[int, list[float]] = {}
    for row in rows:
        offsets[row[0].row] = [0.0]
        for a, b in pairwise(row):
            offsets[row[0].row].append(offsets[row[0].row][-1] + (room[a] + room[b]) / 2 + _gap(a, b))
        middle = offsets[row[0].row][-1] / 2
        centres.update((item, offset - middle) for item, offset in zip(row, offsets[row[0].row], strict=True))
    for sweep in range(SWEEPS):
        side = links[sweep % 2]
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = [_mean([centres[n] for n in sorted(side.get(item, ()))], centres[item]) for item in row]
            least = offsets[row[0].row]
            shifted = _increasing([w - o for w, o in zip(wanted, least, strict=True)])
            centres.update((item, s + o) for item, s, o in zip(row, shifted, least, strict=True))
    return centres


def _gap(a: Item, b: Item) -> int:
    return GAP if not a.lane and not b.lane else LANE_GAP if a.lane and b.lane else GAP // 2


def _increasing(values: Sequence[float]) -> list[float]:
    """The nearest never-falling sequence, in squares: neighbours out of order are pooled to their mean."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            other, size = pools.pop()
            mean = (mean * count + other * size) / (count + size)
            count += size
        pools.append((mean, count))
    return [mean for mean, count in pools for _ in range(count)]
