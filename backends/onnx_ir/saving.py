"""ONNX files: written whole or not at all, and the graph document read back from them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from growir.backends.onnx_ir.model import PROTOBUF_LIMIT, assemble
from growir.backends.onnx_ir.scope import Array
from growir.errors import ExportError, GraphError
from growir.graph import Graph
from growir.staging import swap_in, write_parts

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
        path: The file; an older one is replaced.
        opset: The ONNX operator set to write.
        threshold: A model of more bytes keeps its large tensors in a side file, `<name>.data`.

    Raises:
        ExportError: The opset is not supported, a number does not fit into float32, or the file cannot be written.
            What was there before is still there.
    """
    target = Path(path)
    assembly = assemble(graph, arrays, opset)
    try:
        with tempfile.TemporaryDirectory(prefix=".growir-", dir=target.parent) as name:
            staging = Path(name)
            names = [target.name]
            if assembly.size > min(threshold, PROTOBUF_LIMIT) and assembly.large:
                names.append(f"{target.name}.data")
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
    source = str(path)
    model = ModelProto()
    try:
        model.ParseFromString(Path(path).read_bytes())
    except OSError as error:
        raise GraphError(f"the file cannot be read: {error.strerror or error}", source) from error
    except DecodeError:
        raise GraphError("this is no ONNX file", source) from None
    for entry in model.metadata_props:
        if entry.key == "growir.document":
            return str(entry.value)
    raise GraphError("this ONNX file holds no graph document, so growir did not write it", source)


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
