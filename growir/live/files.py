"""Checkpoints as files: read without running code, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from growir.errors import ExportError, ModelError, cut
from growir.nearest import neighbours
from growir.store import write_file, write_folder

SAFETENSORS = ".safetensors"


def read_state(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a file of torch.save or of safetensors holds, on the CPU, and a safetensors file's metadata.

    Raises:
        ModelError: There is no such file, it is damaged, or it holds more than tensors and plain values.
    """
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; a checkpoint is a file of torch.save or of safetensors")
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file{neighbours(path)}")
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    try:
        # Banned elsewhere, since a pickle may run code; with weights_only it is refused if it would.
        found: object = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except OSError:
        raise
    except Exception as error:  # for a damaged file torch raises whatever its readers come upon
        raise ModelError(f"{path}: is no checkpoint that torch.load(weights_only=True) reads: {_why(error)}") from None
    if not isinstance(found, Mapping):
        raise ModelError(f"{path}: a checkpoint is a dict, but this is a {type(found).__name__}")
    return cast("dict[str, Any]", found), {}


def _why(error: Exception) -> str:
    """The part of torch's text that says what is wrong, without what it advises."""
    telling = str(error).rpartition("WeightsUnpickler error:")[2]
    lines = [line.strip() for line in telling.splitlines() if line.strip()]
    return cut((lines or [type(error).__name__])[0], 300)


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        opened: Any = safe_open(path, framework="pt")  # it ships no types
        with opened as file:
            tensors = {key: file.get_tensor(key) for key in list(file.keys())}
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{path}: not a readable safetensors file: {error}") from None


def check_free(path: Path) -> None:
    """Raise ExportError unless nothing is at a path and it lies in a folder."""
    if path.exists():
        raise ExportError(f"{path}: is there already, and a checkpoint is not overwritten; choose another name")
    if not path.parent.is_dir():
        raise ExportError(f"{path}: the folder {path.parent} does not exist")


def write_state(path: Path, state: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write a file of the kind that its name says. Raises ExportError."""
    if path.suffix == SAFETENSORS:
        from safetensors.torch import save

        if other := next((key for key, value in state.items() if not isinstance(value, torch.Tensor)), None):
            raise ExportError(
                f"{path}: a safetensors file holds tensors alone, but {cut(other)} is of type "
                f"{type(state[other]).__name__}; choose a name that ends in .pt"
            )
        # Each tensor by itself: the format has no shared memory.
        write_file(path, save({key: value.clone().contiguous() for key, value in state.items()}, dict(metadata)))
    else:
        write_file(path, partial(torch.save, state))


def write_states(folder: Path, files: Mapping[str, tuple[Mapping[str, Any], Mapping[str, str]]]) -> None:
    """Write several files as a new folder, all or none. Raises ExportError."""

    def fill(new: Path) -> None:
        for name, (state, metadata) in files.items():
            write_state(new / name, state, metadata)

    write_folder(folder, fill)
