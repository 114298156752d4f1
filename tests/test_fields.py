"""What people write by hand is refused in growir's words: calls without names, wrong names, names that do not exist."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from growir import graph, ops, passes
from growir.errors import GraphError, GrowirError, ModelError, PassRefused, RunError
from growir.fields import field_names
from growir.growth.target import read_run
from growir.nearest import alternatives, nearest, neighbours, suggestion
from growir.network import Network, load_graph
from growir.ops import OPS
from growir.passes import PASSES, pass_from_data
from tests.samples import mlp

# Without their types, by which a checker would refuse these calls too.
g: Any = graph
o: Any = ops
p: Any = passes

CALLS: dict[str, tuple[Callable[..., Any], str]] = {
    "a pass": (
        lambda: p.Widen("layers.0", 8),
        'widen: its arguments are given by name: Widen(node="layers.0", by=8)',
    ),
    "some by name": (
        lambda: p.Widen("fc1", by=8),
        'widen: its arguments are given by name: Widen(node="fc1", by=8)',
    ),
    "a list": (
        lambda: p.Prune("fc1", (0, 2)),
        'prune: its arguments are given by name: Prune(node="fc1", channels=(0, 2))',
    ),
    "in an order of one's own": (
        lambda: p.Widen(8, "fc1"),
        "widen: its arguments are given by name, and they are node, by, copies, shares, apart, init, seed, values",
    ),
    "one twice": (
        lambda: p.Split("fc1", node="fc1"),
        "split: its arguments are given by name, and they are node, channels, shares, theta, seed, values",
    ),
    "too many": (
        lambda: g.Input("x", ["N", 3], "int64", 4),
        "input: its arguments are given by name, and they are name, shape, dtype",
    ),
    "an input": (
        lambda: g.Input("x", ["N", 3]),
        'input: its arguments are given by name: Input(name="x", shape=["N", 3])',
    ),
    "an operator": (lambda: o.Linear(16), "linear: its arguments are given by name: Linear(out_features=16)"),
    "an operator as torch has it": (
        lambda: o.Linear(3, 16),
        "linear: its arguments are given by name, and they are out_features, bias",
    ),
    "an operator without any": (lambda: o.Relu(1), "relu: its arguments are given by name, and they are none"),
    "a pass lacks one": (lambda: p.Widen(node="fc1"), "widen: it needs by"),
    "a pass has another": (
        lambda: p.Widen(nod="fc1", by=1),
        "widen: it needs node; unknown attribute 'nod'; it takes node, by, copies, shares, apart, init, seed, values. "
        "Did you mean 'node'?",
    ),
    "a value": (lambda: p.Widen(node="fc1", by="2"), 'widen: by is "2": input should be a valid integer'),
    "a number of another kind": (
        lambda: p.Widen(node="fc1", by=Decimal(4)),
        "widen: by is Decimal('4'): input should be a valid integer",
    ),
    "a node": (
        lambda: g.Node(name="fc", op="linear", input=["x"]),
        "2 problems\n  node 'fc': op is \"linear\": an operator with its attributes is needed, "
        "op=growir.ops.Linear(...)\n"
        "  node 'fc': unknown attribute 'input'; it takes name, op, inputs, tied, frozen, source. "
        "Did you mean 'inputs'?",
    ),
    "a node of no operator": (
        lambda: g.Node(name="fc", op="liner"),
        "node 'fc': op is \"liner\": there is no such operator. Did you mean 'linear'?",
    ),
    "an operator's attribute": (
        lambda: o.Linear(out_feature=3),
        "linear: unknown attribute 'out_feature'; it takes out_features, bias. Did you mean 'out_features'?",
    ),
    "an operator's value": (
        lambda: o.Conv2d(out_channels=-1, kernel_size=3),
        "conv2d: out_channels is -1: input should be greater than 0",
    ),
    "another attribute": (
        lambda: mlp()["fc1"].with_op(out_feature=3),
        "linear: unknown attribute 'out_feature'; it takes out_features, bias. Did you mean 'out_features'?",
    ),
    "a graph": (
        lambda: g.Graph(inputs=(g.Input(name="x", shape=("N", 3)),), nodes=(), output=("x",)),
        "2 problems\n  Graph: it needs outputs\n  Graph: unknown attribute 'output'; it takes name, inputs, "
        "nodes, outputs, train_differs, fixed_sizes, history. Did you mean 'outputs'?",
    ),
    "a fixed size": (lambda: g.FixedSize("x", 1), "FixedSize: its arguments are given by name: FixedSize("),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_says_how(name: str) -> None:
    call, says = CALLS[name]
    with pytest.raises(GrowirError) as error:
        call()
    assert str(error.value).startswith(says)


def test_numbers_of_numpy_are_those_of_python() -> None:
    wide = p.Widen(node="fc1", by=np.int64(2), copies=(np.int32(0), np.uint8(1)), shares=[np.float32(0.25)] * 2)
    assert wide == p.Widen(node="fc1", by=2, copies=(0, 1), shares=(0.25, 0.25))
    assert type(wide.by) is type(wide.copies[1]) is int
    assert p.Widen(node="fc1", by=2, seed=np.uint64(2**64 - 1)).seed == 2**64 - 1
    assert o.Linear(out_features=np.int64(3), bias=np.False_) == o.Linear(out_features=3, bias=False)
    with pytest.raises(PassRefused, match=r"by is 0: input should be greater than 0"):
        p.Widen(node="fc1", by=np.int64(0))
    with pytest.raises(PassRefused, match=r"by is 2\.5: input should be a valid integer"):
        p.Widen(node="fc1", by=np.float32(2.5))


@pytest.mark.parametrize("kind", PASSES, ids=lambda kind: kind.name)
def test_every_pass_says_how(kind: Any) -> None:
    with pytest.raises(PassRefused, match=rf"^{kind.name}: its arguments are given by name"):
        kind("a", "b", "c")
    with pytest.raises(PassRefused, match=r"unknown attribute 'nothing'"):
        kind(nothing=1)
    assert field_names(kind)[-2:] == ["seed", "values"]


def test_a_call_and_its_json_say_the_same() -> None:
    with pytest.raises(PassRefused) as by_call:
        p.Widen(nod="fc1", by=1)
    with pytest.raises(PassRefused) as by_json:
        pass_from_data({"pass": "widen", "nod": "fc1", "by": 1})
    assert str(by_call.value) == str(by_json.value)


@pytest.mark.parametrize("kind", OPS, ids=lambda kind: kind.kind())
def test_every_operator_says_how(kind: Any) -> None:
    with pytest.raises(GraphError, match=rf"^{kind.kind()}: its arguments are given by name"):
        kind(1, 2, 3, 4)
    with pytest.raises(ValidationError):  # what reads a document collects the faults of all its nodes
        kind.model_validate({"nothing": 1})


def test_passes_of_a_sequence_are_shown_as_calls() -> None:
    with pytest.raises(PassRefused, match=r"^sequence: its arguments are given by name: Sequence\(passes=\[Widen\("):
        p.Sequence([p.Widen(node="fc1", by=1)])


def test_nearest_names() -> None:
    blocks = ["stem", "block.conv1", "block.conv2", "head"]
    assert nearest("conv1", blocks) == ["block.conv1"]
    assert nearest("block", blocks) == ["block.conv1", "block.conv2"]
    assert nearest("head.weight", blocks) == ["head"]
    assert nearest("HAED", blocks) == ["head"]
    assert nearest("hed", ["head", "heads"]) == ["head"]
    assert nearest("fc9", ["fc1", "fc2", "x"]) == ["fc1", "fc2"]
    tensors = ["stem.0.weight", "stem.0.bias", "fc1.weight"]
    assert nearest("head.weight", tensors) == nearest("classifier.bias", tensors) == []
    assert nearest("fc2.weight", tensors) == nearest("fc1.wieght", tensors) == ["fc1.weight"]
    assert nearest("stem.1.weight", tensors) == ["stem.0.weight"]
    assert nearest("", ["a"]) == nearest("a" * 300, ["a" * 299]) == nearest("q", blocks) == []
    assert suggestion("fc9", ["fc1", "fc2", "fc3", "fc4"]).count("fc") == 3
    assert suggestion("fc9", ["fc1", "fc2", "fc3"]) == " Did you mean 'fc1', 'fc2' or 'fc3'?"
    assert alternatives("q", blocks) == " There are stem, block.conv1, block.conv2, head."
    assert alternatives("q", ["x"]) == " There is x."
    assert alternatives("q", map(str, range(20))) == alternatives("q", []) == ""


LOOKED_UP: dict[str, tuple[Callable[[], Any], str]] = {
    "a node": (lambda: mlp()["fc"], "there is no node 'fc'. Did you mean 'fc1'?"),
    "a space": (
        lambda: p.Widen(node="body", by=1).rewrite(mlp()),
        "there is no node 'body'. There are x, fc1, act1, head.",
    ),
    "a source": (
        lambda: p.AddNode(source="X2", target="head", width=1).rewrite(mlp()),
        "source 'X2' does not exist. Did you mean 'x'?",
    ),
    "a key": (
        lambda: Network.init(mlp()).with_arrays({"fc1.wieght": Network.init(mlp()).arrays["fc1.bias"]}),
        "fc1.wieght: the graph has no such tensor. Did you mean 'fc1.weight'?",
    ),
    "a file": (lambda: load_graph(f"{__file__[:-3]}.p"), "No such file or directory. Did you mean 'test_fields.py'?"),
    "a folder": (
        lambda: Network.load(f"{__file__.rpartition('/')[0]}/pases"),
        "no network here: graph.json and params.safetensors are needed. Did you mean 'passes'?",
    ),
}


@pytest.mark.parametrize("name", LOOKED_UP)
def test_a_name_that_does_not_exist_is_told_its_nearest(name: str) -> None:
    look, says = LOOKED_UP[name]
    with pytest.raises(GrowirError) as error:
        look()
    assert says in str(error.value)


def test_a_missing_node_is_a_key_error_too() -> None:
    with pytest.raises(KeyError):
        mlp()["fc"]


def test_files_that_do_not_exist_are_told_their_neighbours(tmp_path: Path) -> None:
    (tmp_path / "wine.toml").touch()
    assert neighbours(tmp_path / "wien.toml") == ". Did you mean 'wine.toml'?"
    assert (
        neighbours(tmp_path / "wine.toml") == neighbours(tmp_path / "digits") == neighbours(tmp_path / "a" / "b") == ""
    )
    with pytest.raises(RunError, match=r"or digits\. Did you mean 'wine\.toml'\?"):
        read_run(str(tmp_path / "win.toml"))


def test_a_factory_of_a_module_is_told_its_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from growir.backends.torch_export.factory import made_by

    (tmp_path / "nets_here.py").write_text("def make_small(): ...\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"nets_here has no 'make_smal'\. Did you mean 'make_small'\?"):
        made_by("nets_here:make_smal")
