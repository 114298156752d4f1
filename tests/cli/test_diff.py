"""`growir diff`: exit codes as diff(1) has them, and the text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from growir.backends.onnx_ir import save_model
from growir.network import Network, load_graph
from growir.passes import Widen
from growir.testing import random_network
from tests.cli.command import GOLDEN, growir

FOLDER = GOLDEN / "diff"
RESIDUAL = GOLDEN / "inspect" / "residual.json"
CASES = sorted(path.name.removesuffix(".a.json") for path in FOLDER.glob("*.a.json"))


@pytest.mark.parametrize("case", CASES)
def test_text(case: str, golden: Callable[[Path, str], None]) -> None:
    done = growir("diff", FOLDER / f"{case}.a.json", FOLDER / f"{case}.b.json")
    assert (done.code, done.err) == (0 if case == "same" else 1, "")
    golden(FOLDER / f"{case}.txt", done.out)


@pytest.fixture
def networks(tmp_path: Path) -> tuple[Path, Path]:
    """A network, and what it became by one pass."""
    network = Network.init(load_graph(RESIDUAL))
    network.save(tmp_path / "a")
    network.apply(Widen(node="mix", by=16)).save(tmp_path / "b")
    return tmp_path / "a", tmp_path / "b"


def test_growth(networks: tuple[Path, Path], golden: Callable[[Path, str], None]) -> None:
    done = growir("diff", *networks)
    assert (done.code, done.err) == (1, "")
    # The weights' digests follow from how fresh numbers are drawn, which is no business of this text.
    golden(FOLDER / "growth.txt", re.sub(r"\b[0-9a-f]{12} -> [0-9a-f]{12}", "... -> ...", done.out))


def test_json(networks: tuple[Path, Path]) -> None:
    done = growir("diff", "--json", *networks)
    assert done.code == 1
    found = json.loads(done.out)
    assert not found["same"]
    assert [step["pass"] for step in found["passes"]] == ["widen"]
    assert "head.weight" in found["weights"]["changed"]
    changed = {change["name"]: change for change in found["changed"]}
    assert all("out_features" in c.get("widths", []) or "out_channels" in c["widths"] for c in changed.values())


def test_same_network(networks: tuple[Path, Path]) -> None:
    done = growir("diff", networks[0], networks[0])
    assert (done.code, done.out.splitlines()[-1]) == (0, "no difference")


def test_network_against_its_document(networks: tuple[Path, Path]) -> None:
    done = growir("diff", networks[0], RESIDUAL)
    assert done.code == 0
    assert "not compared: only the first has any" in done.out
    assert done.out.splitlines()[-1] == "the graphs are the same"
    assert "no difference" not in done.out


def test_onnx_files_have_weights(networks: tuple[Path, Path], tmp_path: Path) -> None:
    network = random_network(load_graph(RESIDUAL))  # of float64, with counts of batches
    network.save(tmp_path / "net")
    network.to_onnx(tmp_path / "net.onnx")
    network.to_onnx(tmp_path / "again.onnx")
    key = next(key for key in network.arrays if key.endswith(".weight"))
    other = network.with_arrays({key: network.arrays[key] + 1})
    other.save(tmp_path / "other")
    other.to_onnx(tmp_path / "other.onnx")
    for first, second in (("net.onnx", "again.onnx"), ("net", "again.onnx"), ("net.onnx", "net")):
        done = growir("diff", tmp_path / first, tmp_path / second)
        assert (done.code, done.err) == (0, "")
        assert done.out.splitlines()[-1] == "no difference"
        assert re.search(r"^weights\n  \d+ the same$", done.out, re.MULTILINE)
    for first, second in (("net.onnx", "other.onnx"), ("net", "other.onnx"), ("other.onnx", "net")):
        done = growir("diff", tmp_path / first, tmp_path / second)
        assert (done.code, done.err) == (1, "")
        assert re.search(rf"^  ~ {re.escape(key)}  .*sha256", done.out, re.MULTILINE)
        assert done.out.count("  ~ ") == 1
    done = growir("diff", RESIDUAL, tmp_path / "net.onnx")
    assert (done.code, done.err) == (0, "")
    assert "not compared: only the second has any" in done.out


def test_onnx_file_without_its_side_file(tmp_path: Path) -> None:
    network = Network.init(load_graph(RESIDUAL))
    save_model(network.graph, network.arrays, tmp_path / "net.onnx", threshold=0)
    assert growir("diff", tmp_path / "net.onnx", tmp_path / "net.onnx").code == 0
    (tmp_path / "net.onnx.data").unlink()
    done = growir("diff", tmp_path / "net.onnx", tmp_path / "net.onnx")
    assert (done.code, done.out) == (2, "")
    assert "the tensor cannot be read: " in done.err
    assert "export the network anew" in done.err
    assert str(tmp_path / "net.onnx") in done.err


def test_unreadable_second(networks: tuple[Path, Path], tmp_path: Path) -> None:
    done = growir("diff", networks[0], tmp_path / "none")
    assert (done.code, done.out) == (2, "")


def test_damaged_weights(networks: tuple[Path, Path]) -> None:
    weights = networks[1] / "params.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for command in (["diff", networks[0]], ["validate"]):
        done = growir(*command, networks[1])
        assert done.code == 2
        assert "params.safetensors" in done.err


def test_weights_of_another_graph(networks: tuple[Path, Path]) -> None:
    a, b = networks
    (b / "params.safetensors").write_bytes((a / "params.safetensors").read_bytes())
    done = growir("validate", b)
    assert done.code == 2
    assert "belong to the graph" in done.err
