"""ONNX files against torch: every operator, what the file is called by, and how it is written."""

from __future__ import annotations

import errno
import importlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

import growir
from growir import ops
from growir.backends.agreement import check_agreement
from growir.backends.onnx_ir import build_model, read_document, save_model, table
from growir.backends.onnx_ir import model as onnx_model
from growir.backends.torch_fx import lower
from growir.document import dumps
from growir.errors import ExportError, GraphError
from growir.graph import Graph, History, Input, Node
from growir.network import Network
from growir.ops import OPS, DType, Example, Op, Shape
from growir.ops.base import batch_of
from growir.params import param_table
from growir.verify import load, verify

Array = NDArray[Any]
Arrays = dict[str, Array]

# ONNX Runtime 1.31 runs all of 17 to 26. 18 gave ReduceMean its axes as an input, 20 brought Gelu, 21 needs IR 10,
# from 23 on a newer IR than 10.
OPSETS = (17, 18, 20, 21, 26)
BATCHES = (1, 3, 7)

# What the operators' own examples leave out.
MORE = (
    Example(ops.MaxPool2d(kernel_size=2, stride=3, dilation=3, ceil_mode=True), (batch_of(2, 9, 8),)),
    Example(ops.MaxPool2d(kernel_size=2, stride=5, padding=1, dilation=4, ceil_mode=True), (batch_of(2, 11, 8),)),
    Example(ops.AdaptiveAvgPool2d(output_size=(5, 9)), (batch_of(2, 3, 4),)),
    Example(ops.Linear(out_features=2), (batch_of(2, 3, 4),)),
    Example(ops.LayerNorm(), (batch_of(2, 3, 4),)),
    Example(ops.Softmax(dim=2), (batch_of(2, 3, 4),)),
    Example(ops.Attention(is_causal=True), (batch_of(2, 2, 3, 4), batch_of(2, 2, 5, 4), batch_of(2, 2, 5, 3))),
    Example(ops.Attention(mask="seen"), (*(batch_of(2, 2, 3, 4),) * 3, Shape((3, 3)))),
    Example(ops.MatMul(), (Shape((3, 2)), batch_of(1, 2, 4))),
    Example(ops.GroupNorm(num_groups=6), (batch_of(6, 2, 2),)),
    Example(ops.InstanceNorm(affine=True), (batch_of(2, 2, 3, 2),)),
    Example(ops.RmsNorm(dims=3), (batch_of(2, 3, 4),)),
    Example(ops.Pad(padding=(1, 2, 0, 1), mode="circular"), (batch_of(2, 3, 4),)),
    Example(ops.Pad(padding=(0, 0), mode="circular"), (batch_of(2, 3),)),
    Example(ops.Pad(padding=(1, 0, 0, 2, 1, 1), mode="reflect"), (batch_of(2, 3, 4, 2),)),
    Example(ops.Conv3d(out_channels=4, kernel_size=(1, 2, 3), padding="same", groups=2), (batch_of(2, 2, 3, 4),)),
    Example(ops.ConvTranspose3d(out_channels=2, kernel_size=2, stride=(1, 2, 3)), (batch_of(2, 2, 1, 2),)),
    Example(ops.Var(dim=(1, 2), correction=2), (batch_of(3, 2),)),
    Example(ops.Pow(exponent=3.0), (batch_of(4),)),
    Example(ops.AdaptiveAvgPool3d(output_size=(2, 5, 3)), (batch_of(2, 3, 4, 4),)),
    Example(ops.AdaptiveMaxPool3d(output_size=(2, 5, 3)), (batch_of(2, 3, 4, 4),)),
    Example(ops.AdaptiveMaxPool1d(output_size=3), (batch_of(2, 6),)),
    Example(ops.Upsample(scale_factor=(0.7, 1.3)), (batch_of(2, 7, 5),)),
    Example(ops.Upsample(size=1, mode="bilinear"), (batch_of(2, 6, 7),)),
    Example(ops.Upsample(size=(1, 4), mode="bicubic", align_corners=True), (batch_of(2, 6, 7),)),
    Example(ops.Upsample(size=(3, 5, 4), mode="trilinear", align_corners=True), (batch_of(2, 2, 4, 3),)),
    Example(ops.Upsample(size=5, mode="linear", align_corners=True), (batch_of(2, 4),)),
    Example(ops.Upsample(size=(3, 4, 5)), (batch_of(2, 2, 3, 3),)),
    Example(ops.LocalResponseNorm(size=5, k=0.5), (batch_of(3, 4, 2),)),
    Example(ops.LocalResponseNorm(size=4), (batch_of(3, 4, 2),)),
    Example(ops.BatchNorm(track_running_stats=False, affine=False), (batch_of(4, 4),)),
    Example(ops.BatchNorm(track_running_stats=False), (batch_of(4),)),
    Example(ops.LayerNorm(dims=3), (batch_of(3, 4, 5),)),
    Example(ops.LeakyRelu(negative_slope=0.3), (batch_of(4),)),
    Example(ops.Elu(alpha=0.5), (batch_of(4),)),
    Example(ops.Softplus(beta=3.0), (batch_of(40),)),
    Example(ops.Softplus(beta=0.5, threshold=-1.0), (batch_of(40),)),
    Example(ops.Prelu(num_parameters=5), (batch_of(5),)),
    Example(ops.Prelu(num_parameters=5), (batch_of(5, 3),)),
    Example(ops.Linear(), (batch_of(3, 5), Shape((2, 5)))),
    Example(ops.Linear(out_features=40), (batch_of(3, 50),)),  # its weight is kept outside while the model is checked
    Example(ops.Concat(), (batch_of(5),)),
    Example(ops.Select(indices=tuple(range(199, -1, -1))), (batch_of(200),)),
    Example(ops.Standardise(), (batch_of(300),)),
    Example(ops.Mul(), (Shape((5,)), batch_of(3, 5))),
)


def one_op(example: Example, dtype: DType | None = None) -> Graph:
    """The operator between inputs; an operand without batch is a `parameter` node."""
    inputs, nodes, operands = [], [], []
    for k, shape in enumerate(example.inputs):
        name = f"x{k}" if shape.batched else f"p{k}"
        operands.append(name)
        if shape.batched and example.positive:
            inputs.append(Input(name=f"raw{k}", shape=shape.dims))
            nodes.append(Node(name=name, op=ops.Softplus(), inputs=(f"raw{k}",)))
        elif shape.batched:
            inputs.append(Input(name=name, shape=shape.dims, dtype=dtype or shape.dtype))
        else:
            nodes.append(Node(name=name, op=ops.Parameter(shape=shape.sizes)))
    nodes.append(Node(name="y", op=example.op, inputs=tuple(operands)))
    output = "y"
    if not inputs:  # an output needs a batch
        inputs.append(Input(name="x0", shape=("N", 1, 1)))
        nodes.append(Node(name="sum", op=ops.Add(), inputs=("x0", "y")))
        output = "sum"
    return Graph(inputs=tuple(inputs), nodes=tuple(nodes), outputs=(output,))


def arrays_of(graph: Graph, seed: int = 0, dtype: str = "float32") -> Arrays:
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for key, param in param_table(graph).items():
        array = rng.standard_normal(param.shape)
        if key.endswith(("running_var", "std")):
            array = np.abs(array) + 0.3
        arrays[key] = np.asarray(array, dtype="int64" if param.dtype == "int64" else dtype)
    return arrays


def feeds_of(graph: Graph, batch: int, seed: int = 1) -> Arrays:
    rng = np.random.default_rng(seed)
    feeds: Arrays = {}
    for entry in graph.inputs:
        numbers = 4 * rng.standard_normal((batch, *Shape(entry.shape).sizes))
        feeds[entry.name] = np.abs(numbers % 5).astype("int64") if entry.dtype == "int64" else numbers.astype("float32")
    return feeds


def session(model: onnx.ModelProto | Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def torch_outputs(graph: Graph, arrays: Arrays) -> Callable[[Arrays], list[Array]]:
    module = lower(graph, arrays).eval()

    def run(feeds: Arrays) -> list[Array]:
        with torch.no_grad():
            found = module(*(torch.from_numpy(feeds[i.name]) for i in graph.inputs))
        return [out.detach().numpy() for out in (found if isinstance(found, tuple) else (found,))]

    return run


def assert_close(got: Array, want: Array, where: str = "") -> None:
    assert got.dtype == want.dtype
    # Within float32: sums run in another order.
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * max(1.0, np.abs(want).max()), err_msg=where)


def assert_agree(
    graph: Graph, arrays: Arrays, opsets: Sequence[int] = OPSETS, batches: Sequence[int] = BATCHES
) -> None:
    expect = torch_outputs(graph, arrays)
    for opset in opsets:
        runtime = session(build_model(graph, arrays, opset=opset))
        for batch in batches:
            feeds = feeds_of(graph, batch)
            for want, got in zip(expect(feeds), runtime.run(None, feeds), strict=True):
                assert_close(got, want, f"opset {opset}, batch {batch}")


def labelled(examples: Sequence[Example]) -> list[Any]:
    counts: dict[str, Iterator[int]] = {}
    return [
        pytest.param(e, id=f"{e.op.kind()}-{next(counts.setdefault(e.op.kind(), itertools.count()))}") for e in examples
    ]


# -- every operator ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", labelled([*(e for op in OPS for e in op.examples()), *MORE]))
def test_agrees_with_torch(example: Example) -> None:
    graph = one_op(example)
    verify(graph)
    # torch refuses to normalise a single number by its own statistics.
    lone = isinstance(example.op, ops.BatchNorm) and not example.op.track_running_stats
    assert_agree(graph, arrays_of(graph), batches=BATCHES[1:] if lone else BATCHES)


@pytest.mark.parametrize("example", labelled([e for op in OPS if op.integers for e in op.examples()]))
def test_integers_stay_integers(example: Example) -> None:
    graph = one_op(example, "int64")
    assert_agree(graph, arrays_of(graph), opsets=(18,))


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (ops.AvgPool1d, (7,)),
        (ops.AvgPool2d, (4, 7)),
        (ops.AvgPool3d, (4, 4, 5)),
        (ops.MaxPool1d, (7,)),
        (ops.MaxPool2d, (4, 7)),
        (ops.MaxPool3d, (4, 4, 5)),
    ],
)
def test_windows_over_the_edge_agree_with_torch(kind: type[Op], sizes: tuple[int, ...]) -> None:
    averages = kind in (ops.AvgPool1d, ops.AvgPool2d, ops.AvgPool3d)
    variants: list[dict[str, bool]] = [{}, {"count_include_pad": False}] if averages else [{}]
    nodes: list[Node] = []
    for kernel, stride, pad, ceil in itertools.product((1, 2, 3, 4), (1, 2, 3, 4), (0, 1, 2), (True, False)):
        if 2 * pad <= kernel:
            for variant in variants:
                window = {"kernel_size": kernel, "stride": stride, "padding": pad, "ceil_mode": ceil, **variant}
                op = kind.model_validate(window)
                nodes.append(Node(name=f"pool_{len(nodes)}", op=op, inputs=("x",)))
    graph = Graph(
        inputs=(Input(name="x", shape=("N", 1, *sizes)),),
        nodes=tuple(nodes),
        outputs=tuple(node.name for node in nodes),
    )
    assert_agree(graph, {}, opsets=(17, 18, 26), batches=(2,))


def test_constant_features_are_standardised_to_zero() -> None:
    graph = one_op(Example(ops.Standardise(eps=1e-3), (batch_of(4),)))
    arrays = {"y.mean": np.array([1, 2, 3, 4], "f4"), "y.std": np.array([0, 1, 1e-3, 1.1e-3], "f4")}
    (got,) = session(build_model(graph, arrays)).run(None, {"x0": np.full((1, 4), 5, "f4")})
    np.testing.assert_allclose(got, [[0, 3, 0, 1 / 1.1e-3]], rtol=1e-5)
    assert_agree(graph, arrays)
    assert_agree(graph, {**arrays, "y.std": np.zeros(4, "f4")})


@pytest.mark.parametrize("opset", [17, 20])
def test_gelu_is_native_from_opset_20_on(opset: int) -> None:
    model = build_model(one_op(Example(ops.Gelu(), (batch_of(4),))), {}, opset=opset)
    assert ("Gelu" in {node.op_type for node in model.graph.node}) == (opset >= 20)


def test_table_is_compared_with_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(ops.OP_BY_KIND, "swirl", ops.Relu)
        with pytest.raises(ImportError, match=r"ONNX's table and the operators differ in \['swirl'\]"):
            importlib.reload(table)
    with monkeypatch.context() as patch:
        patch.delitem(ops.OP_BY_KIND, "relu")
        with pytest.raises(ImportError, match=r"differ in \['relu'\]"):
            importlib.reload(table)
    importlib.reload(table)


def test_torch_is_not_imported() -> None:
    code = "import sys, growir.backends.onnx_ir; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- what the file says -----------------------------------------------------------------------------------------------


def small_net() -> Graph:
    """conv - flatten - a linear on matrices and, tied to it, one on rows - sum."""
    return load(
        {
            "schema": "growir/1",
            "name": "small",
            "inputs": [{"name": "x", "shape": ["N", 2, 4, 4]}],
            "nodes": [
                {
                    "name": "stem.conv",
                    "op": "conv2d",
                    "inputs": ["x"],
                    "out_channels": 4,
                    "kernel_size": 3,
                    "padding": 1,
                },
                {"name": "rows", "op": "reshape", "inputs": ["stem.conv"], "shape": [2, -1]},
                {"name": "flat", "op": "flatten", "inputs": ["stem.conv"]},
                {"name": "wide", "op": "linear", "inputs": ["flat"], "out_features": 32},
                {"name": "drop", "op": "dropout", "inputs": ["wide"]},
                {"name": "fc", "op": "linear", "inputs": ["drop"], "out_features": 16},
                {
                    "name": "fc_rows",
                    "op": "linear",
                    "inputs": ["rows"],
                    "out_features": 16,
                    "tied": {"weight": "fc.weight", "bias": "fc.bias"},
                },
                {"name": "mix", "op": "reshape", "inputs": ["fc_rows"], "shape": [32]},
                {"name": "head", "op": "linear", "inputs": ["mix"], "out_features": 16, "bias": False},
                {"name": "total", "op": "add", "inputs": ["fc", "head"]},
            ],
            "outputs": ["total"],
        }
    )


def dims(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_names_are_the_documents() -> None:
    graph = small_net()
    arrays = arrays_of(graph)
    model = build_model(graph, arrays)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    own = {key: value for key, value in tensors.items() if "/" not in key}
    assert own.keys() == arrays.keys()  # a tied tensor once
    assert all(np.array_equal(own[key], arrays[key]) for key in arrays)
    values = {name for node in model.graph.node for name in node.output if "/" not in name}
    assert values == {node.name for node in graph.nodes}
    assert [i.name for i in model.graph.input] == ["x"]
    assert_agree(graph, arrays)


def test_batch_is_dynamic_and_shapes_are_known() -> None:
    model = build_model(small_net(), arrays_of(small_net()))
    assert dims(model.graph.input[0]) == ["N", 2, 4, 4]
    assert dims(model.graph.output[0]) == ["N", 16]
    known = {value.name: dims(value) for value in model.graph.value_info}
    assert known["rows"] == ["N", 2, 32]
    computed = {name for node in model.graph.node for name in node.output} - {"total"}
    assert computed <= known.keys()
    assert len(known) == len(model.graph.value_info)


def test_metadata_holds_the_document() -> None:
    graph = small_net()
    grown = graph.replace(history=History(base=graph))
    model = build_model(grown, arrays_of(graph))
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert found == {
        "growir.document": dumps(grown),
        "growir.hash": graph.hash,
        "growir.version": growir.__version__,
    }
    assert (model.producer_name, model.producer_version) == ("growir", growir.__version__)
    assert model.graph.name == "small"


@pytest.mark.parametrize(("opset", "least"), [(17, 10), (18, 10), (21, 10), (23, 11), (26, 13)])
def test_versions(opset: int, least: int) -> None:
    model = build_model(one_op(Example(ops.Relu(), (batch_of(4),))), {}, opset=opset)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert model.ir_version == least


@pytest.mark.parametrize("opset", [16, 27, 0])
def test_other_opsets_are_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"^opset {opset} is not supported; choose one from 17 to 26$"):
        save_model(small_net(), arrays_of(small_net()), tmp_path / "net.onnx", opset=opset)
    assert not list(tmp_path.iterdir())


def test_an_onnx_too_old_for_the_opset_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 22)
    with pytest.raises(ExportError, match=r"knows opsets up to 22, not 23; upgrade it, or choose one from 17 to 22"):
        build_model(small_net(), arrays_of(small_net()), opset=23)


def test_other_precisions_become_float32_with_a_notice(tmp_path: Path) -> None:
    graph = small_net()
    arrays = arrays_of(graph, dtype="float64")
    notices = save_model(graph, arrays, tmp_path / "net.onnx")
    assert notices == ["the network's weights are float64; the ONNX file holds them as float32"]
    assert_agree_file(tmp_path / "net.onnx", graph, {key: a.astype("f4") for key, a in arrays.items()})
    arrays["wide.bias"][3] = 1e300
    with pytest.raises(ExportError, match=r"^wide\.bias: a number is too large for float32"):
        build_model(graph, arrays)


def test_strided_arrays_are_written_in_order() -> None:
    graph = small_net()
    arrays = arrays_of(graph)
    strided = {key: np.asfortranarray(array) for key, array in arrays.items()}
    assert build_model(graph, strided) == build_model(graph, arrays)


# -- outputs ----------------------------------------------------------------------------------------------------------


def outputs_of(graph: Graph) -> tuple[list[str], Mapping[str, Array]]:
    """The ONNX output names, and the values after checking them against torch."""
    arrays = arrays_of(graph)
    assert_agree(graph, arrays, opsets=(18,))
    runtime = session(build_model(graph, arrays))
    names = [output.name for output in runtime.get_outputs()]
    return names, dict(zip(names, runtime.run(None, feeds_of(graph, 3)), strict=True))


def wired(nodes: Mapping[str, tuple[Op, Sequence[str]]], outputs: Sequence[str], base: Graph | None = None) -> Graph:
    return Graph(
        inputs=(Input(name="x", shape=("N", 4)),),
        nodes=tuple(Node(name=name, op=op, inputs=tuple(inputs)) for name, (op, inputs) in nodes.items()),
        outputs=tuple(outputs),
        history=None if base is None else History(base=base),
    )


def test_outputs_keep_their_first_names() -> None:
    first = wired({"hid": (ops.Relu(), ["x"]), "head": (ops.Linear(out_features=3), ["hid"])}, ["head", "hid"])
    grown = {
        "hid": (ops.Relu(), ["x"]),
        "head": (ops.Linear(out_features=3), ["hid"]),
        "edge_1": (ops.Linear(out_features=3, bias=False), ["x"]),
        "add_1": (ops.Add(), ["head", "edge_1"]),
    }
    graph = wired(grown, ["add_1", "hid"], first)
    names, values = outputs_of(graph)
    assert names == ["head", "hid"]
    assert values["head"].shape == (3, 3)
    nodes = {node.name: list(node.output) for node in build_model(graph, arrays_of(graph)).graph.node}
    assert nodes["head"] == ["head/inner"]
    assert nodes["add_1"] == ["head"]


def test_outputs_that_swapped_keep_their_first_names() -> None:
    nodes = {"a": (ops.Relu(), ["x"]), "b": (ops.Tanh(), ["x"])}
    names, values = outputs_of(wired(nodes, ["b", "a"], wired(nodes, ["a", "b"])))
    assert names == ["a", "b"]
    assert values["a"].min() < 0  # tanh


def test_an_output_twice_is_two_outputs() -> None:
    names, values = outputs_of(wired({"y": (ops.Relu(), ["x"])}, ["y", "y", "y"]))
    assert names == ["y", "y/output_1", "y/output_2"]
    assert np.array_equal(values["y"], values["y/output_2"])


def test_an_input_as_output_is_copied() -> None:
    names, values = outputs_of(wired({"y": (ops.Relu(), ["x"])}, ["x", "y"]))
    assert names == ["x/output_0", "y"]
    assert values["x/output_0"].min() < 0
    # The name stays when a node takes the input's place.
    grown = wired({"y": (ops.Relu(), ["x"]), "z": (ops.Tanh(), ["x"])}, ["z", "y"], wired({}, ["x", "x"]))
    assert outputs_of(grown)[0] == ["x/output_0", "x/output_1"]


def test_a_history_with_other_outputs_names_none() -> None:
    nodes = {"a": (ops.Relu(), ["x"]), "b": (ops.Tanh(), ["x"])}
    assert outputs_of(wired(nodes, ["b"], wired(nodes, ["a", "b"])))[0] == ["b"]


def test_node_names_are_unique() -> None:
    nodes = {"y": (ops.Relu(), ["x"]), "z": (ops.Relu(), ["y"])}
    graph = wired(nodes, ["z", "z", "x"], wired({**nodes, "a": (ops.Tanh(), ["x"])}, ["a", "y", "z"]))
    model = build_model(graph, {})
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert outputs_of(graph)[0] == ["a", "y", "z"]


def test_two_outputs_that_became_one_value() -> None:
    first = wired({"a": (ops.Relu(), ["x"]), "b": (ops.Identity(), ["a"])}, ["a", "b"])
    names, values = outputs_of(wired({"a": (ops.Relu(), ["x"])}, ["a", "a"], first))
    assert names == ["a", "b"]
    assert np.array_equal(values["a"], values["b"])


# -- files ------------------------------------------------------------------------------------------------------------


def assert_agree_file(path: Path, graph: Graph, arrays: Arrays) -> None:
    runtime, expect = session(path), torch_outputs(graph, arrays)
    for batch in BATCHES:
        feeds = feeds_of(graph, batch)
        for want, got in zip(expect(feeds), runtime.run(None, feeds), strict=True):
            assert_close(got, want)


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def test_file_is_the_model(tmp_path: Path) -> None:
    graph, path = small_net(), tmp_path / "net.onnx"
    arrays = arrays_of(graph)
    assert save_model(graph, arrays, str(path)) == []
    assert list(contents(tmp_path)) == ["net.onnx"]
    assert onnx.load(path) == build_model(graph, arrays)
    assert_agree_file(path, graph, arrays)


def test_files_are_reproducible(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_model(small_net(), arrays_of(small_net()), tmp_path / name / "net.onnx", threshold=0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_large_tensors_go_to_a_side_file(tmp_path: Path) -> None:
    graph, path = small_net(), tmp_path / "net.onnx"
    arrays = arrays_of(graph)
    save_model(graph, arrays, path, threshold=4000)
    assert set(contents(tmp_path)) == {"net.onnx", "net.onnx.data"}
    shallow = onnx.load(path, load_external_data=False)
    outside = {t.name for t in shallow.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    assert outside == {"wide.weight", "fc.weight", "head.weight"}
    onnx.checker.check_model(str(path), full_check=True)
    loaded = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    assert all(np.array_equal(loaded[key], array) for key, array in arrays.items())
    assert_agree_file(path, graph, arrays)
    (tmp_path / "net.onnx.data").unlink()
    assert load(read_document(path)) == graph


def test_a_model_over_the_limit_is_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "PROTOBUF_LIMIT", 4000)
    with pytest.raises(ExportError, match=r"one ONNX message holds at most 4000; save it as a file"):
        build_model(small_net(), arrays_of(small_net()))


def test_threshold_counts_every_byte(tmp_path: Path) -> None:
    graph, path = small_net(), tmp_path / "net.onnx"
    save_model(graph, arrays_of(graph), path)
    size = path.stat().st_size
    save_model(graph, arrays_of(graph), path, threshold=size - 1)
    assert set(contents(tmp_path)) == {"net.onnx", "net.onnx.data"}


def test_document_comes_back(tmp_path: Path) -> None:
    graph = small_net().replace(history=History(base=small_net()))
    save_model(graph, arrays_of(graph), tmp_path / "net.onnx")
    assert read_document(tmp_path / "net.onnx") == dumps(graph)


def test_other_files_hold_no_document(tmp_path: Path) -> None:
    foreign, text, empty = tmp_path / "foreign.onnx", tmp_path / "text.onnx", tmp_path / "empty.onnx"
    model = build_model(small_net(), arrays_of(small_net()))
    del model.metadata_props[:]
    onnx.save(model, foreign)
    text.write_text("not a model\n")
    empty.touch()
    for path in (foreign, empty):
        with pytest.raises(GraphError, match=f"^{path}: this ONNX file holds no graph document, so growir did not"):
            read_document(path)
    with pytest.raises(GraphError, match=f"^{text}: this is no ONNX file$"):
        read_document(text)
    with pytest.raises(GraphError, match=r"none\.onnx: the file cannot be read: No such file or directory$"):
        read_document(tmp_path / "none.onnx")


def full_disk(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("threshold", [0, 2**31 - 1])
def test_full_disk_leaves_what_was_there(threshold: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, path = small_net(), tmp_path / "net.onnx"
    save_model(graph, arrays_of(graph), path, threshold=threshold)
    before = contents(tmp_path)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ExportError, match=r"net\.onnx: the file cannot be written: No space left on device$"):
        save_model(graph, arrays_of(graph, seed=5), path, threshold=threshold)
    assert contents(tmp_path) == before


# With old files four moves are made, without them two.
@pytest.mark.parametrize(("old", "stop"), [*((True, k) for k in range(4)), (False, 0), (False, 1)])
def test_two_files_are_replaced_together(old: bool, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, path = small_net(), tmp_path / "net.onnx"
    if old:
        save_model(graph, arrays_of(graph), path, threshold=0)
    before = contents(tmp_path)
    calls = itertools.count()
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        if next(calls) == stop:
            raise OSError(errno.EIO, "broken")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(ExportError, match="broken"):
        save_model(graph, arrays_of(graph, seed=5), path, threshold=0)
    assert contents(tmp_path) == before


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    graph = small_net()
    (tmp_path / "file").touch()
    (tmp_path / "net.onnx").mkdir()
    cases = {
        tmp_path / "none" / "net.onnx": f"the folder {tmp_path / 'none'} does not exist",
        tmp_path / "file" / "net.onnx": f"{tmp_path / 'file'} is a file, so nothing can lie in it; choose another name",
        tmp_path / "net.onnx": "is a folder; give the name of a file",
    }
    for path, reason in cases.items():
        with pytest.raises(ExportError, match=f"^{path}: {reason}$"):
            save_model(graph, arrays_of(graph), path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "net.onnx"}
    assert not list((tmp_path / "net.onnx").iterdir())


@pytest.mark.parametrize("content", ["x = 1\n", "", "an ONNX model of another tool"])
def test_only_files_that_growir_wrote_are_replaced(content: str, tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    path.write_text(content)
    if content.startswith("an ONNX"):
        model = build_model(small_net(), arrays_of(small_net()))
        del model.metadata_props[:]
        onnx.save(model, path)
    before = path.read_bytes()
    with pytest.raises(ExportError, match=f"^{path}: is there already and was not written by growir; choose another"):
        Network(small_net(), arrays_of(small_net())).to_onnx(path)
    assert path.read_bytes() == before
    path.unlink()
    for seed in (0, 1):
        network = Network(small_net(), arrays_of(small_net(), seed=seed))
        network.to_onnx(path)
        assert onnx.load(path) == build_model(network.graph, network.arrays)


def test_only_its_own_side_file_is_replaced(tmp_path: Path) -> None:
    graph, path, side = small_net(), tmp_path / "net.onnx", tmp_path / "net.onnx.data"
    side.write_text("mine")
    refused = pytest.raises(ExportError, match=f"^{side}: is there already and was not written by growir; choose")
    with refused:
        save_model(graph, arrays_of(graph), path, threshold=0)
    save_model(graph, arrays_of(graph), path)
    with refused:  # the file that is there is growir's, but keeps nothing there
        save_model(graph, arrays_of(graph), path, threshold=0)
    assert side.read_text() == "mine"
    side.unlink()
    for seed in (0, 1):
        save_model(graph, arrays_of(graph, seed=seed), path, threshold=0)
    assert_agree_file(path, graph, arrays_of(graph, seed=1))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ExportError, match="cannot be written: Permission denied"):
        save_model(small_net(), arrays_of(small_net()), tmp_path / "net.onnx")


@pytest.mark.parametrize("name", ["", "a\u00e4 b"])
def test_every_graph_name_can_be_written(name: str) -> None:
    graph = small_net().replace(name=name)
    model = build_model(graph, arrays_of(graph))
    assert model.graph.name == (name or "graph")


def test_float16_is_standardised_as_torch_does_it(tmp_path: Path) -> None:
    graph = one_op(Example(ops.Standardise(), (batch_of(4),)))
    arrays = {"y.mean": np.array([1, 2, 3, 4], "f2"), "y.std": np.array([3e-6, 0.1, 0.7, 1e-5], "f2")}
    path = tmp_path / "net.onnx"
    save_model(graph, arrays, path)
    assert check_agreement(graph, arrays, path) < 1e-6
