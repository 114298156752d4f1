"""Whether an ONNX file computes what torch computes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from growir.backends.onnx_ir.lengths import open_axes
from growir.backends.torch_fx import lower
from growir.backends.torch_fx.probe import random_batch
from growir.errors import ExportError, cut
from growir.graph import Graph
from growir.ops import Shape

Array = NDArray[Any]
TOLERANCE = 1e-4
BATCHES = (1, 7)
SHARES = (1.0, 0.5)  # of the example's length, along the axes that the file leaves open


def check_agreement(graph: Graph, arrays: Mapping[str, Array], path: Path) -> float:
    """The largest difference of ONNX Runtime and torch on random batches, relative to each output's largest value.

    Args:
        graph: A verified graph.
        arrays: Its stored tensors by key.
        path: The file written from them.

    Raises:
        ExportError: They differ by more than 1e-4, or ONNX Runtime cannot run the file.
    """
    # float32 is what the file holds, whatever the network's own precision.
    module = lower(graph, arrays, device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    session = _session(path)
    names = [entry.name for entry in graph.inputs]
    worst = 0.0
    for rows, share in itertools.product(BATCHES, SHARES):
        sizes = {place: math.ceil(share * size) for place, size in open_sizes(graph).items()}
        if share < 1 and not sizes:
            continue
        batch = [x.float() if x.is_floating_point() else x for x in random_batch(graph, rows, sizes=sizes)]
        found: Any = module(*batch)
        values: tuple[torch.Tensor, ...] = found if len(graph.outputs) > 1 else (found,)
        outputs: list[Array] = session.run(None, {name: x.numpy() for name, x in zip(names, batch, strict=True)})
        for name, value, output in zip(graph.outputs, values, outputs, strict=True):
            worst = max(worst, difference(name, rows, value.numpy(), output))
    return worst


def open_sizes(graph: Graph) -> Mapping[tuple[str, int], int]:
    """The open axes of the file's inputs, as (input, axis), with their sizes in the graph."""
    sizes = {entry.name: Shape(entry.shape) for entry in graph.inputs}
    return {(name, axis): sizes[name].size(axis) for name, axis in open_axes(graph)}


def difference(name: str, rows: int, wanted: Array, got: Array) -> float:
    """How far two outputs are apart, relative to the largest value. Raises ExportError where that is too far."""
    where = f"output {cut(name)!r} at batch {rows}"
    if wanted.shape != got.shape:
        shapes = f"torch gives the shape {wanted.shape}, ONNX Runtime {got.shape}"
        raise ExportError(f"{where}: {shapes}; nothing was written")
    if not (np.isfinite(wanted).all() and np.isfinite(got).all()):
        raise ExportError(f"{where}: a random input gives NaN or infinite numbers; nothing was written")
    largest = float(np.abs(wanted).max())
    apart = float(np.abs(wanted - got).max()) / (largest or 1.0)
    if apart > TOLERANCE:
        raise ExportError(
            f"{where}: torch and ONNX Runtime differ by {apart:.1e} of its largest value, and {TOLERANCE:.0e} is "
            "allowed; nothing was written (--no-check writes it all the same)"
        )
    return apart


def _session(path: Path) -> Any:
    runtime: Any = onnxruntime  # it has no types
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors; the rest is about its own optimisations
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the classes it raises are not public
        raise ExportError(f"ONNX Runtime cannot load the file: {error}; nothing was written") from error
