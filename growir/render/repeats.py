"""Runs of equal parts of a tree, which a picture draws as one box: the layers of an encoder, the blocks of a stage.

Parts are equal if they hold the same operators with the same arguments, shapes and names inside, and read in the same
way from each other. What repeats may be several parts, which become a group of their own:

    fc1, act1, fc2, act2, ..., fc9, act9        (fc1, act1), then 8 x (fc2, act2) as one group

A run is opened into its first and the rest, since the rest would only show the same again. Only few that stand beside
each other, such as query, key and value, are opened into each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from growir.graph import Graph, Node
from growir.render.tree import Group, joined
from growir.shapes import shapes_of
from growir.show import field_text

EQUAL_RUN = 3  # so many equal neighbours are one box
FEW = 6  # so many beside each other are shown, each for itself
PERIOD = 12  # the most parts that are looked at as one that repeats


def gather_repeats(root: Group, graph: Graph) -> None:
    """Put the runs of equal parts of a tree into groups, in place."""
    _Repeats(graph).gather(root)


class _Repeats:
    def __init__(self, graph: Graph) -> None:
        self.shapes = {node.name: str(shapes_of(graph)[node.name]) for node in graph.nodes}
        self.known: dict[object, int] = {}

    def gather(self, group: Group) -> int:
        """Gather in a group, inner groups first; returns a number that is the same for equal groups."""
        if group.node is not None:
            node = group.node
            return self._number((node.op.kind(), field_text(node.op.attributes()), self.shapes[node.name]))
        parts = list(group.parts)
        kinds = [self.gather(part) for part in parts]
        start = len(group.path) + 1 if group.path else 0
        names = () if group.stage else tuple(part.label[start:] for part in parts)
        found: list[Group] = []
        at = 0
        while at < len(parts):
            period, count = _repetition(parts, kinds, at)
            if count < EQUAL_RUN:
                found.append(parts[at])
                at += 1
                continue
            units = [_unit(parts[at + k * period : at + (k + 1) * period], group.path) for k in range(count)]
            at += count * period
            pieces = units if count <= FEW and _beside(units[:2]) else _first_and_rest(units)
            if count * period == len(parts):
                group.alike, found = count, pieces
            else:
                found.append(joined(pieces, units[0].path, alike=count))
        group.parts = found
        return self._number((names, tuple(kinds)))

    def _number(self, identity: object) -> int:
        return self.known.setdefault(identity, len(self.known))


def _unit(parts: list[Group], path: str) -> Group:
    return parts[0] if len(parts) == 1 else joined(parts, path)


def _first_and_rest(units: list[Group]) -> list[Group]:
    return [units[0], joined(units[1:], units[0].path, alike=len(units) - 1, sealed=True)]


def _beside(units: Sequence[Group]) -> bool:
    """Whether the second of two units reads nothing of the first."""
    first = {node.name for node in units[0].nodes()}
    return not any(source in first for node in units[1].nodes() for source in node.inputs)


def _repetition(parts: Sequence[Group], kinds: Sequence[int], at: int) -> tuple[int, int]:
    """How many parts from `at` on repeat, and how often: what covers most, and of these the shortest."""
    best = (1, 1)
    for period in range(1, min(PERIOD, (len(parts) - at) // EQUAL_RUN) + 1):
        unit = kinds[at : at + period]
        count = 1
        while kinds[at + count * period : at + (count + 1) * period] == unit:
            count += 1
        if count >= EQUAL_RUN and count * period > best[0] * best[1]:
            units = (
                [node for part in parts[at + k * period : at + (k + 1) * period] for node in part.nodes()]
                for k in range(count)
            )
            count = _wired_alike(units)
            if count >= EQUAL_RUN and count * period > best[0] * best[1]:
                best = (period, count)
    return best


def _wired_alike(units: Iterable[Sequence[Node]]) -> int:
    """How many of these units, from the first on, read alike: within, from the one before, or from one and the same."""
    reads: list[tuple[tuple[_Read, ...], ...]] = []
    before: Mapping[str, int] = {}
    count = 0
    for count, unit in enumerate(units):
        inside = {node.name: k for k, node in enumerate(unit)}
        reads.append(tuple(tuple(_read(source, inside, before) for source in node.inputs) for node in unit))
        if (count == 1 and not _begins(reads[0], reads[1])) or (count > 1 and reads[count] != reads[1]):
            return count
        before = inside
    return count + 1


class _Read(NamedTuple):
    """Where a node reads: the number of a node of its own unit or of the one before, or any other by its name."""

    where: Literal["inside", "before", "elsewhere"]
    number: int
    name: str


def _read(source: str, inside: Mapping[str, int], before: Mapping[str, int]) -> _Read:
    if source in inside:
        return _Read("inside", inside[source], "")
    return _Read("before", before[source], "") if source in before else _Read("elsewhere", 0, source)


def _begins(first: Sequence[Sequence[_Read]], second: Sequence[Sequence[_Read]]) -> bool:
    """Whether the first unit reads like the second, but from anything where that reads from the unit before it."""
    stands: dict[_Read, _Read] = {}
    for a, b in zip(first, second, strict=True):
        if len(a) != len(b):
            return False
        for mine, other in zip(a, b, strict=True):
            free = other.where == "before" and mine.where == "elsewhere"
            if (stands.setdefault(other, mine) if free else other) != mine:
                return False
    return True
