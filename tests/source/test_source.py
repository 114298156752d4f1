"""Exported source computes what `to_torch` does, to the bit, and needs nothing but torch."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import growir
from growir.backends.torch_fx.probe import random_batch
from growir.backends.torch_source import is_ours, module_source, save_source
from growir.backends.torch_source.borrowed import Borrowed
from growir.backends.torch_source.layout import literal, statement
from growir.backends.torch_source.targets import applied
from growir.errors import ExportError
from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import OPS, LeakyRelu, Linear, Op, Relu, Select
from growir.testing import graphs, random_network
from growir.verify import load, verify
from tests.backends.test_torch import alone
from tests.cli.command import GOLDEN
from tests.samples import mlp, residual_convnet

CASES = [(op, k) for op in OPS for k in range(len(op.examples()))]


def loaded(source: str) -> nn.Module:
    """The class of a source file, built."""
    spec = importlib.util.spec_from_loader("exported", loader=None)
    assert spec is not None
    names = importlib.util.module_from_spec(spec)
    exec(compile(source, "net.py", "exec"), vars(names))
    module: nn.Module = names.Net()
    return module


def both(network: Network) -> tuple[nn.Module, nn.Module, str]:
    """The lowered module and the exported one with the same weights, and the source."""
    source = module_source(network.graph, network.arrays)
    lowered, exported = network.to_torch(), loaded(source)
    state = lowered.state_dict()
    assert list(state) == list(exported.state_dict()) or set(state) == set(exported.state_dict())
    exported.load_state_dict(state)
    return lowered, exported, source


def run(module: nn.Module, batch: list[torch.Tensor], train: bool) -> tuple[list[torch.Tensor], Mapping[str, Any]]:
    """Outputs and gradients, with the same draws of dropout each time."""
    module.train(train)
    torch.manual_seed(5)
    found = module(*batch)
    values = list(found) if isinstance(found, tuple) else [found]
    learned = [value for value in values if value.requires_grad]
    if learned:
        torch.autograd.backward([value.sum() for value in learned])
    return values, {key: param.grad for key, param in module.named_parameters(remove_duplicate=False)}


def check(network: Network, rows: int = 4) -> str:
    lowered, exported, source = both(network)
    dtype = torch.from_numpy(np.zeros(1, network.dtype)).dtype
    batch = [x.to(dtype) if x.is_floating_point() else x for x in random_batch(network.graph, rows)]
    for train in (False, True):
        (wanted, grads), (found, new) = (run(module, batch, train) for module in (lowered, exported))
        for name, a, b in zip(network.graph.outputs, wanted, found, strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)), f"{name}, {train=}\n{source}"
        assert grads.keys() == new.keys()
        for key, grad in grads.items():
            other = new[key]
            assert (grad is None) == (other is None), key
            assert grad is None or torch.equal(torch.nan_to_num(grad), torch.nan_to_num(other)), key
    for key, value in lowered.state_dict().items():  # buffers have moved alike
        assert torch.equal(torch.nan_to_num(value), torch.nan_to_num(exported.state_dict()[key])), key
    return source


@given(graphs(), st.sampled_from([np.float64, np.float32]))
def test_the_same_as_to_torch(graph: Graph, dtype: Any) -> None:
    drawn = random_network(graph, 0)
    check(Network(graph, {key: a.astype(dtype) if a.dtype.kind == "f" else a for key, a in drawn.arrays.items()}))


@pytest.mark.parametrize(("kind", "k"), CASES, ids=lambda case: case if isinstance(case, int) else case.kind())
def test_every_operator(kind: type[Op], k: int) -> None:
    check(random_network(alone(kind.examples()[k]), 1))


def test_tied_several_outputs_and_frozen() -> None:
    graph = load(
        {
            "schema": "growir/1",
            "inputs": [{"name": "x", "shape": ["N", 4]}],
            "nodes": [
                {"name": "body.0", "op": "linear", "inputs": ["x"], "out_features": 4},
                {
                    "name": "body.2",
                    "op": "linear",
                    "inputs": ["body.0"],
                    "out_features": 4,
                    "tied": {"weight": "body.0.weight"},
                },
                {"name": "norm", "op": "batch_norm", "inputs": ["body.2"], "frozen": ["weight"]},
                {"name": "pos", "op": "parameter", "shape": [1, 4]},
                {"name": "sum", "op": "add", "inputs": ["norm", "pos", "x"]},
            ],
            "outputs": ["sum", "body.0"],
        }
    )
    network = Network.init(graph)
    source = check(network)
    exported = both(network)[1]
    assert exported.get_parameter("body.0.weight") is exported.get_parameter("body.2.weight")
    trains = {key: p.requires_grad for key, p in exported.named_parameters()}
    assert [key for key, trained in trains.items() if not trained] == ["norm.weight"]
    assert 'self.body["2"].weight = self.body["0"].weight' in source
    assert "return sum_, body_0" in source or "return sum, body_0" in source


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_dtypes(dtype: Any) -> None:
    exported = loaded(module_source(mlp(), Network.init(mlp(), dtype=dtype).arrays))
    wanted = {np.float16: torch.float16, np.float64: torch.float64}[dtype]
    assert {value.dtype for value in exported.state_dict().values()} == {wanted}


def test_a_reused_norm_stays_one() -> None:
    """Its buffers too, through the casts that make new ones: they move in training."""
    ties = {key: f"b.norm.{key}" for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    graph = load(
        {
            "schema": "growir/1",
            "inputs": [{"name": "x", "shape": ["N", 3]}],
            "nodes": [
                {"name": "a.first", "op": "linear", "inputs": ["x"], "out_features": 3},
                {"name": "b.norm", "op": "batch_norm", "inputs": ["a.first"]},
                {"name": "a.norm", "op": "batch_norm", "inputs": ["b.norm"], "tied": ties},
                {"name": "c", "op": "batch_norm", "eps": 0.1, "inputs": ["a.norm"], "tied": ties},
            ],
            "outputs": ["c"],
        }
    )
    source = check(Network.init(graph, dtype=np.float64))
    assert "self.a.norm = self.b.norm" in source  # one module
    assert "self.c = nn.BatchNorm1d(3, eps=0.1)" in source
    assert "self.c.running_mean = self.b.norm.running_mean" in source


HOSTILE = ("F", "nn", "Net", "Bias", "x_y", "__private", "float_", "len", "_", "print", "int", "Tensor")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_python_or_the_file_use(name: str) -> None:
    for names in ((name, f"{name}.{name}", f"{name}.0"), ("x", name, f"a.{name}"), ("x", f"a.0.{name}", f"a.{name}.1")):
        x, first, second = names
        if x != "x":
            first = f"m.{name}"
        nodes = (
            Node(name=first, op=Linear(out_features=3), inputs=(x,)),
            Node(name="b.0", op=Relu(), inputs=(first,)),
            Node(name="x.y" if x != "x" else "x_y_", op=Linear(out_features=3), inputs=("b.0",)),
            Node(name=second if second.startswith("a.") else "a.1", op=Linear(out_features=2), inputs=("b.0",)),
        )
        graph = Graph(inputs=(Input(name=x, shape=("N", 3)),), nodes=nodes, outputs=(nodes[-1].name, nodes[2].name))
        check(Network.init(verify(graph)))


@pytest.mark.parametrize("title", ['"""\nimport os', "\\", '"', "a\u202eb", "é{x}", "'''", '\\"""', "x" * 200])
def test_a_graphs_name_is_never_code(title: str) -> None:
    graph = mlp().replace(name=title.replace("\n", ";"))
    source = check(Network.init(graph))
    assert source.isascii()
    docstring = source.split('"""')
    assert len(docstring) == 3


def test_golden(golden: Callable[[Path, str], None]) -> None:
    source = check(Network.init(residual_convnet()))
    mark, _, rest = source.partition("\n")
    assert mark == f"# Written by growir {growir.__version__} from the graph {residual_convnet().hash}."
    golden(GOLDEN / "source.txt", rest)


def test_the_source_is_formatted(tmp_path: Path) -> None:
    ruff = shutil.which("ruff") or shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("ruff is not installed")
    path = tmp_path / "net.py"
    layers = [f"dense.layer{k}.linear" for k in range(12)]
    graph = load(
        {
            "schema": "growir/1",
            "inputs": [{"name": "x", "shape": ["N", 3]}],
            "nodes": [
                *({"name": name, "op": "linear", "inputs": ["x"], "out_features": 3} for name in layers),
                {"name": "all", "op": "concat", "inputs": ["x", *layers]},
                {"name": "head", "op": "linear", "inputs": ["all"], "out_features": 2},
                {"name": "offset", "op": "bias", "inputs": ["head"], "features": 2},
                {"name": "sum", "op": "add", "inputs": ["head", "offset", "head"]},
            ],
            "outputs": ["sum"],
        }
    )
    save_source(graph, Network.init(graph).arrays, path)
    for command in (("format", "--diff"), ("check",)):
        line = [ruff, *command, "--isolated", "--line-length=120", path]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("growir", "numpy_", "onnx"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import torch
from net import Net
from safetensors.torch import load_file
net = Net()
net.load_state_dict(load_file("net.safetensors"))
net.eval()
assert not any(name.split(".")[0] == "growir" for name in sys.modules)
torch.save(net(torch.load("x.pt")), "y.pt")
"""


def test_it_runs_where_growir_is_not_installed(tmp_path: Path) -> None:
    network = Network.init(residual_convnet(), seed=2)
    save_source(network.graph, network.arrays, tmp_path / "net.py")
    x = torch.randn(3, 2, 5, 5)
    torch.save(x, tmp_path / "x.pt")
    subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, check=True, timeout=120)
    assert torch.equal(torch.load(tmp_path / "y.pt"), network.to_torch().eval()(x))


def test_what_is_ours(tmp_path: Path) -> None:
    network = Network.init(mlp())
    weights = save_source(network.graph, network.arrays, tmp_path / "net.py")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.py", "net.safetensors"]
    assert is_ours(tmp_path / "net.py")
    assert is_ours(weights)
    for name in ("mine.py", "mine.safetensors"):
        (tmp_path / name).write_text("mine", encoding="utf-8")
        assert not is_ours(tmp_path / name)
        with pytest.raises(ExportError, match=f"{name}: is there already and was not written by growir"):
            save_source(network.graph, network.arrays, tmp_path / "mine.py")
        (tmp_path / name).unlink()


def test_both_files_or_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network.init(mlp())
    save_source(network.graph, network.arrays, tmp_path / "net.py")
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path: Path, parts: Any) -> None:
        if path.suffix == ".py":
            raise OSError(28, "No space left on device")
        path.write_bytes(b"".join(parts))

    monkeypatch.setattr("growir.backends.torch_source.saving.write_parts", full)
    grown = Network.init(residual_convnet())
    with pytest.raises(ExportError, match="No space left"):
        save_source(grown.graph, grown.arrays, tmp_path / "net.py")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple),
)


@given(VALUES, st.integers(0, 100))
def test_every_value_is_written_as_itself(value: Any, start: int) -> None:
    """Whatever a document's attributes hold, and however it is broken over lines."""
    text = "\n".join(statement("x" * start, literal(value), 0))[start:]
    assert text.isascii()
    assert repr(ast.literal_eval(text)) == repr(value)


@pytest.mark.parametrize("value", [torch.float16, torch.channels_last, float("inf"), float("-inf"), ...])
def test_values_without_a_literal(value: Any) -> None:
    assert eval(str(literal(value))) == value


def test_what_has_no_source_is_refused() -> None:
    with pytest.raises(ExportError, match="cannot be written as source"):
        literal(object())
    with pytest.raises(ExportError, match="cannot be written as torch source"):
        applied(os.getcwd, [], {}, Borrowed())


def test_extreme_attributes() -> None:
    for slope in (5e-324, 3e38, 0.1 + 0.2, 1 / 3, -0.0):
        nodes = (Node(name="out", op=LeakyRelu(negative_slope=slope), inputs=("x",)),)
        source = check(Network.init(Graph(inputs=(Input(name="x", shape=("N", 3)),), nodes=nodes, outputs=("out",))))
        assert repr(slope) in source


def test_a_long_permutation_fills_lines() -> None:
    indices = tuple(reversed(range(500)))
    nodes = (Node(name="out", op=Select(axis=1, indices=indices), inputs=("x",)),)
    source = check(Network.init(Graph(inputs=(Input(name="x", shape=("N", 500)),), nodes=nodes, outputs=("out",))))
    assert len(source.splitlines()) < 100
    assert max(map(len, source.splitlines())) <= 120
