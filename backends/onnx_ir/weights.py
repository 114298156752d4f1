"""Fully connected layers, convolutions and learned values in ONNX."""

from __future__ import annotations

from growir import ops
from growir.backends.onnx_ir.scope import Scope
from growir.ops.conv import Conv, ConvTranspose


def _weight(s: Scope) -> str:
    """The second input where there is one, else the node's own weight."""
    return s.inputs[1] if len(s.inputs) == 2 else s.param("weight")


def linear(s: Scope, op: ops.Linear) -> None:
    bias = [s.param("bias")] if op.bias else []
    if s.shape.rank == 2:
        s.result("Gemm", s.x, _weight(s), *bias, transB=1)
        return
    # Gemm takes matrices only. The transpose is a node, which runtimes fold, and not a second copy of the weight:
    # it may be tied, and initializers are the state_dict's tensors.
    columns = s.call("columns", "Transpose", _weight(s), perm=[1, 0])
    if bias:
        s.result("Add", s.call("product", "MatMul", s.x, columns), *bias)
    else:
        s.result("MatMul", s.x, columns)


def embedding(s: Scope, op: ops.Embedding) -> None:
    s.result("Gather", s.param("weight"), s.x)


def conv(s: Scope, op: Conv) -> None:
    pads = op.pads(*s.shapes)
    _, *kernel = op.kernel(*s.shapes)
    s.result(
        "Conv",
        s.x,
        _weight(s),
        *([s.param("bias")] if op.bias else []),
        kernel_shape=kernel,
        strides=op.strides(),
        pads=[*(before for before, _ in pads), *(behind for _, behind in pads)],
        dilations=op.spacing(),
        group=op.group_count(s.shapes[0]),
    )


def conv_transpose(s: Scope, op: ConvTranspose) -> None:
    s.result(
        "ConvTranspose",
        s.x,
        s.param("weight"),
        *([s.param("bias")] if op.bias else []),
        kernel_shape=op.kernel(),
        strides=op.strides(),
        pads=[*op.pads(), *op.pads()],
        output_padding=op.extra(),
        dilations=op.spacing(),
        group=op.group_count(s.shapes[0]),
    )


def bias(s: Scope, op: ops.Bias) -> None:
    batch = s.call("batch", "Shape", s.x, start=0, end=1)
    sizes = s.integers("sizes", [op.features] + [1] * op.dims)
    s.result("Expand", s.column("bias", op.dims), s.call("shape", "Concat", batch, sizes, axis=0))


def parameter(s: Scope, op: ops.Parameter) -> None:
    s.result_is(s.param("weight"))
