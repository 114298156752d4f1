"""Which weights a task uses, as truth values: one for each kernel of a convolution and each weight of a linear layer.

conv.weight (out 8, in 3, 5, 5)    mask (8, 3, 1, 1)    a kernel is used or not
fc.weight   (out 10, in 72)        mask (10, 72)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from growir.edits import NUMPY, Edit
from growir.graph import Graph, per_graph
from growir.layers import is_layer
from growir.moments import carry_moments
from growir.params import param_table
from growir.shapes import own_tables, owners

Mask = NDArray[np.bool_]
_CHANNELS = frozenset({"out", "in"})  # what the axes of a layer's weight are called that a mask tells apart


@per_graph
def mask_shapes(graph: Graph) -> Mapping[str, tuple[int, ...]]:
    """The shape of the mask of each weight that can have one, by key: those of linear layers and convolutions."""
    own, found = owners(graph), dict[str, tuple[int, ...]]()
    for node in graph.nodes:
        if is_layer(graph, node.name):
            weight = own_tables(graph)[node.name]["weight"]
            shape = tuple(n if axis in _CHANNELS else 1 for axis, n in zip(weight.axes, weight.shape, strict=True))
            found[own[f"{node.name}.weight"]] = shape
    return found


def packed(mask: Mask) -> NDArray[np.uint8]:
    """A mask as bits, (ceil(n / 8),), the first entry in the highest bit."""
    return np.packbits(mask.ravel())


def unpacked(bits: NDArray[np.uint8], shape: Sequence[int]) -> Mask:
    """The mask of a shape that was packed. Raises ValueError where there are not as many bits."""
    count = int(np.prod(shape))
    if bits.dtype != np.uint8 or bits.shape != (-(-count // 8),):
        raise ValueError(f"{-(-count // 8)} bytes are needed for {tuple(shape)}, but there are {bits.shape}")
    return np.unpackbits(bits, count=count).astype(bool).reshape(tuple(shape))


def union(shape: Sequence[int], masks: Iterable[Mask]) -> Mask:
    """What any of some masks uses."""
    found = np.zeros(tuple(shape), bool)
    for mask in masks:
        found |= mask
    return found


def carried(edits: Sequence[Edit], before: Graph, after: Graph, masks: Mapping[str, Mask]) -> dict[str, Mask]:
    """Masks after a rewrite: what is new is not used, and what is gone has no mask.

    Args:
        edits: Of the rewrite.
        before: The graph that the masks are of.
        after: The graph that they are to be of.
        masks: By key.
    """
    table = param_table(before)
    full = {key: np.broadcast_to(mask, table[key].shape).astype(np.float64) for key, mask in masks.items()}
    shapes = mask_shapes(after)
    found: dict[str, Mask] = {}
    for key, array in carry_moments(edits, full, "update", NUMPY).items():
        if key in shapes:
            kernel = tuple(k for k, n in enumerate(shapes[key]) if n == 1 and array.shape[k] != 1)
            found[key] = np.asarray(array.any(axis=kernel, keepdims=True)) if kernel else array.astype(bool)
    return found
