"""A graph and its arrays as one ONNX model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

import growir
from growir.backends.onnx_ir.frames import spell_framed
from growir.backends.onnx_ir.lengths import declared, open_axes, symbols_of
from growir.backends.onnx_ir.scope import Array, Draft, Scope
from growir.backends.onnx_ir.table import TABLE
from growir.document import dumps
from growir.errors import ExportError
from growir.graph import Graph
from growir.ops import DType
from growir.ops.base import Framed
from growir.params import owners, param_table
from growir.shapes import own_tables, shapes_of

FIRST_OPSET, LAST_OPSET = 17, 26  # LayerNormalization came with 17; what follows 26 is untested
LEAST_IR = 10
PROTOBUF_LIMIT = 2**31 - 1  # bytes in one message
INLINE_BYTES = 1024  # smaller tensors stay in the model file

ELEMENT_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


@dataclass(frozen=True, slots=True)
class Assembly:
    """A whole, checked model but for its large float tensors, which are kept beside it.

    protobuf serialises at most 2 GiB, and inference and checks serialise: so they see those tensors as inputs.
    """

    model: ModelProto
    large: Mapping[str, Array]
    notices: tuple[str, ...]

    @property
    def size(self) -> int:
        """The bytes of the whole model as one message, at most."""
        # Around the numbers stand tags, lengths and the dtype, and six bytes for each size.
        tensors = sum(array.nbytes + len(name) + 32 + 6 * array.ndim for name, array in self.large.items())
        return int(self.model.ByteSize()) + tensors + 16

    def whole(self) -> ModelProto:
        """The model with all its tensors inside."""
        model = ModelProto()
        model.CopyFrom(self.model)
        model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in self.large.items())
        return model


def build_model(graph: Graph, arrays: Mapping[str, Array], *, opset: int = 18) -> ModelProto:
    """The ONNX model of a network in inference form: float32, dynamic batch, shapes inferred, checked.

    Values are called as the graph's nodes, initializers as its state_dict, and outputs as they were called before
    the network grew. Numbers of other precisions become float32.

    Args:
        graph: A verified graph.
        arrays: Its stored tensors by key.
        opset: The ONNX operator set to write.

    Raises:
        ExportError: The opset is not supported, a number does not fit into float32, or the model is over 2 GiB.
    """
    assembly = assemble(graph, arrays, opset)
    if assembly.size > PROTOBUF_LIMIT:
        text = f"the model has {assembly.size} bytes, but one ONNX message holds at most {PROTOBUF_LIMIT}"
        raise ExportError(f"{text}; save it as a file, whose large tensors go to a side file")
    model = assembly.whole()
    onnx.checker.check_model(model, full_check=True)
    return model


def assemble(graph: Graph, arrays: Mapping[str, Array], opset: int) -> Assembly:
    """Spell every node, infer shapes and check; large tensors are left beside the model."""
    _check_opset(opset)
    outputs = output_names(graph)
    draft = Draft(opset, arrays, value_names(graph, outputs))
    shapes = shapes_of(graph)
    keys = owners(graph)
    symbols = symbols_of(graph, open_axes(graph))
    assert symbols is not None, "what is open can be written"
    for node in graph.nodes:
        own = {name: keys[f"{node.name}.{name}"] for name in own_tables(graph)[node.name]}
        given = tuple(shapes[name] for name in node.inputs)
        open_ = tuple(symbols[name] for name in (*node.inputs, node.name))
        scope = Scope(draft, node, own, given, shapes[node.name], open_)
        if isinstance(node.op, Framed) and node.op.frames:
            spell_framed(scope, node.op, TABLE[node.op.kind()])
        else:
            TABLE[node.op.kind()](scope, node.op)
    for value, output in zip(graph.outputs, outputs):
        if draft.values[value] != output:  # an input, or a value that is an output already
            draft.nodes.append(helper.make_node("Identity", [draft.values[value]], [output], name=f"{output}/copy"))

    floats = {name: array for name, array in draft.tensors.items() if array.dtype == np.float32}
    large = {name: array for name, array in floats.items() if array.nbytes > INLINE_BYTES}
    inside = {draft.values[node.name]: declared(shapes[node.name], symbols[node.name]) for node in graph.nodes}
    types: dict[str, DType] = {draft.values[node.name]: shapes[node.name].dtype for node in graph.nodes}
    hidden = inside.keys() - set(outputs) - draft.tensors.keys()
    model = helper.make_model(
        helper.make_graph(
            draft.nodes,
            graph.name or "graph",  # ONNX demands one
            [
                _value(name, declared(shapes[name], symbols[name]), shapes[name].dtype)
                for name in (entry.name for entry in graph.inputs)
            ]
            + [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in large.items()],
            [
                _value(output, declared(shapes[value], symbols[value]), shapes[value].dtype)
                for value, output in zip(graph.outputs, outputs)
            ],
            [numpy_helper.from_array(a, name) for name, a in draft.tensors.items() if name not in large],
            # growir's shapes: strict inference fails where ONNX's differ.
            value_info=[_value(name, sizes, types[name]) for name, sizes in inside.items() if name in hidden],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=max(LEAST_IR, helper.find_min_ir_version_for([helper.make_opsetid("", opset)])),
        producer_name="growir",
        producer_version=growir.__version__,
    )
    helper.set_model_props(
        model,
        {"growir.document": dumps(graph), "growir.hash": graph.hash, "growir.version": growir.__version__},
    )
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    del model.graph.input[len(graph.inputs) :]
    notices = [
        f"the network's weights are {dtype}; the ONNX file holds them as float32" for dtype in sorted(draft.narrowed)
    ]
    return Assembly(model, large, tuple(notices))


def output_names(graph: Graph) -> tuple[str, ...]:
    """What the outputs are called in the file: as before the network grew, so that who reads it need not change."""
    first = graph.outputs if graph.history is None else graph.history.base.outputs
    if len(first) != len(graph.outputs):  # the history of unknown passes is not replayed, so it may say anything
        first = graph.outputs
    taken = {entry.name for entry in graph.inputs} | set(param_table(graph))
    names: list[str] = []
    for k, name in enumerate(first):
        # The base's own outputs decide, not today's nodes: this name has to stay as well.
        unique = name if name not in taken else f"{name}/output_{k}"
        taken.add(unique)
        names.append(unique)
    return tuple(names)


def value_names(graph: Graph, outputs: tuple[str, ...]) -> dict[str, str]:
    """What every value is called in the file: as its node, where no output has that name."""
    names = {entry.name: entry.name for entry in graph.inputs}
    for value, output in zip(graph.outputs, outputs):
        names.setdefault(value, output)
    for node in graph.nodes:
        names.setdefault(node.name, f"{node.name}/inner" if node.name in outputs else node.name)
    return names


def _value(name: str, sizes: Sequence[int | str], dtype: DType) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[dtype], sizes)


def _check_opset(opset: int) -> None:
    known = onnx.defs.onnx_opset_version()
    if not FIRST_OPSET <= opset <= LAST_OPSET:
        raise ExportError(f"opset {opset} is not supported; choose one from {FIRST_OPSET} to {LAST_OPSET}")
    if opset > known:
        text = f"the installed onnx {onnx.__version__} knows opsets up to {known}, not {opset}; upgrade it"
        raise ExportError(f"{text}, or choose one from {FIRST_OPSET} to {known}")
