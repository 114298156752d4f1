"""Cells found again in a graph, by the names that `network` gives their nodes, however their operations have grown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from growir.cells.genotype import PER_NODE, Genotype
from growir.cells.network import BEFORE
from growir.cells.plan import KINDS, Edge, Kind
from growir.channels import ChannelSpace, analyse
from growir.errors import GraphError, cut
from growir.graph import Graph, Input, Node, per_graph
from growir.ops import Add, Concat
from growir.shapes import shapes_of
from growir.verify import verify

_NODE: Final = re.compile(r"(?:(?P<module>.+)\.)?node_(?P<state>[0-9]{1,4})\Z")
_EDGE: Final = re.compile(r"edge_(?P<source>[0-9]{1,4})_(?P<target>[0-9]{1,4})(?:_[0-9]{1,4})?\Z")
_BEFORE: Final = re.compile(r"preprocess(?P<state>[01])\.")
SKIP: Final = "skip_connect"  # the operation that has no node where a map keeps its size


@dataclass(frozen=True, slots=True)
class OperationAt:
    """An operation of a cell of a graph.

    Attributes:
        module: What the names of its nodes begin with, normal.0.edge_0_2.sep_conv_3x3; of an identity what they would.
        edge: Which it is.
        value: What it gives to the sum.
        nodes: Its nodes; an identity has none.
        inner: Its inner channels: those that only its own parameters know of; None if there are none.
        spaces: The names of the channel spaces that they are.
    """

    module: str
    edge: Edge
    value: str
    nodes: tuple[str, ...]
    inner: int | None = None
    spaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CellAt:
    """A cell of a graph.

    Attributes:
        module: What the names of its nodes begin with; empty of a fragment.
        kind: Normal or reduction.
        operations: Those that its nodes are sums of, node by node.
        sums: The nodes, by state.
        output: The value that it gives.
        concat: The states that this consists of.
    """

    module: str
    kind: Kind
    operations: tuple[OperationAt, ...]
    sums: tuple[tuple[int, str], ...]
    output: str
    concat: tuple[int, ...]

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Its operations as data."""
        return tuple(operation.edge for operation in self.operations)


@per_graph
def cells_of(graph: Graph) -> tuple[CellAt, ...]:
    """The cells of a graph, in the order of the document; none where nothing is called like one."""
    sums: dict[str, list[tuple[int, Node]]] = {}
    for node in graph.nodes:
        found = _NODE.match(node.name)
        if found is not None and isinstance(node.op, Add):
            sums.setdefault(found["module"] or "", []).append((int(found["state"]), node))
    if not sums:
        return ()
    inner = _inner(graph)
    members: dict[str, list[str]] = {}
    for node in graph.nodes:
        for at in _operation_modules(node.name):
            members.setdefault(at, []).append(node.name)
    made: list[CellAt] = []
    for module, nodes in sums.items():
        stem = f"{module}." if module else ""
        states = {node.name: state for state, node in nodes}
        states |= {entry.name: BEFORE.index(entry.name) for entry in graph.inputs if not stem and entry.name in BEFORE}
        operations: list[OperationAt] = []
        for state, node in sorted(nodes, key=lambda each: each[0]):
            for value in node.inputs:
                operations.append(_operation(stem, state, value, states, members, inner))
        output = f"{stem}out"
        if output not in graph or not isinstance(graph[output].op, Concat):
            continue
        read = [_state(stem, value, states) for value in graph[output].inputs]
        concat = tuple(each for each in read if each is not None)
        if len(concat) == len(read):
            numbered = tuple(sorted((state, node.name) for state, node in nodes))
            made.append(CellAt(module, _kind(graph, module), tuple(operations), numbered, output, concat))
    return tuple(made)


def _operation_modules(name: str) -> Iterator[str]:
    """The modules of operations that a node stands in, by its name: one, or none."""
    parts = name.split(".")
    for k in range(len(parts) - 2):
        if _EDGE.match(parts[k]):
            yield ".".join(parts[: k + 2])
            return


def _state(stem: str, value: str, states: dict[str, int]) -> int | None:
    """Which state of a cell a value is; None if it is none."""
    if value in states:
        return states[value]
    found = _BEFORE.match(value.removeprefix(stem)) if value.startswith(stem) else None
    return None if found is None else int(found["state"])


def _operation(
    stem: str,
    target: int,
    value: str,
    states: dict[str, int],
    members: dict[str, list[str]],
    inner: dict[str, list[ChannelSpace]],
) -> OperationAt:
    source = _state(stem, value, states)
    if source is not None:
        return OperationAt(f"{stem}edge_{source}_{target}.{SKIP}", Edge(source, target, SKIP), value, ())
    module = next(_operation_modules(value), "")
    at, _, name = module.rpartition(".")
    found = _EDGE.match(at.removeprefix(stem)) if module and at.startswith(stem) else None
    if found is None or int(found["target"]) != target:
        raise GraphError(
            f"{cut(f'{stem}node_{target}')} reads {cut(value)}, which is neither a state of the cell nor an operation "
            f"of it, {stem}edge_I_{target}.OPERATION.*"
        )
    edge = Edge(int(found["source"]), target, name)
    spaces = inner.get(module, [])
    width = sum(space.units for space in spaces) if spaces else None
    return OperationAt(module, edge, value, tuple(members[module]), width, tuple(space.name for space in spaces))


def _inner(graph: Graph) -> dict[str, list[ChannelSpace]]:
    """The spaces of the inner channels of each operation, by its module."""
    found: dict[str, list[ChannelSpace]] = {}
    for space in analyse(graph).spaces:
        keys = [slot.parameter for slot in (*space.producers, *space.consumers)]
        modules = {next(_operation_modules(key), "") for key in keys}
        if len(modules) == 1 and space.consumers and "" not in modules:
            (module,) = modules
            found.setdefault(module, []).append(space)
    return found


def _kind(graph: Graph, module: str) -> Kind:
    """The kind of a cell, which its module is called, or its graph where it is a fragment."""
    named = [part for part in module.split(".") if part in KINDS] if module else [graph.name]
    return "reduce" if named and named[-1] == "reduce" else "normal"


def genotype_of(graph: Graph) -> Genotype:
    """What the cells of a graph are, in the notation of DARTS.

    Raises:
        GraphError: There are none of a kind, two of a kind differ, or a node is not the sum of two operations.
    """
    first: dict[Kind, CellAt] = {}
    for at in cells_of(graph):
        known = first.setdefault(at.kind, at)
        if (at.edges, at.concat) != (known.edges, known.concat):
            raise GraphError(
                f"cells {cut(known.module)} and {cut(at.module)} differ, but a genotype has one cell of each kind"
            )
    for kind in KINDS:
        if kind not in first:
            raise GraphError(
                f"the graph has no {kind} cell, but a genotype has one of each kind; cells are found by the names "
                "that growir.cells.network gives their nodes"
            )
        for state, node in first[kind].sums:
            many = sum(edge.target == state for edge in first[kind].edges)
            if many != PER_NODE:
                raise GraphError(
                    f"{cut(node)} is a sum of {many} operations, but in a genotype each node has {PER_NODE}; the pass "
                    "discretise chooses them"
                )
    pairs = {kind: tuple((e.operation, e.source) for e in first[kind].edges) for kind in KINDS}
    return Genotype(pairs["normal"], first["normal"].concat, pairs["reduce"], first["reduce"].concat)


def fragment(graph: Graph, module: str = "", *, whole: bool = False) -> Graph:
    """A cell of a graph as a document of its own, with the widths that it has, and two inputs, s0 and s1.

    Args:
        graph: A graph with cells.
        module: Which one; by default the first.
        whole: Whether what brings both inputs to the cell's width is a part of it, as the pass `stack` takes it.

    Raises:
        GraphError: There is no such cell.
    """
    found = cells_of(graph)
    at = next((each for each in found if module in ("", each.module)), None)
    if at is None:
        known = ", ".join(cut(each.module) for each in found) or "none"
        raise GraphError(f"there is no cell {cut(module)!r} in the graph; there are {known}")
    if not at.module:
        return graph
    stem = f"{at.module}."
    inside = [n for n in graph.nodes if n.name.startswith(stem)]
    inside = [n for n in inside if whole or not _BEFORE.match(n.name.removeprefix(stem))]
    names = {node.name for node in inside}
    shapes, sizes, nodes = shapes_of(graph), dict[str, tuple[int, ...]](), list[Node]()
    for node in inside:
        own, read = node.name.removeprefix(stem), list[str]()
        for value in node.inputs:
            # From outside a cell alone reads what is brought to its width, and a whole one what is to be.
            state = None if value in names else _state(stem, f"{stem}{own}" if whole else value, {})
            if state is not None:
                sizes[BEFORE[state]] = shapes[value].sizes
            read.append(value.removeprefix(stem) if state is None else BEFORE[state])
        nodes.append(node.model_copy(update={"name": own, "inputs": tuple(read), "frozen": ()}))
    inputs = tuple(Input(name=name, shape=("N", *sizes.get(name, next(iter(sizes.values()))))) for name in BEFORE)
    return verify(Graph(name=at.kind, inputs=inputs, nodes=tuple(nodes), outputs=(at.output.removeprefix(stem),)))
