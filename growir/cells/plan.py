"""What a cell is as data: which operation leads from which state to which node.

States are numbered as in DARTS: 0 and 1 are the two inputs, what the last cell but one gave and what the last one gave,
and each node has the next number. A node is the sum of what its edges give, and the output of the cell is a few of its
states, their channels one behind the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from growir.errors import Problem, cut
from growir.nearest import alternatives

Kind = Literal["normal", "reduce"]
KINDS: Final[tuple[Kind, ...]] = ("normal", "reduce")
INPUTS: Final = 2  # of a cell
MOST_NODES: Final = 100  # of a cell


@dataclass(frozen=True, slots=True)
class Edge:
    """One operation of a cell.

    Attributes:
        source: The state that it reads.
        target: The node that it leads to.
        operation: Its name.
    """

    source: int
    target: int
    operation: str

    def __str__(self) -> str:
        return f"{cut(self.operation)} from {self.source} to {self.target}"


class Plan(Protocol):
    """What cells are built from: a genotype, or a template that has every operation."""

    @property
    def inner(self) -> int | None:
        """The inner channels of each operation; None for those that DARTS gives it."""
        ...

    def edges(self, kind: Kind) -> Sequence[Edge]:
        """The operations of a cell, node by node."""
        ...

    def concat(self, kind: Kind) -> Sequence[int]:
        """The states that its output consists of."""
        ...


def edge_problems(where: str, edges: Iterable[Edge], operations: Collection[str]) -> Iterator[Problem]:
    """What is wrong with the edges of a cell: cycles, and operations that nobody knows, each named once."""
    told = set(operations)
    for edge in edges:
        if not 0 <= edge.source < edge.target:
            yield Problem(
                f"{where}: {edge}",
                f"a cell has no cycle: node {edge.target} reads the inputs, 0 and 1, and nodes before it, so a state "
                f"from 0 to {edge.target - 1}",
            )
        if edge.operation not in told:
            told.add(edge.operation)
            near = alternatives(edge.operation, operations)
            yield Problem(f"{where}: {edge}", f"there is no operation {cut(edge.operation)!r}.{near}")


def concat_problems(where: str, concat: Sequence[int], nodes: int) -> Iterator[Problem]:
    """What is wrong with the states that the output of a cell of so many nodes consists of."""
    last = INPUTS + nodes - 1
    if not concat:
        yield Problem(where, f"the output of a cell consists of one state or more, of 0 to {last}")
    for state in concat:
        if not 0 <= state <= last:
            yield Problem(where, f"there is no state {state}; a cell of {nodes} nodes has states 0 to {last}")
    if len(set(concat)) < len(concat):
        yield Problem(where, "a state is there twice; name each once")
