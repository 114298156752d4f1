"""Layered layout: where boxes stand, and how arrows run between them without crossing any.

Every box stands in a layer below all it reads from (Sugiyama's method). An arrow over several layers runs in a lane of
its own, which all arrows from the same box share; lanes take part in ordering and spacing as narrow boxes do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

MARGIN, GAP, LAYER_GAP = 24, 24, 46
LANE, LANE_GAP = 6, 4  # room for arrows that pass a layer
MOST_IN_LAYER = 8
SWEEPS = 6


class Item(NamedTuple):
    """What takes room in a layer: a box, or the lane of the arrows that start at one (or, upwards, end there)."""

    layer: int
    box: int
    lane: int  # -1 for the box itself, else which of its lanes


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions in pixels.

    Attributes:
        corners: The upper left corner of each box.
        routes: For each edge the points its arrow runs through: straight down a lane between an even point and the
            next, curved from an odd one to the next even one.
        size: Width and height of the whole.
    """

    corners: tuple[tuple[int, int], ...]
    routes: Mapping[tuple[int, int], tuple[tuple[int, int], ...]]
    size: tuple[int, int]


def layered(widths: Sequence[int], height: int, edges: Iterable[tuple[int, int]]) -> Layout:
    """Lay out boxes of one height. Edges are (from, to); one from a later box to an earlier one runs upwards."""
    found = sorted(set(edges))
    layers = _layers(len(widths), found)
    lanes = _lanes(found, layers)
    rows: list[list[Item]] = [[] for _ in range(max(layers, default=0) + 1)]
    for box, layer in enumerate(layers):
        rows[layer].append(Item(layer, box, -1))
    for (box, lane), last in sorted(_spans(lanes, layers).items()):
        for layer in range(layers[box] + 1, last):
            rows[layer].append(Item(layer, box, lane))
    links = _links(found, layers, lanes)
    rows = _ordered(rows, links)
    room = {item: LANE if item.lane >= 0 else widths[item.box] for row in rows for item in row}
    centres = _spaced(rows, links, room)
    left = min((centres[item] - room[item] / 2 for row in rows for item in row), default=0)
    x = {item: round(centre - left) + MARGIN for item, centre in centres.items()}
    tops = [MARGIN + layer * (height + LAYER_GAP) for layer in range(len(rows))]
    corners = tuple((x[Item(layer, box, -1)] - widths[box] // 2, tops[layer]) for box, layer in enumerate(layers))
    routes: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {}
    for edge in found:
        upper, lower = min(edge), max(edge)
        points = [(x[Item(layers[upper], upper, -1)], tops[layers[upper]] + height)]
        for layer in range(layers[upper] + 1, layers[lower]):
            at = x[Item(layer, upper, lanes[edge])]
            points += [(at, tops[layer]), (at, tops[layer] + height)]
        points.append((x[Item(layers[lower], lower, -1)], tops[layers[lower]]))
        routes[edge] = tuple(points) if edge[0] == upper else tuple(reversed(points))
    right = max((corner[0] + width for corner, width in zip(corners, widths, strict=True)), default=0)
    right = max([right, *(px for route in routes.values() for px, _ in route)])
    return Layout(corners, routes, (right + MARGIN, tops[-1] + height + MARGIN))


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each box: below everything it reads from, few in each."""
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for edge in edges:
        above[max(edge)].append(min(edge))
        below[min(edge)].append(max(edge))
    layers = [0] * count
    filled: dict[int, int] = {}
    for box in range(count):
        layer = 1 + max((layers[k] for k in above[box]), default=-1)
        while filled.get(layer, 0) >= MOST_IN_LAYER:
            layer += 1
        layers[box] = layer
        filled[layer] = filled.get(layer, 0) + 1
    for box in reversed(range(count)):
        # What reads nothing stands right above its first reader.
        if not above[box] and below[box]:
            layer = min(layers[k] for k in below[box]) - 1
            if layer > layers[box] and filled.get(layer, 0) < MOST_IN_LAYER:
                filled[layers[box]] -= 1
                filled[layer] = filled.get(layer, 0) + 1
                layers[box] = layer
    kept = {layer: k for k, layer in enumerate(sorted(set(layers)))}
    return [kept[layer] for layer in layers]


def _lanes(edges: Sequence[tuple[int, int]], layers: Sequence[int]) -> dict[tuple[int, int], int]:
    """The lane of each edge: one for all that start at a box, and one for each that runs upwards."""
    lanes: dict[tuple[int, int], int] = {}
    upwards: dict[int, int] = {}
    for edge in edges:
        if edge[0] < edge[1]:
            lanes[edge] = 0
        else:
            upwards[edge[1]] = lanes[edge] = upwards.get(edge[1], 0) + 1
    return lanes


def _spans(lanes: Mapping[tuple[int, int], int], layers: Sequence[int]) -> dict[tuple[int, int], int]:
    """The layer each lane ends above."""
    spans: dict[tuple[int, int], int] = {}
    for edge, lane in lanes.items():
        key = (min(edge), lane)
        spans[key] = max(spans.get(key, 0), layers[max(edge)])
    return spans


Links = dict[Item, set[Item]]


def _links(
    edges: Sequence[tuple[int, int]], layers: Sequence[int], lanes: Mapping[tuple[int, int], int]
) -> tuple[Links, Links]:
    """For each item its neighbours in the layer above, and below."""
    up: Links = {}
    down: Links = {}
    for edge in edges:
        upper, lower = min(edge), max(edge)
        chain = [Item(layers[upper], upper, -1)]
        chain += [Item(layer, upper, lanes[edge]) for layer in range(layers[upper] + 1, layers[lower])]
        chain.append(Item(layers[lower], lower, -1))
        for a, b in pairwise(chain):
            down.setdefault(a, set()).add(b)
            up.setdefault(b, set()).add(a)
    return up, down


def _ordered(rows: list[list[Item]], links: tuple[Links, Links]) -> list[list[Item]]:
    """Each layer ordered so that few arrows cross: by the mean place of neighbours, sweeping down and up."""
    best, fewest = [list(row) for row in rows], _crossings(rows, links[1])
    current = [list(row) for row in rows]
    for sweep in range(SWEEPS):
        if not fewest:
            break
        side = links[sweep % 2]
        order = range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1)
        for layer in order:
            other = current[layer - 1] if sweep % 2 == 0 else current[layer + 1]
            place = {item: k for k, item in enumerate(other)}
            here = {item: k for k, item in enumerate(current[layer])}
            mean = {item: _mean([place[n] for n in side.get(item, ())], here[item]) for item in here}
            current[layer].sort(key=lambda item: (mean[item], here[item]))
        crossings = _crossings(current, links[1])
        if crossings < fewest:
            best, fewest = [list(row) for row in current], crossings
    return best


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _crossings(rows: Sequence[Sequence[Item]], down: Links) -> int:
    """How many pairs of links cross."""
    total = 0
    for row, below in pairwise(rows):
        place = {item: k for k, item in enumerate(below)}
        ends = [end for item in row for end in sorted(place[other] for other in down.get(item, ()))]
        seen = [0] * (len(below) + 1)
        for count, end in enumerate(ends):
            total += count - sum(seen[: end + 1])
            seen[end] += 1
    return total


def _spaced(rows: Sequence[Sequence[Item]], links: tuple[Links, Links], room: Mapping[Item, int]) -> dict[Item, float]:
    """The centre of each item: near its neighbours, with room between it and the next."""
    centres: dict[Item, float] = {}
    offsets: dict[int, list[float]] = {}
    for row in rows:
        offsets[row[0].layer] = [0.0]
        for a, b in pairwise(row):
            offsets[row[0].layer].append(offsets[row[0].layer][-1] + (room[a] + room[b]) / 2 + _gap(a, b))
        middle = offsets[row[0].layer][-1] / 2
        centres.update((item, offset - middle) for item, offset in zip(row, offsets[row[0].layer], strict=True))
    for sweep in range(SWEEPS):
        side = links[sweep % 2]
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = [_mean([centres[n] for n in sorted(side.get(item, ()))], centres[item]) for item in row]
            least = offsets[row[0].layer]
            shifted = _increasing([w - o for w, o in zip(wanted, least, strict=True)])
            centres.update((item, s + o) for item, s, o in zip(row, shifted, least, strict=True))
    return centres


def _gap(a: Item, b: Item) -> int:
    return GAP if a.lane < 0 and b.lane < 0 else LANE_GAP if a.lane >= 0 and b.lane >= 0 else GAP // 2


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
