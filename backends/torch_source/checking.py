"""Whether an exported file computes what its network does."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from growir.backends.torch_fx import lower
from growir.backends.torch_fx.probe import random_batch
from growir.errors import ExportError, cut
from growir.graph import Graph


def check_source(graph: Graph, arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Build the class of a written file, load the weights beside it, and compare it with the lowered network.

    Raises:
        ExportError: An output differs by a single bit.
    """
    from safetensors.torch import load

    exported = _built(path)
    exported.load_state_dict(load(path.with_suffix(".safetensors").read_bytes()))
    lowered = lower(graph, arrays, device="cpu")
    floats = [tensor.dtype for tensor in lowered.state_dict().values() if tensor.is_floating_point()]
    batch = [x.to(floats[0] if floats else torch.float32) if x.is_floating_point() else x for x in random_batch(graph)]
    found: list[tuple[torch.Tensor, ...]] = []
    with torch.no_grad():
        for module in (lowered, exported):
            values: torch.Tensor | tuple[torch.Tensor, ...] = module.eval()(*batch)
            found.append(values if isinstance(values, tuple) else (values,))
    for name, wanted, got in zip(graph.outputs, *found, strict=True):
        if not torch.equal(wanted.nan_to_num(), got.nan_to_num()):
            raise ExportError(f"output {cut(name)!r}: the exported class and the network differ; nothing was written")


def _built(path: Path) -> torch.nn.Module:
    spec = importlib.util.spec_from_file_location("growir_exported", path)
    assert spec is not None
    assert spec.loader is not None
    names = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(names)
    module: torch.nn.Module = names.Net()
    return module
