"""What the weight of a layer multiplies: the one place in growth that knows how layers lay their weights out.

A layer is linear in its weight, so its output at every position is a row of known numbers times one matrix. For a
linear layer the row is its input; for a convolution it is the patch under the kernel. All that growth solves for is
such a matrix, (features, width), whatever the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F

from growir.graph import Graph, Input, Node
from growir.growth.measure.section import run_section
from growir.ops import Conv2d, Linear, Op, Shape
from growir.ops.base import Dim, in_full

Chain = Callable[[torch.Tensor], torch.Tensor]


def is_layer(op: Op) -> bool:
    """Whether growth knows what the weight of this layer multiplies."""
    if isinstance(op, Linear):
        return True
    return (
        isinstance(op, Conv2d)
        and not (op.frames or op.depthwise)
        and op.groups == 1
        and isinstance(op.padding, int | tuple)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The rows that are read of a value: every sample of a vector, some positions of a map.

    Attributes:
        samples: (rows,) which sample; None for a vector, whose rows are its samples.
        at: (rows,) each, the position along each spatial axis.
        positions: How many positions a sample has.
    """

    samples: torch.Tensor | None = None
    at: tuple[torch.Tensor, ...] = ()
    positions: int = 1

    @classmethod
    def draw(cls, samples: int, shape: Shape, most: int, draws: torch.Generator) -> Places:
        """At most `most` rows of a map's positions, or as many as there are samples if that is more.

        Every sample gets equally many, so that a mean over rows is a mean over samples and positions.
        """
        sizes = shape.sizes[1:]
        if not sizes:
            return cls()
        positions = 1
        for size in sizes:
            positions *= size
        each = min(positions, max(1, most // samples))
        order = torch.rand(samples, positions, generator=draws).argsort(dim=1)[:, :each]
        flat = order.reshape(-1)
        at: list[torch.Tensor] = []
        for size in reversed(sizes):
            at.insert(0, flat % size)
            flat = torch.div(flat, size, rounding_mode="floor")
        return cls(torch.arange(samples).repeat_interleave(each), tuple(at), positions)

    def of(self, value: torch.Tensor) -> torch.Tensor:
        """The rows of a value itself, (rows, channels)."""
        if self.samples is None:
            return value
        rows, columns = self.at
        return value[self.samples, :, rows, columns]


def design(op: Op, value: torch.Tensor, places: Places) -> torch.Tensor:
    """What the weight of a layer multiplies to give each row of its output, (rows, features)."""
    if not isinstance(op, Conv2d):
        return value
    assert places.samples is not None
    kernel, pads = op.kernel(Shape(("N", *value.shape[1:])))[1:], op.padding
    high, wide = (pads, pads) if isinstance(pads, int) else cast("tuple[int, int]", pads)
    (down, right), (apart, across) = op.strides(), op.spacing()
    padded = F.pad(value, (wide, wide, high, high))
    # Views of all windows; only those at the chosen places are copied.
    windows = padded.unfold(2, apart * (kernel[0] - 1) + 1, down).unfold(3, across * (kernel[1] - 1) + 1, right)
    chosen = windows[..., ::apart, ::across][places.samples, :, places.at[0], places.at[1]]
    return chosen.reshape(len(chosen), -1)


def window_of(op: Op) -> tuple[object, ...]:
    """What two layers that read the same have in common if their designs are the same."""
    return (op.kernel_size, op.stride, op.padding, op.dilation) if isinstance(op, Conv2d) else ()


def as_weight(op: Op, matrix: torch.Tensor) -> torch.Tensor:
    """A matrix (features, width) as the weight of a layer."""
    if not isinstance(op, Conv2d):
        return matrix.T
    assert op.kernel_size is not None
    return matrix.T.reshape(matrix.shape[1], -1, *in_full(op.kernel_size, op.spatial))


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """The weight of a layer as the matrix (features, width) that its design is multiplied by."""
    return weight.flatten(1).T


def run_layer(op: Op, value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The layer without its bias."""
    if not isinstance(op, Conv2d):
        return F.linear(value, weight)
    padding = cast("int | tuple[int, int]", op.padding)
    return F.conv2d(value, weight, stride=op.strides(), padding=padding, dilation=op.spacing())


def along_channels(vector: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One number a channel, shaped to be added to a value (n, channels, ...)."""
    return vector.reshape(1, -1, *([1] * (like.ndim - 2)))


def chain(ops: Sequence[Op], shape: Shape) -> Chain:
    """Operators without parameters, one after the other, as a function of values with any number of channels.

    Args:
        ops: The operators.
        shape: Of a value, whose number of channels does not matter.
    """
    return _chain(tuple(ops), shape.dims[2:]) if ops else lambda value: value


@lru_cache(maxsize=256)
def _chain(ops: tuple[Op, ...], positions: tuple[Dim, ...]) -> Chain:
    names = ["x", *(f"y{k}" for k in range(len(ops)))]
    nodes = tuple(Node(name=names[k + 1], op=op, inputs=(names[k],)) for k, op in enumerate(ops))
    # Lowered code holds no width, so a module of one channel serves all.
    entry = Input(name="x", shape=("N", 1, *positions))
    run = run_section(Graph(inputs=(entry,), nodes=nodes, outputs=(names[-1],)), {}, ["x"], [names[-1]])
    return lambda value: run(value)[0]
