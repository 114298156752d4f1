"""Measuring whether two networks compute the same function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from growir.backends.torch_fx.lowering import lower
from growir.graph import Graph
from growir.ops import Shape


def random_batch(graph: Graph, rows: int = 4, seed: int = 0) -> list[torch.Tensor]:
    """Standard normal inputs in float64, zeros for integer ones."""
    generator = torch.Generator().manual_seed(seed)
    batch: list[torch.Tensor] = []
    for entry in graph.inputs:
        size = (rows, *Shape(entry.shape).sizes)
        if entry.dtype == "float32":
            batch.append(torch.randn(size, generator=generator, dtype=torch.float64))
        else:
            batch.append(torch.zeros(size, dtype=torch.int64))
    return batch


def largest_change(
    before: tuple[Graph, Mapping[str, NDArray[Any]]], after: tuple[Graph, Mapping[str, NDArray[Any]]]
) -> dict[str, float]:
    """For each output of the first graph, max |difference| / max |output| on a random batch, in float64 eval mode."""
    batch = random_batch(before[0])
    found: list[tuple[torch.Tensor, ...]] = []
    for graph, arrays in (before, after):
        module = lower(graph, arrays, device="cpu", dtype=torch.float64).eval().requires_grad_(False)
        values: torch.Tensor | tuple[torch.Tensor, ...] = module(*batch)
        found.append(values if isinstance(values, tuple) else (values,))
    return {
        name: float((old - new).abs().max()) / max(float(old.abs().max()), 1e-300)
        for name, old, new in zip(before[0].outputs, *found, strict=True)
    }
