"""Channel spaces of a graph: which widths change together, what produces and what consumes them, and what pins them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from growir.collecting import uncollected
from growir.errors import PassRefused, cut
from growir.factors import Reading, limit, settle
from growir.graph import Graph, HasGraph, per_graph
from growir.nearest import alternatives
from growir.ops import Shape
from growir.ops.algebra import MAX_ROWS, Algebra
from growir.ops.rule import Counted, Follower, ParamAxes, Rule, Selected
from growir.ops.spaces import (
    Axes,
    Axis,
    Pin,
    Space,
    as_axis,
    extent,
    fixed,
    grown,
    is_nested,
    length,
    shares_of,
    spaces_on,
)
from growir.reach import fed_values
from growir.shapes import owners, shapes_of
from growir.strides import Joint, Strides
from growir.tied import hand_shares_over

Place = tuple[str, int]  # an axis of a graph input
IN_BETWEEN = "new positions would not be the last ones here, and later ones see them"


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a space lies on one axis of one parameter: (first position, units, positions per unit) for each run.

    Attributes:
        group: Of a convolution whose groups take different channels, the one this is about, counted from 0.
        groups: How many such groups axis 0 falls into; 1 where all of the axis is meant.
    """

    parameter: str
    axis: int
    runs: tuple[tuple[int, int, int], ...]
    group: int = 0
    groups: int = 1

    @property
    def positions(self) -> tuple[tuple[int, ...], ...]:
        """For each unit of the space, every position on the axis that is its own."""
        units = self.runs[0][1]
        return tuple(
            tuple(start + unit * block + k for start, _, block in self.runs for k in range(block))
            for unit in range(units)
        )


@dataclass(frozen=True, slots=True)
class ChannelSpace:
    """Channels that come and go together wherever they appear.

    Attributes:
        name: What passes take as `node`: the first node whose value holds only this space (and perhaps others, on other
            axes, that are pinned), else node@position or node@axis:position. Where no value holds it, node.weight for
            what integers choose from, or node.attribute for a width inside one operator.
        width: Positions it takes on the naming node's axis.
        stride: The naming node's width changes by multiples of this.
        nodes: Every node whose value holds it.
        producers: Parameter axes that make these channels, or carry them (a norm's scale).
        consumers: Parameter axes that are summed over them.
        pins: Why it may not change; empty when it is free.
        uniform: Only copies of every channel, equally often, keep the function (layer norm).
        partial: It passes through a function that is not finite everywhere (a division, a logarithm), so fresh
            channels copy an old one's incoming weights.
        random: It, or what changes with it, passes through a dropout, so its width changes which random numbers are
            drawn in train mode.
        tied: One parameter axis both produces and consumes it, so copies cannot be exact.
        idle: No value that depends on an input holds it, as with rows of a table that the model never reads.
    """

    name: str
    width: int
    stride: int
    nodes: tuple[str, ...]
    producers: tuple[Slot, ...]
    consumers: tuple[Slot, ...]
    pins: tuple[Pin, ...]
    uniform: bool
    partial: bool
    random: bool
    tied: bool
    idle: bool
    space: Space = field(repr=False, compare=False)
    growth: Joint = field(repr=False, compare=False)  # new units, of this and other spaces, that make one stride
    shrink: Joint = field(repr=False, compare=False)  # and units that go together, where the function may change

    @property
    def units(self) -> int:
        """Channels of the space itself, each `width / units` positions of the naming node: what passes count from 0."""
        return self.space.size


def _nested(axis: Axis) -> Iterator[tuple[Space, Space]]:
    """Each space on an axis with each that lies in its units, at any depth."""
    for space, block in axis:
        if not isinstance(block, int):
            if space is not None:
                yield from ((space, inner) for inner in spaces_on(block))
            yield from _nested(block)


@dataclass(frozen=True, slots=True)
class Analysis:
    """Every axis of every value and parameter in terms of spaces, and what follows their widths."""

    values: Mapping[str, Axes]
    params: Mapping[str, ParamAxes]
    followers: tuple[Follower, ...]
    selected: tuple[Selected, ...]
    spaces: tuple[ChannelSpace, ...]
    entries: Mapping[str, Axis] = field(default_factory=dict[str, Axis])  # what integers choose from, by node
    counted: tuple[Counted, ...] = ()

    def callers_hold(self, space: ChannelSpace, graph: Graph) -> bool:
        """Whether a space lies on an axis of a graph output, or is what integers choose from."""
        outside = (axis for name in graph.outputs for axis in self.values[name])
        return self.looked_up(space) or any(space.space in spaces_on(axis) for axis in outside)

    def looked_up(self, space: ChannelSpace) -> bool:
        """Whether integers choose from what a space has, as tokens do from an embedding's rows."""
        return any(space.space in spaces_on(axis) for axis in self.entries.values())

    def axes_of(self, space: ChannelSpace, value: str) -> list[int]:
        """The axes of a value that a space lies on; none where the value holds nothing of it."""
        return [k for k, axis in enumerate(self.values[value]) if space.space in spaces_on(axis)]

    def positions(self, space: ChannelSpace, value: str, axis: int) -> tuple[tuple[int, ...], ...]:
        """For each unit of a space every position that is its own on an axis of a value."""
        return Slot(value, axis, _runs(self.values[value][axis])[space.space]).positions

    def nested(self) -> set[tuple[Space, Space]]:
        """Spaces whose units hold units of another in some tensor, (outer, inner), as heads hold channels."""
        axes = (axis for use in self.params.values() for axis in (*use.axes, *use.rows))
        return {pair for axis in axes for pair in _nested(axis)}

    def find(self, node: str, graph: Graph) -> ChannelSpace:
        """The space a pass means by `node`. Raises PassRefused, saying what would work."""
        for space in self.spaces:
            if space.name == node:
                return space
        base, _, _ = node.partition("@")
        if base not in self.values:
            raise PassRefused(f"there is no node {cut(base)!r}.{alternatives(base, self.values)}")
        inside = [s for s in self.spaces if base in s.nodes]
        if not inside:
            kind = graph[base].op.kind() if base in graph else "graph input"
            hint = "" if base in graph else "; the pass extend gives inputs more entries"
            raise PassRefused(
                f"{cut(base)} ({kind}): its value holds no channel space, so it has no width to change{hint}"
            )
        if base == node:
            only = _only([s.space for s in inside], self.values[base], _outer(self.values))
            found = next((s for s in inside if s.space is only), None)
            if found is not None:
                return found
        names = ", ".join(cut(s.name) for s in inside[:8])
        raise PassRefused(f"{cut(node)} does not name one space; its value holds: {names}")


def channel_spaces(graph: Graph | HasGraph) -> list[ChannelSpace]:
    """The channel spaces of a graph or network, in document order, pinned ones included.

    Raises GraphError for anything else.
    """
    return list(analyse(graph).spaces)


@per_graph
def analyse(graph: Graph) -> Analysis:
    """Derive all channel spaces of a graph by the operators' channel rules."""
    return _derived(graph)


def opened(graph: Graph, place: Place | None = None) -> Analysis:
    """The channel spaces of a graph where those that callers hold may change too.

    Graph outputs pin nothing, and what integers choose from (an embedding) may get more entries. One axis of one graph
    input is a space as well, if it is named: several at once would have to grow together wherever they meet.
    """
    return graph.recall(_Opened(place))


@dataclass(frozen=True, slots=True)
class _Opened:
    """Analyses an opened graph; equal for equal places, so that a graph remembers the answer."""

    place: Place | None

    def __call__(self, graph: Graph) -> Analysis:
        return _derived(graph, self)


@uncollected()
def _derived(graph: Graph, opening: _Opened | None = None) -> Analysis:
    return _Walk(graph, opening).analysis()


class _Walk:
    """One walk over a graph with every operator's rule applied."""

    def __init__(self, graph: Graph, opening: _Opened | None = None) -> None:
        self.algebra = algebra = Algebra()
        self.rule = rule = Rule(algebra, "", (), (), opened=opening is not None)
        shapes, own = shapes_of(graph), owners(graph)
        self.values: dict[str, Axes] = {
            entry.name: tuple(fixed(1 if d == "N" else d) for d in entry.shape) for entry in graph.inputs
        }
        if opening is not None and opening.place is not None:
            name, k = opening.place
            axes = self.values[name]
            self.values[name] = (*axes[:k], rule.new(length(axes[k])), *axes[k + 1 :])
        self._apply(graph, shapes, own)
        for output in () if rule.opened else graph.outputs:
            algebra.node = output
            for axis in self.values[output]:
                algebra.pin(axis, "graph output")
        for node, axis in rule.ordered:
            algebra.node = node
            *others, (_, block) = algebra.resolve(axis)
            algebra.pin((*others, *as_axis(block)), IN_BETWEEN)
        _values_produce(graph, rule)
        settle(algebra, self._parameter_axes())
        limit(algebra, (axis for _, axis in self._parameter_axes()))
        limit(algebra, (axis for axes in self.values.values() for axis in axes))
        self.strides = Strides(algebra, self._reading(), rule.balances, rule.uniform)
        self.read = read = self._reading()
        self.resolved = {name: tuple([read(axis) for axis in axes]) for name, axes in self.values.items()}
        self.graph = graph
        hand_shares_over(graph, rule, self.strides.uniform, read)

    def _apply(self, graph: Graph, shapes: Mapping[str, Shape], own: Mapping[str, str]) -> None:
        """Every operator's rule, in document order."""
        algebra, rule = self.algebra, self.rule
        for node in graph.nodes:
            algebra.node = rule.node = node.name
            rule.inputs = node.inputs
            rule.sizes = tuple(1 if d == "N" else d for d in shapes[node.name].dims)
            rule.owners = {name: own[f"{node.name}.{name}"] for name in node.tied}
            axes = node.op.channels(rule, *(self.values[i] for i in node.inputs))
            self.values[node.name] = tuple([algebra.bounded(axis) for axis in axes])

    def _parameter_axes(self) -> Iterator[tuple[str, Axis]]:
        for key, use in self.rule.params.items():
            node = key.rpartition(".")[0]
            for axis in (*use.axes, *use.rows):
                yield node, axis

    def _reading(self) -> Reading:
        return Reading(self.algebra, (axis for _, axis in self._parameter_axes()))

    def analysis(self) -> Analysis:
        """What the walk found."""
        rule, read = self.rule, self.read
        for use in rule.params.values():
            use.axes = tuple([read(axis) for axis in use.axes])
            use.rows = tuple([read(row) for row in use.rows])
        followers = tuple(Follower(f.node, f.attribute, f.index, read(f.axis)) for f in rule.followers)
        selected = tuple(Selected(s.node, s.attribute, read(s.axis), s.positions) for s in rule.selected)
        counted = tuple(Counted(c.node, c.attribute, read(c.axis)) for c in rule.counted)
        entries = {node: read(axis) for node, axis in rule.entries.items()}
        return Analysis(self.resolved, rule.params, followers, selected, self._spaces(), entries, counted)

    def _holders(self, holders: list[Axes]) -> set[Space]:
        return {space for axes in holders for axis in axes for space in spaces_on(self.read(axis))}

    def _spaces(self) -> tuple[ChannelSpace, ...]:
        """Every space under its name, in the order in which values hold them; last those that none holds."""
        params = self.rule.params
        slots = _slots(params)
        random, partial = self._holders(self.rule.random), self._holders(self.rule.partial)
        nodes, pure, places = _places(self.resolved)
        fed = fed_values(self.graph)

        def found(space: Space, name: str, where: list[str], axes: Axes) -> ChannelSpace:
            used = slots[1].get(space, [])
            growth, obstacle = self.strides.of(space)
            uniform = space in self.strides.uniform
            tied = any(slot.axis in params[slot.parameter].produces for slot in used)
            pins = space.pins
            if not pins and obstacle is not None:
                pins = (obstacle,)
            if tied and (uniform or space in partial):
                what = "normalised" if uniform else "put through a partial function"
                pins = (*pins, Pin(name, f"is {what} and tied at once, so neither copies nor fresh channels are exact"))
            return ChannelSpace(
                name=name,
                width=max(_share(axis, space) * space.size for axis in axes),
                stride=max(grown(axis, growth) - length(axis) for axis in axes),
                nodes=tuple(where),
                producers=tuple(slots[0].get(space, ())),
                consumers=tuple(used),
                pins=pins,
                uniform=uniform,
                partial=space in partial,
                random=not random.isdisjoint(growth),
                tied=tied,
                idle=bool(where) and fed.isdisjoint(where),
                space=space,
                growth=growth,
                shrink=self.strides.of(space, keep=False)[0] if uniform else growth,
            )

        names = {space: pure.get(space, places[space]) for space in nodes}
        lying = [found(s, names[s], where, self.resolved[pure.get(s, where[0])]) for s, where in nodes.items()]
        inside = {f"{node}.weight": axis for node, axis in self.rule.entries.items()} | self.rule.inner
        held = {place: self.read(axis) for place, axis in inside.items()}
        unseen = {s: (place, axis) for place, axis in held.items() for s in spaces_on(axis)}
        beside = [found(s, place, [], (axis,)) for s, (place, axis) in unseen.items() if s not in nodes]
        return tuple(lying + beside)


def _values_produce(graph: Graph, rule: Rule) -> None:
    """Say what tensors that are values make: channels along every axis that one of their readers does not sum over."""
    for value, source in rule.sources.items():
        use = rule.params[source.key]
        for reader in graph.consumers[value]:
            if (value, reader) in rule.weights:
                use.produces |= frozenset(source.axes) - {rule.weights[value, reader]}
            elif reader not in rule.sources or rule.sources[reader].key != source.key:
                use.produces |= frozenset(range(len(use.axes)))


def _share(axis: Axis, space: Space) -> int:
    """Positions that one unit of a space takes on an axis."""
    return sum([positions for s, positions in shares_of(axis) if s is space])


def _holds_only(axes: Axes, space: Space, outer: frozenset[Space]) -> bool:
    """Whether the space has one axis to itself, and no other axis may change; what it lies inside of does not count."""
    held = [axis for axis in axes if any(s is space or not (s.pins or s in outer) for s in spaces_on(axis))]
    return len(held) == 1 and _covers(held[0], space, outer)


def _only(held: list[Space], axes: Axes, outer: frozenset[Space]) -> Space | None:
    """The space that a value of these axes is called after, if there is one."""
    free = [space for space in held if not space.pins]
    inner = [space for space in free if space not in outer]
    for chosen in (inner, [space for space in free if space in outer], () if free else held):
        if len(chosen) == 1 and _holds_only(axes, chosen[0], outer - {chosen[0]}):
            return chosen[0]
    return None


def _covers(axis: Axis, space: Space, outer: frozenset[Space]) -> bool:
    return all(
        s is space or (s in outer and not isinstance(block, int) and _covers(block, space, outer)) for s, block in axis
    )


def _outer(values: Mapping[str, Axes]) -> frozenset[Space]:
    """Spaces with others in their blocks; both may change."""
    nested = [axis for axes in values.values() for axis in axes if is_nested(axis)]
    return frozenset(space for axis in nested for space in _with_blocks(axis))


def _with_blocks(axis: Axis) -> Iterator[Space]:
    for space, block in axis:
        if not isinstance(block, int):
            if space is not None:
                yield space
            yield from _with_blocks(block)


def _places(values: Mapping[str, Axes]) -> tuple[dict[Space, list[str]], dict[Space, str], dict[Space, str]]:
    """For each space the values that hold it, the first that holds only it, and its first place in any.

    Where units of one space hold another, the value bears the name of the inner one; the outer one is called after a
    value that holds it alone, as whole groups of heads are after their keys, or after a place where it lies by itself.
    """
    nodes: dict[Space, list[str]] = {}
    pure: dict[Space, str] = {}
    places: dict[Space, str] = {}
    nested: dict[Space, str] = {}  # places in, or around, other spaces
    outer = _outer(values)
    for name, axes in values.items():
        held: dict[Space, None] = {}
        for k, axis in enumerate(axes):
            position = 0
            for space, block in axis:
                if space is not None:
                    place = f"{name}@{position}" if k == 1 else f"{name}@{k}:{position}"
                    inside = () if isinstance(block, int) else tuple(spaces_on(block))
                    held |= dict.fromkeys((space, *inside))
                    (nested if inside else places).setdefault(space, place)
                    for inner in inside:
                        nested.setdefault(inner, place)
                position += extent(block) * (1 if space is None else space.size)
        for space in held:
            nodes.setdefault(space, []).append(name)
        found = _only(list(held), axes, outer)
        if found is not None:
            pure.setdefault(found, name)
    taken = {*pure.values(), *places.values()}
    for space, place in nested.items():
        if space not in places:
            depth = 0
            while (called := f"{place}/{depth}" if depth else place) in taken:
                depth += 1
            places[space] = called
            taken.add(called)
    return nodes, pure, places


def _slots(params: Mapping[str, ParamAxes]) -> tuple[dict[Space, list[Slot]], dict[Space, list[Slot]]]:
    """For each space the parameter axes that produce it, and those that consume it."""
    producers: dict[Space, list[Slot]] = {}
    consumers: dict[Space, list[Slot]] = {}
    known: dict[int, dict[Space, tuple[tuple[int, int, int], ...]]] = {}  # a norm's parameters lie on one axis object

    def runs_on(axis: Axis) -> dict[Space, tuple[tuple[int, int, int], ...]]:
        if id(axis) not in known:
            known[id(axis)] = _runs(axis)
        return known[id(axis)]

    for key, use in params.items():
        for k, axis in enumerate(use.axes):
            side = consumers if k in use.consumes else producers
            if k == 1 and use.rows:
                for group, row in enumerate(use.rows):
                    for space, runs in runs_on(row).items():
                        side.setdefault(space, []).append(Slot(key, k, runs, group, len(use.rows)))
                continue
            for space, runs in runs_on(axis).items():
                side.setdefault(space, []).append(Slot(key, k, runs))
    return producers, consumers


def _runs(axis: Axis) -> dict[Space, tuple[tuple[int, int, int], ...]]:
    """For each space on an axis its (first position, units, positions per unit)."""
    if len(axis) == 1 and isinstance(block := axis[0][1], int):
        space = axis[0][0]
        return {} if space is None else {space: ((0, space.size, block),)}
    found: dict[Space, list[tuple[int, int, int]]] = {}
    _add_runs(axis, 0, 1, found)
    return {space: tuple(runs) for space, runs in found.items()}


def _add_runs(axis: Axis, position: int, rows: int, found: dict[Space, list[tuple[int, int, int]]]) -> None:
    """Add the runs of an axis that is one of so many rows; blocks in too many rows are pinned, and have none."""
    for space, block in axis:
        size = extent(block)
        if space is not None:
            found.setdefault(space, []).append((position, space.size, size))
        units = 1 if space is None else space.size
        if not isinstance(block, int) and rows * units <= MAX_ROWS:
            for k in range(units):
                _add_runs(block, position + k * size, rows * units, found)
        position += size * units
