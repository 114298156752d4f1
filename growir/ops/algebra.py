"""The algebra of channel spaces: they unify by substitution, as in type inference.

A space that turns out to be two, or blocks of another one, is bound to the terms it really is, and `resolve` reads
through the bindings.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise

from growir.ops.spaces import (
    Axes,
    Axis,
    Block,
    Pin,
    Space,
    Term,
    as_axis,
    as_block,
    extent,
    fixed,
    length,
    spaces_on,
)

MAX_PINS = 8  # reasons kept per space; more would not help a reader
# An axis is spelled out row by row, which takes seconds for so many; one of more rows stays as wide as it is.
MAX_ROWS = 2**18
MANY_ROWS = f"is laid out in more than {MAX_ROWS:,} rows"


def _is_plain(axis: Axis) -> bool:
    """Whether all spaces are unbound, no fixed positions stand side by side, and no block is fixed positions only."""
    fixed_before = False
    for space, block in axis:
        if space is None:
            if fixed_before or not block:
                return False
            fixed_before = True
            continue
        if space.bind is not None:
            return False
        if not isinstance(block, int) and (isinstance(as_block(block), int) or not _is_plain(block)):
            return False
        fixed_before = False
    return True


class Algebra:
    """Spaces of one graph, with rollback for trial choices.

    Attributes:
        node: The node whose rule is being applied; pins are blamed on it.
    """

    def __init__(self) -> None:
        self.node = ""
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
        if space.pins:
            for inner in spaces_on(self.resolve(target)):
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
        if len(axis) == 1 and isinstance(axis[0][1], int) and ((only := axis[0][0]) is None or only.bind is None):
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
            if space is not None and space.bind is not None:
                parts = self._parts(space)
                terms = parts if block == 1 else self.times(parts, self._inside(block))
            elif isinstance(block, int):
                terms = (term,)
            else:
                terms = ((space, self._inside(block)),)
            for one, inner in terms:
                if one is not None:
                    out.append((one, inner))
                elif out and out[-1][0] is None:
                    out[-1] = (None, extent(out[-1][1]) + extent(inner))
                elif inner:
                    out.append((None, inner))
        return tuple(out)

    def _inside(self, block: Block) -> Block:
        return block if isinstance(block, int) else as_block(self.resolve(block))

    def _parts(self, space: Space) -> Axis:
        """The terms that a bound space really is. It is bound to them from now on, so that chains stay short."""
        assert space.bind is not None
        if _is_plain(space.bind):
            return space.bind
        out: list[Term] = []
        for term in space.bind:
            stack = [term]
            while stack:
                inner, block = stack.pop()
                if inner is None or inner.bind is None:
                    out.append((inner, self._inside(block)))
                    continue
                if len(inner.bind) == 1:
                    target, factor = inner.bind[0]
                    # Every second link is skipped, which keeps long chains of joins linear.
                    if target is not None and target.bind is not None and len(target.bind) == 1:
                        self._rebind(inner, self.times(target.bind, factor))
                stack.extend(reversed(self.times(inner.bind, block)))
        found = tuple(out)
        self._rebind(space, found)
        return found

    def times(self, axis: Axis, block: Block) -> Axis:
        """The axis with every position replaced by a block: several axes read as one, row by row.

        heads ((H, 1),) times size 4:                   ((H, 4),)
        three fixed positions times heads of size 4:    ((H, 4), (H, 4), (H, 4))
        groups ((G, 1),) times heads of size 4:         ((G, ((H, 4),)),)
        """
        if block == 1:
            return axis
        out: list[Term] = []
        for space, inner in axis:
            if space is None:
                out += self.copies(block, extent(inner))
            elif isinstance(inner, int) and isinstance(block, int):
                out.append((space, inner * block))
            else:
                out.append((space, as_block(self.times(as_axis(inner), block))))
        return tuple(out)

    def copies(self, block: Block, count: int) -> Axis:
        """A block so many times in a row."""
        if isinstance(block, int):
            return fixed(block * count)
        if len(block) * count > MAX_ROWS:
            self.pin(block, MANY_ROWS)
            return fixed(length(block) * count)
        return block * count

    # -- writing --------------------------------------------------------------------------------------------------

    def pin(self, axis: Axis, reason: str) -> None:
        """Forbid every space on this axis to change its width."""
        for space in spaces_on(self.resolve(axis)):
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
        parts = tuple([Space(end - start, space.factor) for start, end in pairwise((0, *at, space.size))])
        self._bind(space, tuple([(part, 1) for part in parts]))
        return parts

    def _front(self, term: tuple[Space, Block], units: int, rest: list[Term]) -> Space:
        """The first `units` units of a term as a space of their own; what is left goes back on the stack."""
        space, block = term
        if units == space.size:
            return space
        head, tail = self.split(space, (units,))
        rest.append((tail, block))
        return head

    def _open(self, term: tuple[Space, Block], units: int, rest: list[Term], reason: str) -> None:
        """Pin the first units of a term; what they hold goes back on the stack, unit by unit."""
        block = term[1]
        head = self._front(term, units, rest)
        self._pin(head, (Pin(self.node, reason),))
        rest.extend(reversed(self.copies(block, units)))

    def _freeze(self, term: tuple[Space, Block], positions: int, rest: list[Term], reason: str) -> int:
        """Pin what covers the next positions of a term; return how many positions were covered."""
        space, block = term
        size = extent(block)
        whole = min(space.size, positions // size)
        if not whole:
            # Fewer positions than one unit has: of its block, only what lies on them is pinned.
            self._open(term, 1, rest, reason)
            return 0
        head = self._front(term, whole, rest)
        self._pin(head, (Pin(self.node, reason),))
        if not isinstance(block, int):
            self.pin(block, reason)
        return whole * size

    def unify(self, a: Axis, b: Axis, reason: str) -> None:
        """Make two axes of one length the same list of units, binding and pinning what that takes.

        A space C of 12 channels and heads of a size, ((H, ((D, 1),)),) with 3 times 4 positions, both new: C is bound
        to the product, and each of H and D may grow. Meets that axis a second one of blocks, ((M, 6),), its units of
        6 and those of 4 have 12 in common: H is bound to three units of one such unit X, and M to two.
        """
        one, two = self.resolve(a), self.resolve(b)
        if one == two:
            return
        left, right = list(reversed(one)), list(reversed(two))
        while left and right:
            (s, i), (t, j) = left.pop(), right.pop()
            # An earlier step of this loop may have bound a space that comes again, also inside a block.
            if (one := self.resolve(((s, i),))) != ((s, i),) or self.resolve(((t, j),)) != ((t, j),):
                left.extend(reversed(one))
                right.extend(reversed(self.resolve(((t, j),))))
            elif s is None and t is None:
                if i != j:
                    more = extent(i) - extent(j)
                    (left if more > 0 else right).append((None, abs(more)))
            elif s is None or t is None:
                why = f"{reason} with positions that cannot change"
                if s is None and t is not None:
                    done, owed, stack = self._freeze((t, j), extent(i), right, why), extent(i), left
                else:
                    assert s is not None
                    done, owed, stack = self._freeze((s, i), extent(j), left, why), extent(j), right
                if owed > done:
                    stack.append((None, owed - done))
            else:
                self._unify_spaces((s, i), (t, j), left, right, reason)

    def _unify_spaces(
        self, a: tuple[Space, Block], b: tuple[Space, Block], left: list[Term], right: list[Term], reason: str
    ) -> None:
        (s, i), (t, j) = a, b
        wide, narrow = extent(i), extent(j)
        if s is t and wide == narrow:
            self.unify(as_axis(i), as_axis(j), reason)
            return
        if s is t or t in spaces_on(as_axis(i)) or s in spaces_on(as_axis(j)):
            # No unit holds itself: the one that holds the other stays as often as it is there.
            if s is t or t in spaces_on(as_axis(i)):
                self._open(a, s.size, left, reason)
            else:
                left.append(a)
            if s is t or s in spaces_on(as_axis(j)):
                self._open(b, t.size, right, reason)
            else:
                right.append(b)
            return
        whole = math.lcm(wide, narrow)
        units = min(s.size * wide, t.size * narrow) // whole
        if not units:
            # Less than one common unit is left: nothing can be copied there without tearing a unit apart.
            if wide >= narrow:
                self._open(a, 1, left, reason)
                right.append(b)
            else:
                left.append(a)
                self._open(b, 1, right, reason)
            return
        many, few = whole // wide, whole // narrow  # units of s, and of t, in one common unit
        s = self._front(a, units * many, left)
        t = self._front(b, units * few, right)
        if many == few == 1:
            if s.factor and not t.factor:
                s, t = t, s
            self._bind(t, ((s, 1),))
            self.unify(as_axis(i), as_axis(j), reason)
        elif many == 1:
            self._nest(t, j, few, s, i, reason)
        elif few == 1:
            self._nest(s, i, many, t, j, reason)
        else:
            common = Space(units, s.factor and t.factor)
            self._bind(s, ((common, many),))
            self._bind(t, ((common, few),))
            if not (isinstance(i, int) and isinstance(j, int)):
                self.unify(self.copies(i, many), self.copies(j, few), reason)

    def _nest(self, inner: Space, small: Block, count: int, outer: Space, large: Block, reason: str) -> None:
        """Bind a space to blocks of `count` of its units, one block for each unit of another space."""
        if isinstance(large, int):
            self._bind(inner, ((outer, count),))
            self.unify(self.copies(small, count), fixed(large), reason)
            return
        part = Space(count, factor=True)
        self._bind(inner, ((outer, ((part, 1),)),))
        self.unify(((part, small),), large, reason)

    def cut(self, axis: Axis, bounds: Sequence[int], reason: str) -> tuple[Axis, ...]:
        """Cut an axis at ascending positions; a bound inside a block pins that one unit."""
        whole = self.resolve(axis)
        while True:
            self._split_at(whole, bounds, reason)
            whole = self.resolve(whole)
            opened = self._opened(whole, bounds)
            if opened is whole:
                break
            whole = self.resolve(opened)
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
            ends = list(accumulate([length((term,)) for term in axis]))
            known = self._lengths[id(axis)] = axis, ends
        return known[1]

    def _opened(self, axis: Axis, bounds: Sequence[int]) -> Axis:
        """A resolved axis with what lies in each torn unit in place of the unit; itself where they hold positions."""
        ends = self._ends(axis)
        torn: set[int] = set()
        for bound in bounds:
            k = bisect_left(ends, bound)
            if bound and ends[k] != bound and not isinstance(axis[k][1], int):
                torn.add(k)
        if not torn:
            return axis
        return tuple([part for k, term in enumerate(axis) for part in (as_axis(term[1]) if k in torn else (term,))])

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
                unit, within = divmod(bound - (ends[k - 1] if k else 0), extent(block))
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
        """Units on an axis that are not pinned, of outer spaces and in each of their blocks."""
        found = 0
        for space, block in self.resolve(axis):
            if space is not None:
                found += 0 if space.pins else space.size
                found += 0 if isinstance(block, int) else space.size * self.free_units(block)
        return found

    def held(self, axis: Axis) -> int:
        """Positions on an axis that may not change, pinned or of no space; counted again for each axis of a block."""
        found = 0
        for space, block in self.resolve(axis):
            if space is None or space.pins:
                found += length(((space, block),))
            if space is not None and not isinstance(block, int):
                found += space.size * self.held(block)
        return found

    def is_fixed(self, axis: Axis) -> bool:
        """Whether no space lies on an axis."""
        return all(space is None for space, _ in self.resolve(axis))

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
            out.extend(self._unmerge(self._merge(group), sizes[first:j]))
        return tuple(out)

    def _merge(self, group: Sequence[Axis]) -> Axis:
        """Several axes read as one, row by row."""
        merged: Axis = fixed(1)
        for axis in group:
            # What is pinned already has a width to rely on as much as positions of no space.
            merged = self.times(merged, self.resolve(axis) if self.free_units(axis) else length(axis))
        return merged

    def _unmerge(self, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
        """One axis split into several, each factor a space of its own: whatever pins one leaves the others free."""
        if not sizes:
            self.pin(axis, "an axis of width 1 is dropped")
            return []
        if self.is_fixed(axis):
            return [fixed(size) for size in sizes]
        last = max((k for k, size in enumerate(sizes) if size != 1), default=0)
        if not last:
            return [axis, *(fixed(size) for size in sizes[1:])]
        factors: list[Axis] = [((Space(size, factor=True), 1),) for size in sizes[: last + 1]]
        product: Axis = fixed(1)
        for factor in factors:
            product = self.times(product, factor)
        self.unify(axis, product, "is reshaped into parts that no whole unit fits")
        return [self.resolve(factor) for factor in factors] + [fixed(size) for size in sizes[last + 1 :]]
