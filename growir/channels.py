"""Channel spaces of a graph: which widths change together, what produces and what consumes them, and what pins them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from growir.errors import PassRefused, cut
from growir.graph import Graph, per_graph, suggestion
from growir.ops.spaces import Algebra, Axes, Axis, Follower, ParamAxes, Pin, Rule, Space, fixed
from growir.shapes import owners, shapes_of


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a space lies on one axis of one parameter: (first position, units, positions per unit) for each run."""

    parameter: str
    axis: int
    runs: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class ChannelSpace:
    """Channels that come and go together wherever they appear.

    Attributes:
        name: What passes take as `node`: the first node whose value holds only this space, else node@position or
            node@axis:position.
        width: Positions it takes on the naming node's axis.
        step: The naming node's width changes by multiples of this.
        nodes: Every node whose value holds it.
        producers: Parameter axes that make these channels, or carry them (a norm's scale).
        consumers: Parameter axes that are summed over them.
        pins: Why it may not change; empty when it is free.
        uniform: Only copies of every channel, equally often, keep the function (layer norm).
        random: It passes through a dropout, so its width changes which random numbers are drawn in train mode.
        tied: One parameter axis both produces and consumes it, so copies cannot be exact.
    """

    name: str
    width: int
    step: int
    nodes: tuple[str, ...]
    producers: tuple[Slot, ...]
    consumers: tuple[Slot, ...]
    pins: tuple[Pin, ...]
    uniform: bool
    random: bool
    tied: bool
    space: Space = field(repr=False, compare=False)

    @property
    def units(self) -> int:
        """Channels of the space itself."""
        return self.space.size


@dataclass(frozen=True, slots=True)
class Analysis:
    """Every axis of every value and parameter in terms of spaces, and what follows their widths."""

    values: Mapping[str, Axes]
    params: Mapping[str, ParamAxes]
    followers: tuple[Follower, ...]
    spaces: tuple[ChannelSpace, ...]

    def find(self, node: str, graph: Graph) -> ChannelSpace:
        """The space a pass means by `node`. Raises PassRefused, saying what would work."""
        for space in self.spaces:
            if space.name == node:
                return space
        base, _, _ = node.partition("@")
        if base not in self.values:
            raise PassRefused(f"there is no node {cut(base)!r}.{suggestion(base, self.values)}")
        inside = [s for s in self.spaces if base in s.nodes]
        if not inside:
            kind = graph[base].op.kind() if base in graph else "graph input"
            raise PassRefused(f"{cut(base)} ({kind}): its value holds no channel space, so it has no width to change")
        if base == node and len(inside) == 1 and _holds_only(self.values[base], inside[0].space):
            return inside[0]
        names = ", ".join(cut(s.name) for s in inside[:8])
        raise PassRefused(f"{cut(node)} does not name one space; its value holds: {names}")


def channel_spaces(graph: Graph) -> list[ChannelSpace]:
    """The channel spaces of a graph, in document order, pinned ones included."""
    return list(analyse(graph).spaces)


@per_graph
def analyse(graph: Graph) -> Analysis:
    """Derive all channel spaces of a graph in one walk, by the operators' channel rules."""
    algebra = Algebra()
    shapes, own = shapes_of(graph), owners(graph)
    values: dict[str, Axes] = {i.name: (fixed(1), *(fixed(d) for d in i.shape[1:] if d != "N")) for i in graph.inputs}
    shared: Rule = Rule(algebra, "", (), ())
    for node in graph.nodes:
        algebra.node = node.name
        sizes = tuple(1 if d == "N" else d for d in shapes[node.name].dims)
        tied = {name: own[f"{node.name}.{name}"] for name in node.tied}
        rule = Rule(
            algebra,
            node.name,
            node.inputs,
            sizes,
            tied,
            shared.sources,
            shared.weights,
            shared.params,
            shared.followers,
            shared.uniform,
            shared.random,
        )
        values[node.name] = node.op.channels(rule, *(values[i] for i in node.inputs))
    for output in graph.outputs:
        algebra.node = output
        for axis in values[output]:
            algebra.pin(axis, "graph output")
    _weights_only(graph, shared)
    uniform = _uniform_spaces(algebra, shared.uniform)
    resolved = {name: tuple(algebra.resolve(axis) for axis in axes) for name, axes in values.items()}
    for use in shared.params.values():
        use.axes = tuple(algebra.resolve(axis) for axis in use.axes)
    random = {space for axes in shared.random for axis in axes for space, _ in algebra.resolve(axis) if space}
    spaces = _collect(resolved, shared.params, uniform, random)
    followers = tuple(Follower(f.node, f.attribute, f.index, algebra.resolve(f.axis)) for f in shared.followers)
    return Analysis(resolved, shared.params, followers, spaces)


def _weights_only(graph: Graph, rule: Rule) -> None:
    """Say of tensors that are values which of their axes only ever consume: those read as weights and nowhere else."""
    elsewhere = {
        key
        for value, key in rule.sources.items()
        for reader in graph.consumers[value]
        if (value, reader) not in rule.weights and rule.sources.get(reader) != key
    }
    for key in set(rule.sources.values()) - elsewhere:
        rule.params[key].produces -= rule.params[key].consumes


def _uniform_spaces(algebra: Algebra, uniform: Iterable[tuple[str, Axis]]) -> set[Space]:
    """Spaces that only grow as a whole, once all joins are known."""
    found: set[Space] = set()
    for node, axis in uniform:
        algebra.node = node
        terms = algebra.resolve(axis)
        spaces = {space for space, _ in terms if space is not None}
        if len(terms) == 1:
            found |= spaces
        elif spaces:
            algebra.pin(axis, "is normalised together with other channels")
    return found


def _holds_only(axes: Axes, space: Space) -> bool:
    """Whether the one space is all there is on the axes that hold any."""
    held = [axis for axis in axes if any(s is not None for s, _ in axis)]
    return len(held) == 1 and all(s is space for s, _ in held[0])


def _collect(
    values: Mapping[str, Axes], params: Mapping[str, ParamAxes], uniform: set[Space], random: set[Space]
) -> tuple[ChannelSpace, ...]:
    nodes: dict[Space, list[str]] = {}
    pure: dict[Space, str] = {}
    places: dict[Space, str] = {}
    for name, axes in values.items():
        held: dict[Space, None] = {}
        for k, axis in enumerate(axes):
            position = 0
            for space, block in axis:
                if space is not None:
                    held[space] = None
                    if space not in places:
                        places[space] = f"{name}@{position}" if k == 1 else f"{name}@{k}:{position}"
                position += block if space is None else space.size * block
        for space in held:
            nodes.setdefault(space, []).append(name)
        if len(held) == 1:
            (only,) = held
            if only not in pure and _holds_only(axes, only):
                pure[only] = name
    producers, consumers = _slots(params)
    found: list[ChannelSpace] = []
    for space, where in nodes.items():
        name = pure.get(space, places[space])
        made, used = producers.get(space, []), consumers.get(space, [])
        step = _step(values[pure.get(space, where[0])], space)
        width = space.size * step
        tied = any(slot.axis in params[slot.parameter].produces for slot in used)
        pins = space.pins
        if tied and space in uniform:
            pins = (*pins, Pin(name, "is normalised and tied at once, so neither copies nor fresh channels are exact"))
        whole = space in uniform
        found.append(
            ChannelSpace(
                name=name,
                width=width,
                step=width if whole else step,
                nodes=tuple(where),
                producers=tuple(made),
                consumers=tuple(used),
                pins=pins,
                uniform=whole,
                random=space in random,
                tied=tied,
                space=space,
            )
        )
    return tuple(found)


def _step(axes: Axes, space: Space) -> int:
    return max(sum(block for s, block in axis if s is space) for axis in axes)


def _slots(params: Mapping[str, ParamAxes]) -> tuple[dict[Space, list[Slot]], dict[Space, list[Slot]]]:
    producers: dict[Space, list[Slot]] = {}
    consumers: dict[Space, list[Slot]] = {}
    for key, use in params.items():
        for k, axis in enumerate(use.axes):
            runs: dict[Space, list[tuple[int, int, int]]] = {}
            position = 0
            for space, block in axis:
                if space is not None:
                    runs.setdefault(space, []).append((position, space.size, block))
                position += block if space is None else space.size * block
            side = consumers if k in use.consumes else producers
            for space, found in runs.items():
                side.setdefault(space, []).append(Slot(key, k, tuple(found)))
    return producers, consumers
