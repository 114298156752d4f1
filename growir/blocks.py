"""Blocks: nodes of a graph that read one value of a chain and give one, such as `layer1.0` of a ResNet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from growir import names
from growir.channels import analyse
from growir.errors import cut
from growir.graph import Graph, Input, Node, Ties, per_graph
from growir.layers import is_layer, users_of
from growir.ops import Add, Op
from growir.ops.ranges import keeps
from growir.ops.spaces import Axis, Space, Term, length, spaces_on
from growir.shapes import own_tables, owners, shapes_of

NORMS: Final = frozenset({"batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"})
ENTRY = "x"  # what the one input of a block's own document is called


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block stands in its graph.

    Attributes:
        nodes: Its nodes, in the order of the document.
        input: The value of the chain that it reads.
        output: The node whose value others read.
        beside: What else it reads from outside.
    """

    nodes: tuple[str, ...]
    input: str
    output: str
    beside: tuple[str, ...] = ()


def members(graph: Graph, module: str) -> tuple[str, ...]:
    """The nodes that stand in a module, by its path."""
    return tuple(node.name for node in graph.nodes if node.name.startswith(f"{module}."))


def block_of(graph: Graph, nodes: Iterable[str], entry: str | None = None) -> Block | str:
    """The block that some nodes of a graph form, or why they form none.

    Args:
        graph: The graph.
        nodes: Their names.
        entry: The value of the chain that they read. Where they read several and nobody says which, it is one of the
            output's shape: the one that the block adds to, and else the last, since masks and angles are made before
            the first block.
    """
    order = _order(graph)
    inside = {name for name in nodes if name in graph}
    ordered = tuple(sorted(inside, key=order.__getitem__))
    if not ordered:
        return "there are no nodes in it"
    outputs = _read_outside(graph, ordered)
    if len(outputs) > 1:
        ordered = _without_tables(graph, ordered, outputs, entry)
        inside, outputs = set(ordered), _read_outside(graph, ordered)
    if len(outputs) != 1:
        listed = ", ".join(cut(name) for name in outputs) or "none"
        return f"a block has one output, but of these nodes others read {listed}"
    outside = list(dict.fromkeys(name for node in ordered for name in graph[node].inputs if name not in inside))
    if not outside:
        return "a block has an input, but these nodes read nothing from outside"
    chosen = _entry(graph, outside, outputs[0]) if entry is None else entry
    if chosen not in outside:
        return f"the block does not read {cut(chosen)}; it reads {', '.join(cut(name) for name in outside)}"
    return Block(ordered, chosen, outputs[0], tuple(name for name in outside if name != chosen))


def _read_outside(graph: Graph, nodes: Sequence[str]) -> list[str]:
    """Those of some nodes whose values others read, or that are outputs."""
    return [name for name in nodes if name in graph.outputs or not set(nodes).issuperset(graph.consumers[name])]


def _without_tables(graph: Graph, nodes: Sequence[str], outputs: Sequence[str], entry: str | None) -> tuple[str, ...]:
    """The nodes of a block without what is computed for other blocks too, and does not depend on the block's chain.

    The first block of a T5 makes the biases of relative positions, and all blocks read them:

        table -> bias (of block 0) -> block 0, block 1, ...          block 0 reads the bias beside its chain
    """
    inside = set(nodes)
    outside = list(dict.fromkeys(name for node in nodes for name in graph[node].inputs if name not in inside))
    if not outside:
        return tuple(nodes)
    chain = {_entry(graph, outside, outputs[-1]) if entry is None else entry}
    for name in nodes:
        if not chain.isdisjoint(graph[name].inputs):
            chain.add(name)
    gone = {name for name in outputs if name not in chain and not inside.isdisjoint(graph.consumers[name])}
    for name in reversed(nodes):
        if name in gone:
            gone |= inside.intersection(graph[name].inputs)
    return tuple(name for name in nodes if name not in gone)


def _entry(graph: Graph, outside: Sequence[str], output: str) -> str:
    """Which of the values that a block reads is the one of its chain: the one that it adds to, if it does."""
    shapes = shapes_of(graph)
    alike = [name for name in outside if shapes[name] == shapes[output]]
    added = [name for name in alike if name in _summands(graph, output, outside)]
    return max(added or alike or outside, key=_order(graph).__getitem__)


def _summands(graph: Graph, output: str, outside: Collection[str]) -> set[str]:
    """What a value is a sum of, back to values from outside, through norms and activations behind the sums."""
    found, stack = set[str](), [output]
    while stack:
        name = stack.pop()
        if name in found:
            continue
        found.add(name)
        node = None if name in outside else graph[name]
        if node is not None and (isinstance(node.op, Add) or node.op.kind() in NORMS or keeps(node.op) is not None):
            stack.extend(node.inputs)
    return found


@per_graph
def _order(graph: Graph) -> Mapping[str, int]:
    listed = (*(entry.name for entry in graph.inputs), *(node.name for node in graph.nodes))
    return {name: k for k, name in enumerate(listed)}


def keeps_shape(graph: Graph, block: Block) -> bool:
    """Whether a block gives a value of the shape that it reads, so that it can be repeated."""
    shapes = shapes_of(graph)
    return shapes[block.input] == shapes[block.output]


def layer_count(graph: Graph, block: Block) -> int:
    """How many linear layers and convolutions a block has."""
    return sum(is_layer(graph, name) for name in block.nodes)


Structure = tuple[object, ...]


def structure(graph: Graph, block: Block) -> Structure:
    """What is the same for equal blocks: operators, shapes, ties and wiring, whatever the names.

    Nodes are numbered as they are met on the way back from the output, so that their order in the document counts for
    nothing. So do widths that are a block's own affair, which can grow in one block alone: of two blocks

        x -> conv 16 -> relu -> conv 8 -> + x          x -> conv 17 -> relu -> conv 8 -> + x

    the 16 and the 17 are told as "the first width inside", and only the 8 as what it is.
    """
    shapes, own = shapes_of(graph), owners(graph)
    widths = _Widths(graph, block)
    inside, number = set(block.nodes), dict[str, int]()
    stack = [block.output]
    while stack:
        name = stack.pop()
        if name in inside and name not in number:
            number[name] = len(number)
            stack.extend(reversed(graph[name].inputs))
    shared = shared_outside(graph, inside)
    told: list[object] = []
    for name in number:
        node = graph[name]
        reads = tuple(number.get(value, "entry" if value == block.input else value) for value in node.inputs)
        ties: list[object] = []
        for parameter in own_tables(graph)[name]:
            key = f"{name}.{parameter}"
            owner = own[key]
            host, _, what = owner.rpartition(".")
            if owner in shared or host not in number:
                ties.append((parameter, owner))
            elif owner != key:
                ties.append((parameter, number[host], what))
        told.append((widths.of_op(node), *widths.of_value(name), shapes[name].dtype, reads, tuple(ties)))
    return tuple(told)


class _Widths:
    """The widths in a block, those that no value outside of it holds by number in the order in which they are met."""

    def __init__(self, graph: Graph, block: Block) -> None:
        self.graph, self.values = graph, analyse(graph).values
        inside = set(block.nodes) - {block.output}
        self.inner = {space for space, nodes in _holders(graph).items() if inside.issuperset(nodes)}
        self.numbers: dict[Space, int] = {}

    def of_op(self, node: Node) -> Op:
        """An operator without the attributes that follow inner widths."""
        op = node.op
        for attribute, index, axis in _following(self.graph).get(node.name, ()):
            if not self.inner.isdisjoint(spaces_on(axis)):
                value = getattr(op, attribute)
                left = None if index is None else (*value[:index], None, *value[index + 1 :])
                op = op.model_copy(update={attribute: left})
        return op

    def of_value(self, name: str) -> Iterator[object]:
        """What each axis of a value is: how long, or which inner widths lie on it."""
        for size, axis in zip(shapes_of(self.graph)[name].dims, self.values[name], strict=True):
            found = [[space for space in spaces_on((term,)) if space in self.inner] for term in axis]
            yield size if not any(found) else tuple(map(self._told, axis, found))

    def _told(self, term: Term, inner: Sequence[Space]) -> object:
        """A part of an axis: the numbers of the inner widths on it, or how long it is."""
        numbers = tuple(self.numbers.setdefault(space, len(self.numbers)) for space in inner)
        return numbers or length((term,))


@per_graph
def _holders(graph: Graph) -> Mapping[Space, frozenset[str]]:
    """The nodes whose values hold a space, for each space."""
    return {space.space: frozenset(space.nodes) for space in analyse(graph).spaces}


@per_graph
def _following(graph: Graph) -> Mapping[str, Sequence[tuple[str, int | None, Axis]]]:
    """The attributes of each node that are the width of an axis."""
    found: dict[str, list[tuple[str, int | None, Axis]]] = {}
    for each in analyse(graph).followers:
        found.setdefault(each.node, []).append((each.attribute, each.index, each.axis))
    return found


def shared_outside(graph: Graph, nodes: Collection[str]) -> frozenset[str]:
    """The keys of the tensors that some of these nodes have in common with others, by their owners."""
    users, own = users_of(graph), owners(graph)
    mine = {own[f"{name}.{parameter}"] for name in nodes for parameter in own_tables(graph)[name]}
    return frozenset(key for key in mine if not set(nodes).issuperset(users[key]))


def document_of(graph: Graph, block: Block) -> Graph | str:
    """A block as a graph of its own with one input, which is called "x"; or why it is none."""
    if block.beside:
        return f"it reads {', '.join(cut(name) for name in block.beside)} beside {cut(block.input)}"
    shape = shapes_of(graph)[block.input]
    if not shape.batched:
        return f"it reads {cut(block.input)}, which has no batch axis"
    if outer := sorted(shared_outside(graph, block.nodes)):
        return f"it shares {cut(outer[0])} with nodes outside of it"
    stem = _stem(block.nodes)
    called = {name: name.removeprefix(stem) for name in block.nodes}
    if ENTRY in called.values() or any(map(names.fault, called.values())):
        called = {name: f"part.{called[name]}" for name in block.nodes}  # of "0", "1", say
    nodes: list[Node] = []
    for name in block.nodes:
        node = graph[name]
        nodes.append(renamed(node, called, {block.input: ENTRY}).model_copy(update={"frozen": ()}))
    entry = Input(name=ENTRY, shape=("N", *shape.sizes), dtype=shape.dtype)
    return Graph(name="block", inputs=(entry,), nodes=tuple(nodes), outputs=(called[block.output],))


def _stem(nodes: Sequence[str]) -> str:
    """What stands before the names of a module's nodes, the dot included; nothing where they share no module."""
    parts = [name.split(".")[:-1] for name in nodes]
    shared = [same[0] for same in zip(*parts, strict=False) if len(set(same)) == 1]
    while shared and any(part[: len(shared)] != shared for part in parts):
        shared.pop()
    return "".join(f"{part}." for part in shared)


def module_of(block: Block) -> str:
    """The path of the module that holds all nodes of a block; empty where there is none."""
    return _stem(block.nodes)[:-1]


def renamed(
    node: Node,
    called: Mapping[str, str],
    reads: Mapping[str, str],
    shared: Mapping[str, str] = MappingProxyType({}),
) -> Node:
    """A node of a block under another name.

    Args:
        node: The node.
        called: The new names of the block's nodes; what it reads or shares outside of it keeps its own.
        reads: The values that it reads instead, by those that the block reads.
        shared: The owner of each of its tensors that stays the same one, by parameter.
    """

    def key(owner: str) -> str:
        host, _, parameter = owner.rpartition(".")
        return f"{called.get(host, host)}.{parameter}"

    changes: dict[str, Any] = {
        "name": called[node.name],
        "inputs": tuple(reads.get(name, called.get(name, name)) for name in node.inputs),
        "tied": Ties({**{name: key(owner) for name, owner in node.tied.items()}, **shared}),
    }
    return node.model_copy(update=changes)
