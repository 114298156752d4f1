"""A random graph on its way: what moves and blocks add nodes to, and draw their choices from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from growir.graph import Node
from growir.ops import ACTIVATIONS, Op, OpError, Shape

T = TypeVar("T")

MAX_ELEMENTS = 512  # of one value, per sample: an example costs milliseconds
# No kink, so that a rounding error cannot move a gradient by more than itself.
SMOOTH = ("tanh", "sigmoid", "silu", "gelu", "softplus", "gaussian")


class Sketch:
    """A graph on its way: nodes so far, and draws from hypothesis."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any], smooth: bool) -> None:
        self._draw = draw
        self.smooth = smooth
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {}
        self.module = ""

    def number(self, low: int, high: int) -> int:
        return int(self._draw(st.integers(low, high)))

    def flag(self) -> bool:
        return bool(self._draw(st.booleans()))

    def one_of(self, choices: Sequence[T]) -> T:
        return choices[self.number(0, len(choices) - 1)]

    def width(self) -> int:
        return self.number(1, 5)

    def add(self, op: Op, *inputs: str, tied: dict[str, str] | None = None, called: str | None = None) -> str:
        """Put a node at the end, with a name of its own unless it is told one. Raises OpError if it does not fit."""
        shape = op.infer(*(self.shapes[name] for name in inputs))
        if shape.elements > MAX_ELEMENTS or shape.rank > 5:
            raise OpError("large enough")
        if not op.integers and any(self.shapes[name].dtype != "float32" for name in inputs):
            raise OpError("takes floats")
        name = called or f"{self.module}{op.kind()}_{len(self.nodes)}"
        self.nodes.append(Node(name=name, op=op, inputs=inputs, tied=tied or {}))
        self.shapes[name] = shape
        return name

    def activation(self, x: str) -> str:
        kinds = SMOOTH if self.smooth else tuple(ACTIVATIONS)
        return self.add(ACTIVATIONS[self.one_of(kinds)](), x)

    def like(self, x: str, fits: Callable[[Shape, Shape], bool]) -> str:
        """A value that fits x, x itself included; likely a late one."""
        found = [name for name in self.shapes if fits(self.shapes[name], self.shapes[x])]
        return found[-1 - min(self.number(0, 3), len(found) - 1)]


Move = Callable[[Sketch, str], str]  # adds nodes behind a value, and says the name of the last


def divisors(number: int) -> list[int]:
    """All divisors, in ascending order."""
    return [d for d in range(1, number + 1) if number % d == 0]
