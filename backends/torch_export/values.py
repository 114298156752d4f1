"""What a tensor of the exported program is while it becomes part of a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from growir.ops import BATCH, Shape


class Unsupported(Exception):
    """A call that no graph can express; says what was found and what would work."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the model keeps the batch axis of a value, which in a graph is always the first one.

    A model may move the batch axis (L, N, E) or merge it with others (N * heads, L, d). The graph's value is then
    (N, L, E) or (N, heads, L, d): N, the sizes merged before it, those merged after it, and the model's other axes in
    the model's order.

    Attributes:
        place: The model's axis that holds the batch.
        outer: Whether there is an axis merged with the batch on its slow side; it is axis 1 of the value.
        inner: Whether there is one on its fast side; it follows.
    """

    place: int = 0
    outer: bool = False
    inner: bool = False

    @property
    def merged(self) -> int:
        """How many axes are merged with the batch."""
        return int(self.outer) + int(self.inner)

    @property
    def plain(self) -> bool:
        """Whether model and graph keep the batch alike."""
        return self.place == 0 and not self.merged


PLAIN = Layout()


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A value of the graph: the input or node that gives it, its shape there, and the model's layout of it.

    Two of them are the same tensor of the model only if they are the same object.
    """

    source: int
    shape: Shape
    layout: Layout = PLAIN

    @property
    def batched(self) -> bool:
        return self.shape.batched

    @property
    def rank(self) -> int:
        """The number of the model's axes."""
        return self.shape.rank - (self.layout.merged if self.batched else 0)

    @property
    def others(self) -> tuple[int, ...]:
        """The sizes of the model's axes without the one that holds the batch."""
        return self.shape.sizes[self.layout.merged :] if self.batched else self.shape.sizes

    @property
    def factor(self) -> tuple[int, int]:
        """The sizes merged with the batch before and after it."""
        sizes = iter(self.shape.sizes)
        return (next(sizes) if self.layout.outer else 1, next(sizes) if self.layout.inner else 1)

    def is_batch(self, dim: int) -> bool:
        """Whether a non-negative axis of the model holds the batch."""
        return self.batched and dim == self.layout.place

    def dim(self, dim: int) -> int:
        """A possibly negative axis of the model, counted from the front."""
        return dim % max(self.rank, 1)

    def axis(self, dim: int, doing: str) -> int:
        """The graph's axis for one of the model's. Raises Unsupported for the batch, which `doing` would mix."""
        dim = self.dim(dim)
        if not self.batched:
            return dim
        if dim == self.layout.place:
            raise Unsupported(f"{doing} the batch axis; a graph never mixes samples")
        return dim + self.layout.merged + (dim < self.layout.place)

    def size(self, dim: int) -> int:
        """The extent of one of the model's axes that is not the batch."""
        return self.shape.size(self.axis(dim, "asks for the extent of"))

    def at(self, layout: Layout) -> Value:
        """The same value of the graph as the model lays it out."""
        return replace(self, layout=layout)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A tensor that does not depend on the inputs: a parameter, a buffer or a constant.

    Attributes:
        tensor: Its numbers.
        keys: Its names in the model's state_dict, several if it is shared; none for a constant.
        trained: Whether it is a parameter, or else a buffer or constant.
    """

    tensor: torch.Tensor
    keys: tuple[str, ...] = ()
    trained: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """A constant that the model makes once for each sample, all alike.

    Attributes:
        tensor: One row of it as the graph has it: (1, sizes merged with the batch, the model's other axes).
        layout: Where the model keeps the batch.
    """

    tensor: torch.Tensor
    layout: Layout


def mapped(item: Held | Spread, function: Callable[[torch.Tensor], torch.Tensor]) -> Held | Spread:
    """A constant computed from another, number by number."""
    if isinstance(item, Spread):
        return Spread(function(item.tensor), item.layout)
    return Held(function(item.tensor))


@dataclass(frozen=True, slots=True)
class Varied:
    """A tensor made of sizes that is not the same for every sample and batch size.

    Attributes:
        why: Completes a message.
        numbers: Its axis that holds the batch, if each entry is the number of its sample, as in
            torch.arange(N)[:, None]; else -1. As an index such a tensor takes each sample for itself.
    """

    why: str
    numbers: int = -1


class Broken:
    """The result of a call that could not be imported; what depends on it is not reported again."""


Constant = Held | Spread | Varied
Item = Value | Constant | Broken


@dataclass(frozen=True, slots=True)
class Batch:
    """How to tell the batch size in the sizes that export reports.

    Attributes:
        size: The batch size of the example that was exported.
        symbolic: Whether export kept it open; otherwise sizes that are multiples of `size`, a prime that divides no
            size of the model's own tensors, are taken for it.
        counted: Sizes that export left open because they depend on numbers in a constant, a mask that chooses channels
            say, by their symbols: they are known once the constant is read.
    """

    size: int
    symbolic: bool
    counted: dict[Any, int] = field(default_factory=dict[Any, int])

    def settled(self, size: int | torch.SymInt) -> int | torch.SymInt:
        """The size as a plain number, where it does not depend on the batch and is known by now."""
        if isinstance(size, int):
            return size
        expression = cast(Any, size.node.expr).subs(self.counted)
        return size if expression.free_symbols else int(expression)

    def count(self, size: int | torch.SymInt, found: int) -> None:
        """Say what an open size has turned out to be."""
        if isinstance(size, torch.SymInt):
            symbol = cast(Any, size.node.expr)
            if symbol.is_Symbol and size.node.hint is None:
                self.counted[symbol] = found

    def factor(self, size: int | torch.SymInt) -> int | None:
        """How many times the batch size this is, or None if it does not depend on the batch."""
        size = self.settled(size)
        if isinstance(size, int):
            return None if self.symbolic or size == 0 or size % self.size else size // self.size
        expression = cast(Any, size.node.expr).subs(self.counted)
        free = cast("set[Any]", expression.free_symbols)
        if free_unbacked_symbols(size) & free:
            raise Unsupported(f"has a size that depends on the numbers in a tensor, {size}")
        if len(free) != 1:
            raise Unsupported(f"has the size {size}, which does not follow from the batch size alone")
        one, two = (int(expression.subs(dict.fromkeys(free, k * self.size))) for k in (1, 2))
        if two != 2 * one or one % self.size:
            raise Unsupported(f"has the size {size}; a graph's sizes are fixed or multiples of the batch size")
        return one // self.size

    def split(self, shape: Sequence[int | torch.SymInt]) -> tuple[tuple[int, ...], int, int]:
        """A shape without the axis that holds the batch, that axis (-1 if there is none), and its multiple."""
        factors = [self.factor(size) for size in shape]
        found = [k for k, factor in enumerate(factors) if factor is not None]
        if len(found) > 1:
            raise Unsupported(f"has the batch in {len(found)} of its axes, {list(shape)}")
        if not found:
            return tuple(int(self.settled(size)) for size in shape), -1, 1
        place = found[0]
        return tuple(int(self.settled(s)) for k, s in enumerate(shape) if k != place), place, factors[place] or 1


def shape_of(sizes: Sequence[int], batched: bool, integer: bool) -> Shape:
    """A graph's shape from its sizes without the batch."""
    return Shape((BATCH, *sizes) if batched else tuple(sizes), "int64" if integer else "float32")
