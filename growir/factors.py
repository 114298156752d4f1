"""Which factor of a split axis scales, decided by what the whole graph has said of each.

A reshape makes of an axis of 12 channels the product of two spaces, 3 heads of 4 channels, and leaves both free. What
follows pins the one or the other: attention its heads' size, a sum over heads their number. Nothing depends on which
of the sizes is larger, so what is free stays free when a width changes.

Where nothing tells two factors apart, because they come together in every parameter, as in a shuffle of channels, they
are two ways to widen the same layers: the one that is the inner one at first scales. Groups of heads are told apart:
keys have the groups alone, queries have heads in each group, and both may grow.
"""

from __future__ import annotations

from collections.abc import Iterable

from growir.ops.algebra import MANY_ROWS, MAX_ROWS, Algebra
from growir.ops.spaces import Axis, Space, Term, as_axis, is_nested, length, spaces_on

TWICE = "is several factors of one axis"
OTHER = "is a factor of an axis of which another scales"


def settle(algebra: Algebra, axes: Iterable[tuple[str, Axis]]) -> None:
    """Pin factors that would only be another way to scale the same axes of parameters.

    Args:
        algebra: The algebra after all rules.
        axes: Every axis of every parameter, after its node's name.
    """
    found = [(node, algebra.resolve(axis)) for node, axis in axes]
    nested = frozenset(space for _, axis in found if is_nested(axis) for space in spaces_on(axis))
    if not nested:
        return
    places = _Places()
    for node, axis in found:
        places.add(node, axis, ())
    for space in places.twice:
        _pin(algebra, places, space, TWICE)
    factors = [space for space in places.company if space in nested]
    for space in factors:
        # One unit alone is a head or a group that nobody has split yet, and the last to scale.
        if space.size == 1 and places.is_outer(space) and all(_any_free(c) for c in places.company[space]):
            _pin(algebra, places, space, OTHER)
    for space in factors:
        if not space.pins:
            for other in _redundant(space, places):
                _pin(algebra, places, other, OTHER)


def limit(algebra: Algebra, axes: Iterable[Axis]) -> None:
    """Pin what lies in the blocks of so large a space that nobody could spell out one block after the other."""
    for axis in axes:
        resolved = algebra.resolve(axis)
        if is_nested(resolved):
            _rows(algebra, resolved)


def _rows(algebra: Algebra, axis: Axis) -> int:
    """The terms of an axis once every block is spelled out, as the slots of parameters are."""
    found = 0
    for space, block in axis:
        rows = 1
        if space is not None and not isinstance(block, int) and _any_free(spaces_on(block)):
            rows = _rows(algebra, block) * space.size
            if rows > MAX_ROWS:
                algebra.pin(block, MANY_ROWS)
                rows = 1
        found += rows
    return found


def _pin(algebra: Algebra, places: _Places, space: Space, reason: str) -> None:
    algebra.node = places.node[space]
    algebra.pin(((space, 1),), reason)


def _redundant(space: Space, places: _Places) -> list[Space]:
    """What of a space and of those that never come without it need not scale.

    groups (g | h) of M channels each, in a shuffle: ((g, ((M, 1),)), (h, ((M, 1),))), and then ((M, ((g, 1), (h, 1))),)

    g and h never come without M, nor M without one of them: only M scales. Had M a parameter for itself, all would.
    """
    family = [other for other, always in places.always.items() if space in always and not other.pins]
    if not family or not all(company.intersection(family) for company in places.company[space]):
        return []
    one, ones = space.size == 1, all(other.size == 1 for other in family)
    return [space] if (one if one != ones else (space, family[0]) in places.order) else family


def _any_free(spaces: Iterable[Space]) -> bool:
    return any(not space.pins for space in spaces)


class _Places:
    """Where parameters have each space, and what is in its blocks or has it in its own there."""

    def __init__(self) -> None:
        self.company: dict[Space, list[frozenset[Space]]] = {}
        self.always: dict[Space, frozenset[Space]] = {}  # what is there wherever the space is
        self.order: dict[tuple[Space, Space], None] = {}  # (outer, inner), as two spaces lie at first
        self.node: dict[Space, str] = {}
        self.twice: list[Space] = []  # squares of themselves, whose width is no multiple of anything

    def is_outer(self, space: Space) -> bool:
        """Whether a space had at first one in its blocks that may change."""
        return any(outer is space and not inner.pins for outer, inner in self.order)

    def add(self, node: str, axis: Axis, around: tuple[Space, ...]) -> None:
        """Read one axis; `around` are the spaces in whose blocks it lies."""
        for space, block in axis:
            inside = tuple(spaces_on(as_axis(block)))
            here = around
            if space is not None:
                here = (*around, space)
                company = frozenset((*around, *inside))
                self.node.setdefault(space, node)
                self.company.setdefault(space, []).append(company)
                self.always[space] = self.always.get(space, company) & company
                if space in company:
                    self.twice.append(space)
                for inner in inside:
                    if (inner, space) not in self.order:
                        self.order[space, inner] = None
            if not isinstance(block, int):
                self.add(node, block, here)


class Reading:
    """Axes as a graph's readers want them: resolved, with blocks in blocks only where both may change."""

    def __init__(self, algebra: Algebra, parameters: Iterable[Axis]) -> None:
        self._algebra = algebra
        self._known: dict[int, tuple[Axis, Axis]] = {}
        self._widths: frozenset[Space] | None = None
        self._widths = frozenset(space for axis in parameters for space in spaces_on(self(axis)))
        self._known.clear()

    def __call__(self, axis: Axis) -> Axis:
        """The axis; one object for one object, as with `Algebra.resolve`."""
        resolved = self._algebra.resolve(axis)
        known = self._known.get(id(resolved))
        if known is None:
            known = self._known[id(resolved)] = resolved, self._algebra.resolve(self._plain(resolved))
        return known[1]

    def _plain(self, axis: Axis) -> Axis:
        """Blocks that cannot change as numbers, and pinned spaces of changing blocks as that many of them.

        heads of a pinned size, ((H, ((D, 1),)),):          ((H, 4),)
        a pinned number of groups, ((G, ((R, 4),)),):       ((R, 4), (R, 4), (R, 4))
        """
        if not (is_nested(axis) or any(self._is_number(space) for space, _ in axis)):
            return axis
        out: list[Term] = []
        for space, block in axis:
            inner = block if isinstance(block, int) else self._plain(block)
            # Where nothing may change the outer space says why, unless it is one unit, which nobody thinks of.
            only_one = space is not None and space.size == 1 and bool(space.pins)
            if not isinstance(inner, int) and not only_one and not _any_free(spaces_on(inner)):
                inner = length(inner)
            if space is None or isinstance(inner, int):
                out.append((None, length(((space, inner),))) if self._is_number(space) else (space, inner))
            elif space.pins:
                out += inner * space.size
            else:
                out.append((space, inner))
        return tuple(out)

    def _is_number(self, space: Space | None) -> bool:
        """Whether a space is a factor that cannot change and is no layer's width."""
        if space is None or self._widths is None or space in self._widths:
            return False
        return space.factor and bool(space.pins)
