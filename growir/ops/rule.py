"""What an operator's channel rule says, recorded: axes of parameters, attributes that follow widths, and conditions.

`Rule` is the one argument besides its inputs' axes that `Op.channels` gets. It applies the algebra of `spaces` and
keeps what growth needs to know of each node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from growir.ops.algebra import MANY_ROWS, MAX_ROWS, Algebra
from growir.ops.spaces import Axes, Axis, Space, fixed, length


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
class Counted:
    """An attribute that counts units of an axis: of m copies of each, `node.attribute` counts m times as many."""

    node: str
    attribute: str
    axis: Axis


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
    New entries of what is `within` must not exceed the old ones, so they start as their mean. On the axes of `takes` it
    takes the shares of copies in place of a tied tensor that reads them, and that makes them too; `zero` is the number
    at which it scales by zero, from where shares are counted.
    """

    axes: Axes
    consumes: frozenset[int]
    produces: frozenset[int]
    rows: Axes = ()
    within: bool = False
    takes: frozenset[int] = frozenset()
    zero: float = 0.0


@dataclass(frozen=True, slots=True)
class Source:
    """The stored tensor, by its key, that a value is or is a part of, and the tensor's axis for each of the value's."""

    key: str
    axes: tuple[int, ...]


@dataclass(slots=True)
class Rule:
    """What an operator's channel rule works with: the algebra, and a record of parameters and attributes.

    Attributes:
        opened: Whether callers' axes may change too (`channels.opened`). Then what new entries *behind* the old ones
            leave alone is no reason to pin, and what looks entries up may get more of them.
    """

    algebra: Algebra
    node: str
    inputs: tuple[str, ...]
    sizes: tuple[int, ...]  # of the output, the batch as 1
    owners: dict[str, str] = field(default_factory=dict[str, str])  # parameter name -> key of the owner, where tied
    sources: dict[str, Source] = field(default_factory=dict[str, Source])  # by the value that is a part of a tensor
    # (value, node that uses it as a weight) -> the tensor's axis that is summed over
    weights: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    params: dict[str, ParamAxes] = field(default_factory=dict[str, ParamAxes])
    # By parameter the axes that its users sum over, each with the node that does; and the parameters of each node that
    # what it gives is a multiple of.
    readers: dict[str, list[tuple[str, int]]] = field(default_factory=dict[str, "list[tuple[str, int]]"])
    scales: dict[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])
    followers: list[Follower] = field(default_factory=list[Follower])
    selected: list[Selected] = field(default_factory=list[Selected])
    counted: list[Counted] = field(default_factory=list[Counted])
    balances: list[Balance] = field(default_factory=list[Balance])
    partial: list[Axes] = field(default_factory=list[Axes])
    uniform: list[tuple[str, Axis]] = field(default_factory=list[tuple[str, Axis]])
    random: list[Axes] = field(default_factory=list[Axes])
    inner: dict[str, Axis] = field(default_factory=dict[str, Axis])  # widths inside one operator, by node.attribute
    opened: bool = False
    ordered: list[tuple[str, Axis]] = field(default_factory=list[tuple[str, Axis]])
    entries: dict[str, Axis] = field(default_factory=dict[str, Axis])  # by the node that looks them up

    def new(self, size: int) -> Axis:
        """An axis of new channels."""
        return ((Space(size), 1),)

    def new_in_groups(self, size: int, count: int) -> tuple[Axis, Axis]:
        """New channels that come in `count` groups of one size: those of a group, and those of all."""
        row = self.new(size) if count <= MAX_ROWS else fixed(size)
        return row, row * count if count <= MAX_ROWS else fixed(size * count)

    def looked_up(self, size: int) -> Axis:
        """An axis of entries that integers choose from: callers decide how many there are."""
        if not self.opened:
            return fixed(size)
        self.entries[self.node] = axis = self.new(size)
        return axis

    def param(
        self, name: str, axes: Axes, *, consumes: Sequence[int] = (), rows: Axes = (), within: bool = False
    ) -> None:
        """Say how a parameter's axes follow spaces; axes in `consumes` are summed over.

        `rows` are what `groups` gave for axis 1, where every group takes its own part of the input. `within` says that
        no new entry may be larger than the largest old one.
        """
        made = frozenset(range(len(axes))) - frozenset(consumes)
        self._use(name, ParamAxes(axes, frozenset(consumes), made, rows, within))

    def _use(self, name: str, use: ParamAxes) -> str:
        key = self.owners.get(name, f"{self.node}.{name}")
        known = self.params.setdefault(key, use)
        self.readers.setdefault(key, []).extend((self.node, axis) for axis in use.consumes)
        if known is use:
            return key
        for a, b in zip((*known.axes, *known.rows), (*use.axes, *use.rows), strict=True):
            self.algebra.unify(a, b, f"shares {key}")
        known.consumes |= use.consumes
        known.produces |= use.produces
        known.within |= use.within
        return key

    def scaled_by(self, names: Sequence[str]) -> None:
        """Say that what this node gives is a multiple of its own parameters together, channel by channel."""
        if not any(name in self.owners for name in names):
            self.scales[self.node] = tuple(f"{self.node}.{name}" for name in names)

    def follows(self, attribute: str, axis: Axis, index: int | None = None) -> None:
        """Say that an attribute is the width of an axis."""
        self.followers.append(Follower(self.node, attribute, index, axis))

    def inside(self, attribute: str, size: int) -> Axis:
        """An axis of new channels that no value holds, since the operator itself makes and reads them."""
        self.inner[f"{self.node}.{attribute}"] = axis = self.new(size)
        self.follows(attribute, axis)
        return axis

    def counts(self, attribute: str, axis: Axis) -> None:
        """Say that an attribute counts positions of an axis, as the k best of it do."""
        self.counted.append(Counted(self.node, attribute, axis))

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
        if count > MAX_ROWS:
            self.algebra.pin(axis, MANY_ROWS)
            return fixed(width), ()
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

    def stored(self, name: str, axes: Axes) -> None:
        """Say that this node's value is a parameter. What that consumes and produces is said by all who read it."""
        key = self._use(name, ParamAxes(axes, frozenset(), frozenset()))
        self.sources[self.node] = Source(key, tuple(range(len(axes))))

    def part(self, axes: Sequence[int]) -> None:
        """Say that this node's value is its first input, or a part of it, with these axes in this order."""
        source = self.sources.get(self.inputs[0])
        if source is not None:
            self.sources[self.node] = Source(source.key, tuple([source.axes[k] for k in axes]))

    def consumes_value(self, position: int, axis: int, axes: Axes) -> None:
        """Say that an input is a weight which is summed over along an axis."""
        source = self.inputs[position]
        stored = self.sources.get(source)
        if stored is None:
            # A computed weight: nothing says which entries a new channel would meet.
            self.algebra.pin(axes[axis], "meets a weight that is computed")
            return
        self.params[stored.key].consumes |= {stored.axes[axis]}
        self.readers.setdefault(stored.key, []).append((self.node, stored.axes[axis]))
        self.weights[source, self.node] = stored.axes[axis]

    def fixed(self, axes: Sequence[Axis], reason: str) -> None:
        """Pin axes along which this node mixes positions."""
        for axis in axes:
            self.algebra.pin(axis, reason)

    def in_order(self, axis: Axis, reason: str) -> None:
        """Say that positions on this axis depend on earlier ones only: none but new last ones leave them alone."""
        if self.opened:
            self.ordered.append((self.node, axis))
        else:
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
