"""Axes that were fixed by tables made for the example's size, opened: the graph takes the beginning of each table.

A model that computes positions, angles or a mask from the number of tokens alone gets, for fewer tokens, the beginning
of the same tables. So the model is read once more with an example of another size, and the two graphs are set side by
side. What depends on an input must be the same node by node; what does not, the tables, may be longer:

    16 tokens: position (16, 8) -> + x          12 tokens: position (12, 8) -> + x

Where they meet, `first` takes as much of the longer table as the input is long. That the shorter tables are the
beginning of the longer ones is not looked up in their numbers but follows from the comparison at the end: model and
network run at several lengths, and must agree at each.

A model that holds a learned row for each of 1024 positions, of which the example uses 16, is read at 1024: its own
limit becomes the network's. A model without such rows, as with rotary angles, is read at the limit that it names, or at
2048, as far as the tables stay small. Where it cannot be read there the example's size is the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from growir.backends.torch_export.decisions import decisions
from growir.backends.torch_export.exporting import as_exported
from growir.backends.torch_export.preparing import Prepared
from growir.backends.torch_export.sizes import DEAR, Axis, Pair, Sizes, Verdict, around
from growir.costs import costs_of
from growir.graph import FixedSize, Graph, Input, Node
from growir.ops import Expand, First, Reshape, Slice
from growir.reach import fed_values
from growir.shapes import own_tables, shapes_of
from growir.verify import verify

MOST_NUMBERS = 2**24  # that tables may hold for the sake of lengths that the example has not: 64 MiB of float32
LONG = 2048  # how long an axis may become of a model that knows no limit, and
LONG_NUMBERS = 2**20  # how many numbers tables may hold for that: what nobody asked for is to cost little
NAMED = "max_position_embeddings"  # what configurations call the limit that a model was trained with
TRIES = 3  # other sizes at which the model is read, until its graph has the same nodes


class Whole(NamedTuple):
    """A graph with its tensors: as arrays by key, and in the memory of the model's own."""

    graph: Graph
    arrays: Mapping[str, NDArray[Any]]
    tensors: Mapping[str, torch.Tensor]


Group = tuple[Axis, ...]  # axes that change together
Read = Callable[[Prepared], "Whole | None"]  # the model read with another example, if it can be
Paired = Callable[[Whole], Any]  # a context of the model and the network side by side, or None


class Edge(NamedTuple):
    """Where a table is read: the place of the reader among the nodes that depend on inputs, and which of its inputs."""

    reader: int
    slot: int


@dataclass(frozen=True, slots=True)
class Opening:
    """How the axes of a group may become open.

    Attributes:
        most: The longest that they may be.
        cuts: The axes of each table that are as long as those of the group.
    """

    most: int
    cuts: Mapping[Edge, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Lengths:
    """What opens axes: the model, what it became, and how to read and run it again."""

    prepared: Prepared
    whole: Whole
    names: Sequence[str]  # what the model calls the graph's inputs
    read: Read
    paired: Paired
    known: dict[object, Whole | None] = field(
        default_factory=dict[object, "Whole | None"]
    )  # by the sizes it was read at

    def opened(self, fixed: Sequence[FixedSize]) -> tuple[Whole, list[FixedSize]]:
        """The network that takes other sizes where it can, and the axes that stay fixed."""
        places = {entry.name: k for k, entry in enumerate(self.whole.graph.inputs)}
        left = {Axis(places[entry.input], entry.axis): entry for entry in fixed}
        best, openings = self.whole, dict[Group, Opening]()
        for group in _groups(self.whole.graph, left):
            if left.keys().isdisjoint(group):
                continue
            found = self._opening(group)
            if found is None:
                continue
            made = self._made({**openings, group: found})
            if made is not None and self._agree(made, {**openings, group: found}):
                best, openings[group] = made, found
                for axis in group:
                    left.pop(axis, None)
        return best, list(left.values())

    # -- another example ----------------------------------------------------------------------------------------------

    def _size(self, group: Group) -> int:
        return _size(self.whole.graph, group[0])

    def _sized(self, sizes: Sizes) -> Prepared:
        """The example with other sizes: cut, or begun again from its start."""
        count = len(self.prepared.args)
        args = list(self.prepared.args)
        kwargs = dict(self.prepared.kwargs)
        for (place, axis), size in sizes.items():
            tensor = args[place] if place < count else kwargs[self.names[place]]
            tensor = tensor.index_select(axis, torch.arange(size) % tensor.shape[axis])
            if place < count:
                args[place] = tensor
            else:
                kwargs[self.names[place]] = tensor
        return replace(self.prepared, args=tuple(args), kwargs=kwargs)

    def _runs(self, group: Group, size: int) -> bool:
        args, kwargs = self._sized(dict.fromkeys(group, size)).rows(2)
        try:
            with as_exported(), torch.no_grad():
                self.prepared.model(*args, **kwargs)
        except Exception:  # whatever the model's own code raises; that it refuses is what is asked here
            return False
        return True

    def _read(self, sizes: Sizes) -> Whole | None:
        key = tuple(sorted(sizes.items()))
        if key not in self.known:
            self.known[key] = self.read(self._sized(sizes))
        return self.known[key]

    # -- what changes with the size -----------------------------------------------------------------------------------

    def _opening(self, group: Group) -> Opening | None:
        usual = self._size(group)
        if usual == 1 or not self._runs(group, usual - 1):
            return None
        most = self._most(group)
        others = [most] if most > usual else []
        others += [size for size in dict.fromkeys((usual - 1, usual // 2 + 1, usual - 2, usual // 2)) if size > 0]
        for size in others[: TRIES + (most > usual)]:
            other = self._read(dict.fromkeys(group, size))
            cuts = None if other is None else _cuts(self.whole.graph, other.graph, usual, size)
            if cuts:
                return Opening(max(size, usual), cuts)
        return None

    def _most(self, group: Group) -> int:
        """The longest that the model itself allows, as far as it is known, and its tables are not too large."""
        graph, usual = self.whole.graph, self._size(group)
        varying, shapes = fed_values(graph), shapes_of(graph)
        tables = [node for node in graph.nodes if node.name not in varying]
        rows = [
            shapes[node.inputs[0]].size(node.op.axis) - node.op.start
            for node in tables
            if isinstance(node.op, Slice) and node.op.length == usual
        ]
        most = min(rows) if rows else self._most_of_buffers(group)
        allowed = MOST_NUMBERS
        if most is None:
            most, allowed = self._named_limit(group), LONG_NUMBERS
        read = {name for node in graph.nodes if node.name in varying for name in node.inputs} - varying
        dims = [shapes[name].sizes for name in read if name in graph and usual in shapes[name].sizes]

        def numbers(size: int) -> int:
            return sum(torch.Size(size if dim == usual else dim for dim in each).numel() for each in dims)

        while most > usual and numbers(most) > allowed:
            most //= 2
        return max(most, usual)

    def _named_limit(self, group: Group) -> int:
        """The limit that the model names, or a usual one; the example's size where the model takes no more."""
        usual = self._size(group)
        if not self._runs(group, usual + 1):
            return usual
        named = [getattr(getattr(part, "config", None), NAMED, None) for part in self.prepared.model.modules()]
        known = [limit for limit in named if isinstance(limit, int) and limit > usual]
        return min(known, default=LONG)

    def _most_of_buffers(self, group: Group) -> int | None:
        """The size of a buffer that the model can take and cannot exceed; None if there is none."""
        usual, macs = self._size(group), costs_of(self.whole.graph).macs
        sizes = {size for _, buffer in self.prepared.model.named_buffers() for size in buffer.shape if size > usual}
        for size in sorted(sizes):
            if macs * (size / usual) ** 2 > DEAR or not self._runs(group, size):
                break
            if not self._runs(group, size + 1):
                return size
        return None

    # -- the network --------------------------------------------------------------------------------------------------

    def _made(self, openings: Mapping[Group, Opening]) -> Whole | None:
        """The network with its longest tables and `first` wherever one is read."""
        longer = {
            axis: opening.most
            for group, opening in openings.items()
            for axis in group
            if opening.most > self._size(group)
        }
        base = self._read(longer) if longer else self.whole
        if base is None or _kinds(base.graph) != _kinds(self.whole.graph):
            return None
        return replace_tables(self.whole, base, openings)

    def _agree(self, made: Whole, openings: Mapping[Group, Opening]) -> bool:
        """Whether model and network give the same at several lengths, each alone and all together."""
        with self.paired(made) as pair:
            if pair is None:
                return False
            macs = costs_of(self.whole.graph).macs
            alike = 0
            for sizes in self._trials(pair, openings, macs):
                verdict = pair.trial(sizes).verdict
                if verdict not in (Verdict.SAME, Verdict.BOTH_REFUSE):
                    return False
                alike += verdict is Verdict.SAME
        return alike > 0

    def _trials(self, pair: Pair, openings: Mapping[Group, Opening], macs: int) -> Iterator[Sizes]:
        asked = decisions(lambda: pair.outputs(pair.example))
        taken: dict[Group, list[int]] = {}
        for group, opening in openings.items():
            usual = self._size(group)
            near = [usual - 1, usual // 2, 1, 2, 3, usual // 3, usual + 1, opening.most, opening.most - 1]
            near += [size for decision in asked for size in around(decision, usual)]
            taken[group] = [
                size
                for size in dict.fromkeys(near)
                if 0 < size <= opening.most and size != usual and macs * (size / usual) ** 2 <= max(DEAR, macs)
            ]
            yield from (dict.fromkeys(group, size) for size in taken[group])
        if len(openings) > 1:
            for shift in range(3):
                yield {
                    axis: sizes[(shift + k) % len(sizes)] for k, (g, sizes) in enumerate(taken.items()) for axis in g
                }


def _size(graph: Graph, axis: Axis) -> int:
    size = graph.inputs[axis.input].shape[axis.axis]
    assert isinstance(size, int), "only the first axis is the batch"
    return size


def _groups(graph: Graph, fixed: Mapping[Axis, object]) -> Iterator[Group]:
    """Each axis alone, then with others of its size, as ids and their mask change, which may be free by themselves."""
    yield from [(axis,) for axis in fixed]
    every = [Axis(k, axis) for k, entry in enumerate(graph.inputs) for axis in range(1, len(entry.shape))]
    for size in dict.fromkeys([_size(graph, axis) for axis in fixed]):
        alike = [axis for axis in every if _size(graph, axis) == size]
        for group in (tuple(axis for axis in alike if axis in fixed), tuple(alike)):
            if len(group) > 1:
                yield group


# -- two graphs side by side ------------------------------------------------------------------------------------------


def _followers(graph: Graph) -> list[Node]:
    varying = fed_values(graph)
    return [node for node in graph.nodes if node.name in varying]


def _kinds(graph: Graph) -> list[str]:
    return [node.op.kind() for node in _followers(graph)]


def _cuts(one: Graph, two: Graph, size: int, other: int) -> Mapping[Edge, tuple[int, ...]] | None:
    """The axes of tables that have one size in one graph and another in the other; None if more than that differs."""
    if _kinds(one) != _kinds(two):
        return None
    nodes = _followers(one), _followers(two)
    twin = {a.name: b.name for a, b in zip(one.inputs, two.inputs, strict=True)}
    varying = fed_values(one)
    shapes = shapes_of(one), shapes_of(two)
    found: dict[Edge, tuple[int, ...]] = {}
    for k, (a, b) in enumerate(zip(*nodes, strict=True)):
        twin[a.name] = b.name
        if not _alike(a, b) or own_tables(one)[a.name] != own_tables(two)[b.name]:
            return None
        for slot, (x, y) in enumerate(zip(a.inputs, b.inputs, strict=True)):
            if x in varying:
                if twin[x] != y:
                    return None
                continue
            dims = shapes[0][x].dims, shapes[1].get(y, shapes[0][x]).dims
            if len(dims[0]) != len(dims[1]):
                return None
            apart = tuple(axis for axis, (m, n) in enumerate(zip(*dims, strict=True)) if m != n)
            if any((dims[0][axis], dims[1][axis]) != (size, other) for axis in apart):
                return None
            if apart:
                found[Edge(k, slot)] = apart
    return found if tuple(twin[name] for name in one.outputs) == two.outputs else None


def _alike(a: Node, b: Node) -> bool:
    """Whether two nodes do the same; the sizes of a view may differ, which the network takes from its input."""
    if len(a.inputs) != len(b.inputs):
        return False
    if isinstance(a.op, Reshape | Expand) and isinstance(b.op, Reshape | Expand):
        return len(a.op.shape) == len(b.op.shape)
    return a.op == b.op


def replace_tables(usual: Whole, base: Whole, openings: Mapping[Group, Opening]) -> Whole:
    """A graph that takes the beginning of another's tables, as long as its inputs are.

    Args:
        usual: The graph of the example: its inputs and the nodes that depend on them stay.
        base: The same with tables that are as long or longer.
        openings: Which axes of which tables follow which inputs.
    """
    cuts: dict[Edge, list[tuple[Axis, tuple[int, ...]]]] = {}
    for group, opening in openings.items():
        for edge, axes in opening.cuts.items():
            cuts.setdefault(edge, []).append((group[0], axes))
    followers = _followers(usual.graph)
    place = {node.name: k for k, node in enumerate(_followers(base.graph))}
    parts = _Parts(base.graph)
    nodes: list[Node] = []
    for node in base.graph.nodes:
        if node.name in place:
            k = place[node.name]
            inputs = [
                parts.of(name, cuts[Edge(k, slot)], base.graph.inputs, nodes) if Edge(k, slot) in cuts else name
                for slot, name in enumerate(node.inputs)
            ]
            node = node.model_copy(update={"op": followers[k].op, "inputs": tuple(inputs)})
        nodes.append(node)
    graph = usual.graph.replace(nodes=nodes, outputs=base.graph.outputs)
    return base._replace(graph=verify(graph))


class _Parts:
    """The `first` nodes of a graph, one for each table and what it is cut by."""

    def __init__(self, graph: Graph) -> None:
        self.taken = {entry.name for entry in graph.inputs}
        for node in graph.nodes:  # a name that is a prefix of another is a module's
            words = node.name.split(".")
            self.taken |= {".".join(words[:k]) for k in range(1, len(words) + 1)}
        self.known: dict[object, str] = {}

    def of(
        self, table: str, cuts: Sequence[tuple[Axis, tuple[int, ...]]], inputs: Sequence[Input], nodes: list[Node]
    ) -> str:
        """The node that gives the part, written now if there is none yet."""
        value = table
        for (place, of), axes in cuts:
            key = value, place, of, axes
            if key not in self.known:
                self.known[key] = self._name(table)
                op = First(axes=axes, of=of)
                nodes.append(Node(name=self.known[key], op=op, inputs=(value, inputs[place].name)))
            value = self.known[key]
        return value

    def _name(self, table: str) -> str:
        host = table.rpartition(".")[0]
        stem = f"{host}.first" if host else "first"
        name, k = stem, 0
        while name in self.taken:
            k += 1
            name = f"{stem}_{k}"
        self.taken.add(name)
        return name
