"""The algebra of channel spaces.

Every axis of every value is a list of terms: (space, block), each unit of the space being `block` adjacent positions,
or (None, n), n positions that belong to no space. A space is a *copy structure*, how many copies of which unit, not an
identity: "tied" and "same" are one relation. Spaces unify by substitution, as in type inference: a space that turns out
to be two, or blocks of another one, is bound to the terms it really is, and `resolve` reads through the bindings.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

MAX_PINS = 8  # reasons kept per space; more would not help a reader
# An axis is spelled out row by row, which takes seconds for so many; one of more rows stays as wide as it is.
MAX_ROWS = 2**18
MANY_ROWS = f"is laid out in more than {MAX_ROWS:,} rows"


@dataclass(frozen=True, slots=True)
class Pin:
    """Why a space may not change its width: the node that forbids it and the reason."""

    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node} ({self.reason})"


class Space:
    """A set of `size` channels that come and go together wherever they appear."""

    __slots__ = ("bind", "pins", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.bind: Axis | None = None
        self.pins: tuple[Pin, ...] = ()


Term = tuple[Space | None, int]
Axis = tuple[Term, ...]
Axes = tuple[Axis, ...]


def fixed(size: int) -> Axis:
    """An axis of positions that belong to no space."""
    return ((None, size),)


def length(axis: Axis) -> int:
    """Positions on an axis."""
    return sum(block if space is None else space.size * block for space, block in axis)


def _is_plain(axis: Axis) -> bool:
    """Whether all spaces are unbound and no fixed positions stand side by side."""
    fixed_before = False
    for space, block in axis:
        if space is None:
            if fixed_before or not block:
                return False
            fixed_before = True
        elif space.bind is not None:
            return False
        else:
            fixed_before = False
    return True


@dataclass(frozen=True, slots=True)
class Choice:
    """A reshape that could let one of several factors scale, and the one it took.

    Attributes:
        node: The reshape.
        axis: The factor's axis in the result, counted from the end.
        factor: Its terms.
    """

    node: str
    axis: int
    factor: Axis


class Algebra:
    """Spaces of one graph, with rollback for trial choices.

    Attributes:
        node: The node whose rule is being applied; pins are blamed on it.
        forbidden: Axes, counted from the end, that this node must not choose to scale.
        choices: Every choice among factors so far.
    """

    def __init__(self) -> None:
        self.node = ""
        self.forbidden: frozenset[int] = frozenset()
        self.choices: list[Choice] = []
        self._trail: list[tuple[Space, Axis | None, tuple[Pin, ...]]] | None = None
        # What `resolve` and `_ends` found, by the axis's id; kept until a space is bound.
        self._resolved: dict[int, tuple[Axis, Axis]] = {}
        self._lengths: dict[int, tuple[Axis, list[int]]] = {}

    # -- the one place where spaces change ------------------------------------------------------------------------

    def _set(self, space: Space, bind: Axis | None, pins: tuple[Pin, ...]) -> None:
        if self._trail is not None:
            self._trail.append((space, space.bind, space.pins))
        space.bind, space.pins = bind, pins

    def _bind(self, space: Space, target: Axis) -> None:
        for inner, _ in target:
            if inner is not None and space.pins:
                self._pin(inner, space.pins)
        self._rebind(space, target)
        self._forget()

    def _rebind(self, space: Space, target: Axis) -> None:
        """Bind to other terms; by itself, only to such that mean the same."""
        self._set(space, target, space.pins)

    def _forget(self) -> None:
        self._resolved.clear()
        self._lengths.clear()

    def attempt(self, action: Callable[[], bool]) -> bool:
        """Run an action and undo all it did to spaces unless it returns True."""
        outer, self._trail = self._trail, []
        kept = action()
        trail, self._trail = self._trail, outer
        if kept:
            if outer is not None:
                outer.extend(trail)
        else:
            for space, bind, pins in reversed(trail):
                space.bind, space.pins = bind, pins
            self._forget()
        return kept

    # -- reading --------------------------------------------------------------------------------------------------

    def resolve(self, axis: Axis) -> Axis:
        """The same axis in terms of unbound spaces, neighbouring fixed positions joined.

        Axes that are one object before are one object after, as long as nothing is bound in between.
        """
        if len(axis) == 1 and ((only := axis[0][0]) is None or only.bind is None):
            return axis
        known = self._resolved.get(id(axis))
        if known is not None:
            return known[1]
        found = axis if _is_plain(axis) else self._expanded(axis)
        self._resolved[id(axis)] = axis, found  # with the axis, so that its id stays taken
        return found

    def _expanded(self, axis: Axis) -> Axis:
        out: list[Term] = []
        for term in axis:
            space, block = term
            if space is None:
                if out and out[-1][0] is None:
                    out[-1] = (None, out[-1][1] + block)
                elif block:
                    out.append(term)
            elif space.bind is None:
                out.append(term)
            else:
                parts = self._parts(space)
                out.extend(parts if block == 1 else [(s, b * block) for s, b in parts])
        return tuple(out)

    def _parts(self, space: Space) -> Axis:
        """The terms that a bound space really is. It is bound to them from now on, so that chains stay short."""
        assert space.bind is not None
        if _is_plain(space.bind):
            return space.bind
        out: list[Term] = []
        for term in space.bind:
            if term[0] is None or term[0].bind is None:
                out.append(term)
                continue
            stack = [term]
            while stack:
                inner, block = stack.pop()
                if inner is None or inner.bind is None:
                    out.append((inner, block))
                    continue
                if len(inner.bind) == 1:
                    target, factor = inner.bind[0]
                    # Every second link is skipped, which keeps long chains of joins linear.
                    if target is not None and target.bind is not None and len(target.bind) == 1:
                        further, more = target.bind[0]
                        self._rebind(inner, ((further, factor * more),))
                stack.extend([(s, b * block) for s, b in reversed(inner.bind)])
        found = tuple(out)
        self._rebind(space, found)
        return found

    # -- writing --------------------------------------------------------------------------------------------------

    def pin(self, axis: Axis, reason: str) -> None:
        """Forbid every space on this axis to change its width."""
        for space, _ in self.resolve(axis):
            if space is not None:
                self._pin(space, (Pin(self.node, reason),))

    def _pin(self, space: Space, pins: Iterable[Pin]) -> None:
        if len(space.pins) < MAX_PINS:
            merged = tuple(dict.fromkeys((*space.pins, *pins)))[:MAX_PINS]
            if merged != space.pins:
                self._set(space, space.bind, merged)

    def bounded(self, axis: Axis) -> Axis:
        """The axis, or one that stays as it is where it has come to so many terms that nobody could work with them."""
        if len(axis) <= MAX_ROWS:
            return axis
        self.pin(axis, MANY_ROWS)
        return fixed(length(axis))

    def split(self, space: Space, at: Sequence[int]) -> tuple[Space, ...]:
        """Bind a space to several: its units up to each of these ascending numbers, and the rest."""
        parts = tuple([Space(end - start) for start, end in pairwise((0, *at, space.size))])
        self._bind(space, tuple([(part, 1) for part in parts]))
        return parts

    def _front(self, term: tuple[Space, int], units: int, rest: list[Term]) -> Space:
        """The first `units` units of a term as a space of their own; what is left goes back on the stack."""
        space, block = term
        if units == space.size:
            return space
        head, tail = self.split(space, (units,))
        rest.append((tail, block))
        return head

    def _freeze(self, term: tuple[Space, int], positions: int, rest: list[Term], reason: str) -> int:
        """Pin the units that cover the next positions of a term; return how many positions were covered."""
        space, block = term
        units = min(space.size, -(-positions // block))
        head = self._front(term, units, rest)
        self._pin(head, (Pin(self.node, reason),))
        covered = min(positions, units * block)
        if units * block > covered:
            rest.append((None, units * block - covered))
        return covered

    def unify(self, a: Axis, b: Axis, reason: str) -> None:
        """Make two axes of one length the same list of units, binding and pinning what that takes."""
        one, two = self.resolve(a), self.resolve(b)
        if one == two:
            return
        left, right = list(reversed(one)), list(reversed(two))
        while left and right:
            (s, i), (t, j) = left.pop(), right.pop()
            # An earlier step of this loop may have bound a space that comes again.
            if (s is not None and s.bind is not None) or (t is not None and t.bind is not None):
                left.extend(reversed(self.resolve(((s, i),))))
                right.extend(reversed(self.resolve(((t, j),))))
            elif s is None and t is None:
                if i != j:
                    (left if i > j else right).append((None, abs(i - j)))
            elif s is None or t is None:
                why = f"{reason} with positions that cannot change"
                if s is None and t is not None:
                    done, owed, stack = self._freeze((t, j), i, right, why), i, left
                else:
                    assert s is not None
                    done, owed, stack = self._freeze((s, i), j, left, why), j, right
                if owed > done:
                    stack.append((None, owed - done))
            elif s is t:
                if i != j:
                    self._pin(s, (Pin(self.node, reason),))
                    left.append((None, s.size * i))
                    right.append((None, t.size * j))
            else:
                self._unify_spaces((s, i), (t, j), left, right, reason)

    def _unify_spaces(
        self, a: tuple[Space, int], b: tuple[Space, int], left: list[Term], right: list[Term], reason: str
    ) -> None:
        (s, i), (t, j) = a, b
        whole = math.lcm(i, j)
        units = min(s.size * i, t.size * j) // whole
        if not units:
            # Less than one common unit is left: nothing can be copied there without tearing a unit apart.
            positions = min(s.size * i, t.size * j)
            done = self._freeze(a, positions, left, reason)
            self._freeze(b, done, right, reason)
            return
        s = self._front(a, units * (whole // i), left)
        t = self._front(b, units * (whole // j), right)
        if whole == i:
            self._bind(t, ((s, whole // j),))
        elif whole == j:
            self._bind(s, ((t, whole // i),))
        else:
            common = Space(units)
            self._bind(s, ((common, whole // i),))
            self._bind(t, ((common, whole // j),))

    def cut(self, axis: Axis, bounds: Sequence[int], reason: str) -> tuple[Axis, ...]:
        """Cut an axis at ascending positions; a bound inside a block pins that one unit."""
        self._split_at(self.resolve(axis), bounds, reason)
        whole = self.resolve(axis)
        ends = self._ends(whole)
        pieces: list[Axis] = []
        start = first = 0  # of the piece: its position, and the term that lies there
        for bound in (*bounds, ends[-1]):
            last = bisect_left(ends, bound, first)  # the term in which the piece ends, or behind which
            if bound == start:
                pieces.append(())
                continue
            before = ends[first - 1] if first else 0
            if start == before and ends[last] == bound:
                pieces.append(whole[first : last + 1])
            else:  # half of a pinned unit, or of fixed positions, at one end or at both
                inner = list(whole[first : last + 1])
                if ends[last] > bound:
                    inner[-1] = (None, bound - max(start, ends[last - 1] if last else 0))
                if start > before and last > first:
                    inner[0] = (None, ends[first] - start)
                elif start > before:
                    inner[0] = (None, bound - start)
                pieces.append(self.resolve(tuple(inner)))
            start = bound
            first = last + 1 if ends[last] == bound else last
        return tuple(pieces)

    def _ends(self, axis: Axis) -> list[int]:
        """Where each term of a resolved axis ends."""
        known = self._lengths.get(id(axis))
        if known is None:
            ends = list(accumulate([block if space is None else space.size * block for space, block in axis]))
            known = self._lengths[id(axis)] = axis, ends
        return known[1]

    def _split_at(self, axis: Axis, bounds: Sequence[int], reason: str) -> None:
        """Split spaces of a resolved axis so that no bound lies within one, but for torn units, which are pinned."""
        ends = self._ends(axis)
        cuts: dict[Space, set[int]] = {}
        torn: dict[Space, set[int]] = {}
        for bound in bounds:
            k = bisect_left(ends, bound)
            if not bound or ends[k] == bound:
                continue
            space, block = axis[k]
            if space is not None:
                unit, within = divmod(bound - (ends[k - 1] if k else 0), block)
                cuts.setdefault(space, set()).add(unit)
                if within:
                    cuts[space].add(unit + 1)
                    torn.setdefault(space, set()).add(unit)
        for space, units in cuts.items():
            inside = sorted(units - {0, space.size})
            parts = self.split(space, inside) if inside else (space,)
            for part, first in zip(parts, (0, *inside), strict=True):
                if first in torn.get(space, ()):
                    self._pin(part, (Pin(self.node, reason),))

    def free_units(self, axis: Axis) -> int:
        """Units on an axis that are not pinned."""
        return sum(space.size for space, _ in self.resolve(axis) if space is not None and not space.pins)

    def held(self, axis: Axis) -> int:
        """Positions on an axis that may not change, pinned or of no space."""
        return sum(
            block if space is None else space.size * block
            for space, block in self.resolve(axis)
            if space is None or space.pins
        )

    def reshape(self, old: Axes, sizes: Sequence[int]) -> Axes:
        """The axes after a row-major reshape to these sizes (the batch left out on both sides)."""
        out: list[Axis] = []
        i = j = 0
        while i < len(old) or j < len(sizes):
            group: list[Axis] = []
            a = b = 1
            first = j
            while i < len(old) and (a < b or not group):
                group.append(old[i])
                a *= length(old[i])
                i += 1
            while j < len(sizes) and (b < a or j == first):
                b *= sizes[j]
                j += 1
                while a < b and i < len(old):
                    group.append(old[i])
                    a *= length(old[i])
                    i += 1
            # Trailing ones belong to the last group.
            out.extend(self._unmerge(self._merge(group), sizes[first:j], first - len(sizes)))
        return tuple(out)

    def _merge(self, group: Sequence[Axis]) -> Axis:
        """Several axes read as one, row by row."""
        merged: Axis = fixed(1)
        for axis in group:
            inner, rows = length(axis), length(merged)
            # What is pinned already has a width to rely on as much as positions of no space.
            inner_fixed, outer_fixed = not self.free_units(axis), self.is_fixed(merged)
            if outer_fixed and rows == 1:
                merged = axis
            elif inner_fixed:
                merged = tuple((space, block * inner) for space, block in merged)
            elif rows > MAX_ROWS:
                self.pin(merged, MANY_ROWS)
                self.pin(axis, MANY_ROWS)
                merged = fixed(rows * inner)
            else:
                if not outer_fixed:
                    self.pin(merged, "is flattened together with another free axis")
                merged = axis * rows
        return merged

    def is_fixed(self, axis: Axis) -> bool:
        """Whether no space lies on an axis."""
        return all(space is None for space, _ in self.resolve(axis))

    def _unmerge(self, axis: Axis, sizes: Sequence[int], first: int) -> list[Axis]:
        """One axis split into several: the factor that keeps most units free scales, the others stay fixed.

        `first` is where the first factor lies in the whole result, counted from its end.
        """
        if not sizes:
            self.pin(axis, "an axis of width 1 is dropped")
            return []
        if sum(size != 1 for size in sizes) <= 1:
            big = next((k for k, size in enumerate(sizes) if size != 1), 0)
            # A factor of 1 before it may scale in its place, in whole blocks: a single head of attention.
            before = [k for k in range(big) if first + k not in self.forbidden]
            chosen = before[-1] if before and first + big in self.forbidden else big
            whole = axis if chosen == big else self._scale_factor(axis, sizes, chosen)
            if before and chosen == big and not self.is_fixed(axis):
                self.choices.append(Choice(self.node, first + big, axis))
            return [whole if k == chosen else fixed(sizes[k]) for k in range(len(sizes))]
        if self.is_fixed(axis):
            return [fixed(size) for size in sizes]
        best, free, options = None, 0, 0
        for k in range(len(sizes)):
            if first + k in self.forbidden:
                continue
            units = self._scaled_units(axis, sizes, k)
            options += units > 0
            if units >= free and units:
                best, free = k, units
        if best is None:
            self.pin(axis, "is reshaped into parts that no whole unit fits")
            return [fixed(size) for size in sizes]
        row = self._scale_factor(axis, sizes, best)
        if options > 1:
            self.choices.append(Choice(self.node, first + best, row))
        return [row if k == best else fixed(size) for k, size in enumerate(sizes)]

    def _scaled_units(self, axis: Axis, sizes: Sequence[int], k: int) -> int:
        found = 0

        def trial() -> bool:
            nonlocal found
            found = self.free_units(self._scale_factor(axis, sizes, k))
            return False

        self.attempt(trial)
        return found

    def _scale_factor(self, axis: Axis, sizes: Sequence[int], k: int) -> Axis:
        before, after = math.prod(sizes[:k]), math.prod(sizes[k + 1 :])
        if before > MAX_ROWS:
            self.pin(axis, MANY_ROWS)
            return fixed(sizes[k])
        row = length(axis) // before
        rows = self.cut(axis, [row * r for r in range(1, before)], "is reshaped across its units")
        for other in rows[1:]:
            self.unify(rows[0], other, "is reshaped into rows")
        factor: Axis = ((Space(sizes[k]), 1),)
        self.unify(rows[0], tuple((space, after) for space, _ in factor), "is reshaped into blocks")
        return self.resolve(factor)
