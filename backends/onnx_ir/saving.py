"""ONNX files: written whole or not at all, and the graph document read back from them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, numpy_helper

from growir.backends.onnx_ir.model import PROTOBUF_LIMIT, assemble
from growir.backends.onnx_ir.scope import Array
from growir.errors import ExportError, GraphError, Problem, cut
from growir.graph import Graph
from growir.staging import replaceable, swap_in, write_parts

ALIGNMENT = 4096  # of tensors in the side file: runtimes map whole pages


def save_model(
    graph: Graph,
    arrays: Mapping[str, Array],
    path: str | os.PathLike[str],
    *,
    opset: int = 18,
    threshold: int = PROTOBUF_LIMIT,
) -> list[str]:
    """Write a network as an ONNX file, as `build_model` makes it, and return what the user should know about it.

    Args:
        graph: A verified graph.
        arrays: Its stored tensors by key.
        path: The file; one that growir wrote before is replaced, any other is refused.
        opset: The ONNX operator set to write.
        threshold: A model of more bytes keeps its large tensors in a side file, `<name>.data`.

    Raises:
        ExportError: The opset is not supported, a number does not fit into float32, another tool's file is at `path`
            or in the side file's place, or the file cannot be written. What was there before is still there.
    """
    target = Path(path)
    replaceable(target, is_ours)
    assembly = assemble(graph, arrays, opset)
    try:
        with tempfile.TemporaryDirectory(prefix=".growir-", dir=target.parent) as name:
            staging = Path(name)
            names = [target.name]
            if assembly.size > min(threshold, PROTOBUF_LIMIT) and assembly.large:
                side = target.with_name(f"{target.name}.data")
                replaceable(side, lambda _: target.exists() and _has_side_file(target, side.name))
                names.append(side.name)
                model = _with_side_file(assembly.model, assembly.large, staging / names[1])
            else:
                model = assembly.whole()
            write_parts(staging / names[0], [model.SerializeToString()])
            onnx.checker.check_model(str(staging / names[0]), full_check=True)
            swap_in(staging, target.parent, names)
    except OSError as error:
        raise ExportError(f"{target}: the file cannot be written: {error.strerror or error}") from error
    return list(assembly.notices)


def read_document(path: str | os.PathLike[str]) -> str:
    """The graph document inside an ONNX file; its tensors stay on disk where they lie in a side file.

    Raises:
        GraphError: The file cannot be read, or growir did not write it.
    """
    document = _document_in(_read_model(path))
    if document is None:
        raise GraphError("this ONNX file holds no graph document, so growir did not write it", str(path))
    return document


def read_weights(path: str | os.PathLike[str], keys: Collection[str]) -> dict[str, Array]:
    """The tensors of an ONNX file that growir wrote by their state_dict keys, as float32 or int64.

    Those that its inference form has no use for, such as a norm's count of batches, are not in it.

    Raises:
        GraphError: The file cannot be read, or one of its tensors or its side file is damaged or missing.
    """
    folder = str(Path(path).parent)
    found: dict[str, Array] = {}
    for tensor in _read_model(path).graph.initializer:
        if tensor.name in keys:
            try:
                found[tensor.name] = numpy_helper.to_array(tensor, folder)
            except (OSError, ValueError, TypeError, onnx.checker.ValidationError) as error:
                text = f"the tensor cannot be read: {error}; export the network anew"
                raise GraphError([Problem(cut(tensor.name), text)], str(path)) from None
    return found


def as_stored(array: Array) -> Array:
    """A tensor in the dtype that ONNX files hold; what float32 cannot hold is infinite, and in no file."""
    if array.dtype.kind == "i":
        return array.astype(np.int64)
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def is_ours(path: Path) -> bool:
    """Whether a file is an ONNX file that growir wrote."""
    try:
        return _document_in(_read_model(path)) is not None
    except GraphError:
        return False


def _read_model(path: str | os.PathLike[str]) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(Path(path).read_bytes())
    except OSError as error:
        raise GraphError(f"the file cannot be read: {error.strerror or error}", str(path)) from error
    except DecodeError:
        raise GraphError("this is no ONNX file", str(path)) from None
    return model


def _document_in(model: ModelProto) -> str | None:
    return next((str(entry.value) for entry in model.metadata_props if entry.key == "growir.document"), None)


def _has_side_file(path: Path, name: str) -> bool:
    """Whether an ONNX file keeps tensors in the side file of this name."""
    places = (entry for tensor in _read_model(path).graph.initializer for entry in tensor.external_data)
    return any(entry.key == "location" and entry.value == name for entry in places)


def _with_side_file(model: ModelProto, large: Mapping[str, Array], path: Path) -> ModelProto:
    """Write tensors to the side file and return the model that points there."""
    pointing = ModelProto()
    pointing.CopyFrom(model)
    offset = 0
    for name, array in large.items():
        tensor = TensorProto(name=name, dims=array.shape, data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", path.name), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        pointing.graph.initializer.append(tensor)
        offset += array.nbytes + -array.nbytes % ALIGNMENT
    write_parts(path, (a.astype("<f4", copy=False).tobytes() + bytes(-a.nbytes % ALIGNMENT) for a in large.values()))
    return pointing
