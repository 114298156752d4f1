"""Writing the source file and its weights, both or neither."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from growir.backends.torch_source.source import MARK, module_source
from growir.errors import ExportError
from growir.graph import Graph
from growir.params import owners
from growir.staging import replaceable, swap_in, write_parts

HASH = "growir.hash"


def save_source(graph: Graph, arrays: Mapping[str, NDArray[Any]], path: Path) -> Path:
    """Write a network as NAME.py and NAME.safetensors; returns the path of the weights.

    The weights hold a tied tensor under each of its names, as the module's state_dict does.

    Raises:
        ExportError: Something cannot be written as source, growir did not write what is there already, or a file cannot
            be written; what was there is still there.
    """
    from safetensors.numpy import save

    weights = path.with_suffix(".safetensors")
    for each in (path, weights):
        replaceable(each, is_ours)
    text = module_source(graph, arrays, path.stem)
    tensors = {key: np.asarray(arrays[owner], order="C") for key, owner in owners(graph).items()}
    try:
        with tempfile.TemporaryDirectory(prefix=".growir-", dir=path.parent) as name:
            staging = Path(name)
            write_parts(staging / weights.name, [save(tensors, {HASH: graph.hash})])
            write_parts(staging / path.name, [text.encode()])
            swap_in(staging, path.parent, [path.name, weights.name])
    except OSError as error:
        raise ExportError(f"{path}: the file cannot be written: {error.strerror or error}") from error
    return weights


def is_ours(path: Path) -> bool:
    """Whether a file is source or weights that `save_source` wrote."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            opened: Any = safe_open(path, framework="np")  # it ships no types
            with opened as file:
                return HASH in (file.metadata() or {})
        except (SafetensorError, OSError):
            return False
    with path.open("rb") as file:
        return file.readline(len(MARK)) == MARK.encode()
