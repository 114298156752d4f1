"""Measuring whether two networks compute the same function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growir.backends.torch_fx.lowering import lower
from growir.entries import UNCHANGED, Entries
from growir.graph import Graph
from growir.ops import Shape


def random_batch(
    graph: Graph, rows: int = 4, seed: int = 0, sizes: Mapping[tuple[str, int], int] | None = None
) -> list[torch.Tensor]:
    """Standard normal inputs in float64, zeros for integer ones; `sizes` for axes that are not as in the graph."""
    generator = torch.Generator().manual_seed(seed)
    batch: list[torch.Tensor] = []
    for entry in graph.inputs:
        shape = Shape(entry.shape)
        size = (rows, *((sizes or {}).get((entry.name, k + 1), n) for k, n in enumerate(shape.sizes)))
        if entry.dtype == "float32":
            batch.append(torch.randn(size, generator=generator, dtype=torch.float64))
        else:
            batch.append(torch.zeros(size, dtype=torch.int64))
    return batch


def lengthened(
    graph: Graph, batch: Sequence[torch.Tensor], entries: Entries, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """A batch of a graph's inputs as a rewrite that lengthened some of them takes it.

    Old numbers lie at their old places. At the new ones are normal draws, or zeros where the rewrite needs them; of
    integers, those of the first place, which are sure to be known.
    """
    generator = torch.Generator().manual_seed(seed)
    found: list[torch.Tensor] = []
    for entry, tensor in zip(graph.inputs, batch, strict=True):
        whole = tensor
        for axis, index in entries.inputs.get(entry.name, {}).items():
            whole = whole.index_select(axis, torch.from_numpy(index.clip(0)).to(tensor.device))
            new = np.flatnonzero(index < 0)
            if tensor.is_floating_point():
                size = [len(new) if k == axis else n for k, n in enumerate(whole.shape)]
                drawn = torch.zeros(size) if entries.zero else torch.randn(size, generator=generator)
                where = torch.from_numpy(new).to(tensor.device)
                whole = whole.index_copy(axis, where, drawn.to(tensor.device, tensor.dtype))
        found.append(whole)
    return tuple(found)


def old_entries(values: Sequence[torch.Tensor], entries: Entries) -> tuple[torch.Tensor, ...]:
    """Outputs after a rewrite at the places of the old entries: of the shape that they had before it."""
    found: list[torch.Tensor] = []
    for k, value in enumerate(values):
        for axis, places in entries.kept(k).items():
            value = value.index_select(axis, torch.from_numpy(places).to(value.device))
        found.append(value)
    return tuple(found)


def largest_change(
    before: tuple[Graph, Mapping[str, NDArray[Any]]],
    after: tuple[Graph, Mapping[str, NDArray[Any]]],
    entries: Entries = UNCHANGED,
) -> dict[str, float]:
    """For each output of the first graph, max |difference| / max |output| on a random batch, in float64 eval mode.

    Where `entries` became longer, at the old ones.
    """
    first = random_batch(before[0])
    found: list[tuple[torch.Tensor, ...]] = []
    for (graph, arrays), batch in ((before, first), (after, lengthened(before[0], first, entries))):
        module = lower(graph, arrays, device="cpu", dtype=torch.float64).eval().requires_grad_(False)
        values: torch.Tensor | tuple[torch.Tensor, ...] = module(*batch)
        found.append(values if isinstance(values, tuple) else (values,))
    return {
        name: float((old - new).abs().max()) / max(float(old.abs().max()), 1e-300)
        for name, old, new in zip(before[0].outputs, found[0], old_entries(found[1], entries), strict=True)
    }
