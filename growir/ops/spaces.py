"""The algebra of channel spaces.

Every axis of every value is a list of terms: (space, block), each unit of the space being `block` adjacent positions,
or (None, n), n positions that belong to no space. A space is a *copy structure*, how many copies of which unit, not an
identity: "tied" and "same" are one relation. Spaces unify by substitution, as in type inference: a space that turns out
to be two, or blocks of another one, is bound to the terms it really is, and `resolve` reads through the bindings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

MAX_PINS = 8  # reasons kept per space; more would not help a reader


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

    # -- the one place where spaces change ------------------------------------------------------------------------

    def _set(self, space: Space, bind: Axis | None, pins: tuple[Pin, ...]) -> None:
        if self._trail is not None:
            self._trail.append((space, space.bind, space.pins))
        space.bind, space.pins = bind, pins

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
        return kept

    # -- reading --------------------------------------------------------------------------------------------------

    def resolve(self, axis: Axis) -> Axis:
        """The same axis in terms of unbound spaces, neighbouring fixed positions joined."""
        if len(axis) == 1 and ((only := axis[0][0]) is None or only.bind is None):
            return axis
        out: list[Term] = []
        stack = list(reversed(axis))
        while stack:
            space, block = stack.pop()
            if space is None:
                if out and out[-1][0] is None:
                    out[-1] = (None, out[-1][1] + block)
                elif block:
                    out.append((None, block))
            elif space.bind is None:
                out.append((space, block))
            else:
                if len(space.bind) == 1:
                    target, inner = space.bind[0]
                    # Path compression keeps long chains of joins linear.
                    if target is not None and target.bind is not None and len(target.bind) == 1:
                        further, more = target.bind[0]
                        self._set(space, ((further, inner * more),), space.pins)
                stack.extend((s, b * block) for s, b in reversed(space.bind))
        return tuple(out)

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

    def _bind(self, space: Space, target: Axis) -> None:
        for inner, _ in target:
            if inner is not None and space.pins:
                self._pin(inner, space.pins)
        self._set(space, target, space.pins)

    def split(self, space: Space, at: int) -> tuple[Space, Space]:
        """Bind a space to two: its first `at` units and the rest."""
        head, tail = Space(at), Space(space.size - at)
        self._bind(space, ((head, 1), (tail, 1)))
        return head, tail

    def _front(self, term: tuple[Space, int], units: int, rest: list[Term]) -> Space:
        """The first `units` units of a term as a space of their own; what is left goes back on the stack."""
        space, block = term
        if units == space.size:
            return space
        head, tail = self.split(space, units)
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
        left, right = list(reversed(self.resolve(a))), list(reversed(self.resolve(b)))
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
        pieces: list[Axis] = []
        rest = list(reversed(self.resolve(axis)))
        at = 0
        for end in [*bounds, length(axis)]:
            piece: list[Term] = []
            while at < end:
                space, block = rest.pop()
                room = end - at
                if space is None:
                    if block > room:
                        rest.append((None, block - room))
                    piece.append((None, min(block, room)))
                    at += min(block, room)
                elif space.bind is not None:  # an earlier cut went through the same space
                    rest.extend(reversed(self.resolve(((space, block),))))
                elif room < block:
                    at += self._freeze((space, block), room, rest, reason)
                    piece.append((None, room))
                else:
                    units = min(space.size, room // block)
                    piece.append((self._front((space, block), units, rest), block))
                    at += units * block
            pieces.append(tuple(piece))
        # A later cut may have gone through a space of an earlier piece.
        return tuple(self.resolve(piece) for piece in pieces)

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
            return [axis if k == big else fixed(1) for k in range(len(sizes))]
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
        row = length(axis) // before
        rows = self.cut(axis, [row * r for r in range(1, before)], "is reshaped across its units")
        for other in rows[1:]:
            self.unify(rows[0], other, "is reshaped into rows")
        factor: Axis = ((Space(sizes[k]), 1),)
        self.unify(rows[0], tuple((space, after) for space, _ in factor), "is reshaped into blocks")
        return self.resolve(factor)


@dataclass(frozen=True, slots=True)
class Follower:
    """An attribute that is the width of an axis: `node.attribute`, or one entry of it."""

    node: str
    attribute: str
    index: int | None
    axis: Axis


@dataclass(frozen=True, slots=True)
class Selected:
    """An attribute that lists positions of an axis: `node.attribute` is to hold where these old positions went."""

    node: str
    attribute: str
    axis: Axis
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """Rows that must stay of one length: groups that take different channels, but equally many."""

    node: str
    rows: Axes


@dataclass(slots=True)
class ParamAxes:
    """How one parameter's axes are made of spaces.

    `consumes` are the axes that some use sums over, `produces` those that some use makes channels of: a tied tensor may
    do both. Unless an axis consumes, a new channel needs new entries there. Where the groups of a convolution take
    different channels, `rows` says what each group's part of axis 1 is made of; axis 0 falls into as many equal parts.
    """

    axes: Axes
    consumes: frozenset[int]
    produces: frozenset[int]
    rows: Axes = ()


@dataclass(slots=True)
class Rule:
    """What an operator's channel rule works with: the algebra, and a record of parameters and attributes."""

    algebra: Algebra
    node: str
    inputs: tuple[str, ...]
    sizes: tuple[int, ...]  # of the output, the batch as 1
    owners: dict[str, str] = field(default_factory=dict[str, str])  # parameter name -> key of the owner, where tied
    sources: dict[str, str] = field(default_factory=dict[str, str])  # value -> key of the tensor it is a part of
    weights: set[tuple[str, str]] = field(
        default_factory=set[tuple[str, str]]
    )  # (value, node that uses it as a weight)
    params: dict[str, ParamAxes] = field(default_factory=dict[str, ParamAxes])
    followers: list[Follower] = field(default_factory=list[Follower])
    selected: list[Selected] = field(default_factory=list[Selected])
    balances: list[Balance] = field(default_factory=list[Balance])
    partial: list[Axes] = field(default_factory=list[Axes])
    uniform: list[tuple[str, Axis]] = field(default_factory=list[tuple[str, Axis]])
    random: list[Axes] = field(default_factory=list[Axes])

    def new(self, size: int) -> Axis:
        """An axis of new channels."""
        return ((Space(size), 1),)

    def param(self, name: str, axes: Axes, *, consumes: Sequence[int] = (), rows: Axes = ()) -> None:
        """Say how a parameter's axes follow spaces; axes in `consumes` are summed over.

        `rows` are what `groups` gave for axis 1, where every group takes its own part of the input.
        """
        key = self.owners.get(name, f"{self.node}.{name}")
        made = frozenset(range(len(axes))) - frozenset(consumes)
        known = self.params.get(key)
        if known is None:
            self.params[key] = ParamAxes(axes, frozenset(consumes), made, rows)
            return
        for a, b in zip((*known.axes, *known.rows), (*axes, *rows), strict=True):
            self.algebra.unify(a, b, f"shares {key}")
        known.consumes |= frozenset(consumes)
        known.produces |= made

    def follows(self, attribute: str, axis: Axis, index: int | None = None) -> None:
        """Say that an attribute is the width of an axis."""
        self.followers.append(Follower(self.node, attribute, index, axis))

    def pick(self, attribute: str, axis: Axis, positions: Sequence[int]) -> Axis:
        """The axis that holds these positions of another, in this order; the attribute lists them."""
        if self.algebra.is_fixed(axis):
            return fixed(len(positions))
        runs: list[tuple[int, int]] = []
        for at in positions:
            if runs and runs[-1][1] == at:
                runs[-1] = (runs[-1][0], at + 1)
            else:
                runs.append((at, at + 1))
        bounds = sorted({bound for run in runs for bound in run} - {0, length(axis)})
        pieces = self.algebra.cut(axis, bounds, "positions inside a block of channels are selected")
        starts = {start: k for k, start in enumerate((0, *bounds))}
        ends = {end: k + 1 for k, end in enumerate((*bounds, length(axis)))}
        self.selected.append(Selected(self.node, attribute, axis, tuple(positions)))
        return tuple(term for start, end in runs for piece in pieces[starts[start] : ends[end]] for term in piece)

    def groups(self, axis: Axis, count: int) -> tuple[Axis, Axes]:
        """The input channels of each of `count` groups: one row for all, and the rows where they must differ.

        Groups that take the same channels come and go together. Where that would pin something, they need only stay
        equally long: the second result then holds each group's own row, and is empty otherwise.
        """
        if count == 1:
            return axis, ()
        width = length(axis) // count
        bounds = [width * g for g in range(1, count)]
        rows = self.algebra.cut(axis, bounds, "a channel belongs to two groups here")
        held = self.algebra.held(axis)

        def alike() -> bool:
            for other in rows[1:]:
                self.algebra.unify(rows[0], other, "every group takes the same channels")
            return self.algebra.held(axis) == held

        if self.algebra.attempt(alike):
            return rows[0], ()
        self.balances.append(Balance(self.node, rows))
        return rows[0], rows

    def value(self, key: str) -> None:
        """Say that this node's value is a stored tensor, or a part of it, with the same axes."""
        self.sources[self.node] = key

    def consumes_value(self, position: int, axis: int, axes: Axes) -> None:
        """Say that an input is a weight which is summed over along an axis."""
        source = self.inputs[position]
        key = self.sources.get(source)
        if key is None:
            # A computed weight: nothing says which entries a new channel would meet.
            self.algebra.pin(axes[axis], "meets a weight that is computed")
            return
        self.params[key].consumes |= {axis}
        self.weights.add((source, self.node))

    def fixed(self, axes: Sequence[Axis], reason: str) -> None:
        """Pin axes along which this node mixes positions."""
        for axis in axes:
            self.algebra.pin(axis, reason)

    def only_whole(self, axis: Axis) -> None:
        """Say that only copies of every channel on this axis, equally often, keep the function."""
        self.uniform.append((self.node, axis))

    def may_fail(self, axes: Axes) -> None:
        """Say that this node is no finite function of every number along these axes."""
        self.partial.append(axes)

    def draws(self, axes: Axes) -> None:
        """Say that this node draws random numbers per position of these axes in train mode."""
        self.random.append(axes)

    def join(self, *xs: Axes) -> Axes:
        """Right-aligned broadcasting: operands share their channels."""
        rank = max(len(x) for x in xs)
        out: list[Axis] = []
        for k in range(rank):
            axes = [x[k - rank + len(x)] for x in xs if k - rank + len(x) >= 0]
            wide = [a for a in axes if length(a) > 1]
            main = wide[0] if wide else axes[0]
            for axis in axes:
                if axis is main:
                    continue
                if length(axis) == length(main):
                    self.algebra.unify(main, axis, "is joined here")
                else:
                    self.algebra.pin(axis, "one channel is broadcast over many here")
            out.append(main)
        return tuple(out)
