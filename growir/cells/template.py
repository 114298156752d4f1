"""Templates: cells with every operation on every edge, of which a search leaves some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from growir.cells.operations import OPERATIONS
from growir.cells.plan import INPUTS, MOST_NODES, Edge, Kind, edge_problems
from growir.errors import GraphError, Problem, cut

# Without pools and "none", as Firefly has them (Wu et al. 2020, section 3).
SEARCHED: Final = ("skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")


@dataclass(frozen=True, slots=True)
class Template:
    """A cell whose edges are sums of operations, each with inner channels of its own; normal and reduction alike.

    Attributes:
        nodes: How many it has beside its two inputs and its output.
        operations: Of each edge, where `between` says nothing else.
        inner: The inner channels that each operation begins with.
        between: The operations by edge, (state, node), counted as DARTS counts; by default all edges there can be.

    Raises:
        GraphError: With every problem: a cycle, an unknown operation, an edge without operations, a node without edges.
    """

    nodes: int = 4
    operations: tuple[str, ...] = SEARCHED
    inner: int = 4
    between: Mapping[tuple[int, int], tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for field, most in (("nodes", MOST_NODES), ("inner", 100_000)):
            value = getattr(self, field)
            if type(value) is not int or not 1 <= value <= most:
                problems.append(Problem(field, f"a number from 1 to {most:,} is needed, but it is {value!r}"))
        problems += self._untyped()
        if problems:
            raise GraphError(problems, "template")
        if self.between is None and not self.operations:
            problems.append(Problem("operations", "an edge has one operation or more, but there are none"))
        for (source, target), operations in self._between().items():
            where = f"between ({source}, {target})"
            if not operations:
                problems.append(Problem(where, "an edge has one operation or more; leave out edges that have none"))
            if not INPUTS <= target < INPUTS + self.nodes:
                last = INPUTS + self.nodes - 1
                problems.append(Problem(where, f"there is no node {target}; {self.nodes} nodes are {INPUTS} to {last}"))
            if len(set(operations)) < len(operations):
                problems.append(Problem(where, "an operation is there twice; name each once"))
        problems += edge_problems("between", self.edges("normal"), OPERATIONS)
        reached = {edge.target for edge in self.edges("normal") if edge.operation != "none"}
        for node in range(INPUTS, INPUTS + self.nodes):
            if node not in reached and not problems:
                problems.append(Problem(f"node {node}", "no operation leads to it; give it an edge"))
        if problems:
            raise GraphError(problems, "template")

    def _untyped(self) -> Iterator[Problem]:
        """What is not of the types that it should be: who writes a template need not check types."""
        told = {cut(repr(edge)): edge for edge in cast("Mapping[object, object]", self.between or {})}
        for name, edge in told.items():
            pair = cast("tuple[object, ...]", edge) if isinstance(edge, tuple) else ()
            if len(pair) != 2 or not all(type(each) is int for each in pair):
                yield Problem(f"between {name}", "an edge is a pair of a state and a node, such as (0, 2)")
        listed: list[tuple[str, object]] = [("operations", self.operations)] if self.between is None else []
        listed += [(f"between {name}", (self.between or {})[cast("Any", edge)]) for name, edge in told.items()]
        for where, names in listed:
            several = cast("Sequence[object]", names) if isinstance(names, tuple | list) else None
            if several is None or not all(isinstance(name, str) for name in several):
                yield Problem(where, "names of operations are needed, in a tuple")

    def _between(self) -> Mapping[tuple[int, int], tuple[str, ...]]:
        if self.between is not None:
            return self.between
        targets = range(INPUTS, INPUTS + self.nodes)
        return {(source, target): self.operations for target in targets for source in range(target)}

    def edges(self, kind: Kind) -> tuple[Edge, ...]:
        """Its operations, node by node."""
        ordered = sorted(self._between().items(), key=lambda item: (item[0][1], item[0][0]))
        return tuple(Edge(*between, name) for between, operations in ordered for name in operations)

    def concat(self, kind: Kind) -> tuple[int, ...]:
        """All nodes."""
        return tuple(range(INPUTS, INPUTS + self.nodes))
