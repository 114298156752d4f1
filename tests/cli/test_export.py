"""`growir export`: written only where ONNX Runtime and torch agree, and only over growir's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from growir.backends import agreement
from growir.errors import ExportError
from growir.network import Network, load_graph
from growir.verify import load
from tests.cli.command import GOLDEN, growir, process

CONVOLUTIONAL = GOLDEN / "inspect" / "residual.json"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network"
    Network.init(load_graph(CONVOLUTIONAL)).save(path)
    return path


def test_checked(network: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for _ in range(2):  # the second replaces the first
        done = growir("export", network, "-o", path)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith(f"wrote {path}; ONNX Runtime and torch differ by at most ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "network"]
    assert growir("diff", path, network).code == 0


def test_the_suffix_may_be_written_large(network: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.ONNX"
    assert growir("export", network, "-o", path, "--no-check").code == 0
    assert growir("diff", path, network).code == 0
    assert growir("validate", "--drop-history", path).out == growir("validate", "--drop-history", network).out


def test_disagreement_writes_nothing(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Untrained outputs of this network differ by some 1e-7; no file is as good as this tolerance asks.
    monkeypatch.setattr(agreement, "TOLERANCE", -1.0)
    done = growir("export", network, "-o", tmp_path / "net.onnx")
    assert (done.code, done.out) == (2, "")
    assert "output 'head' at batch 1: torch and ONNX Runtime differ by" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["network"]
    assert growir("export", network, "-o", tmp_path / "net.onnx", "--no-check").code == 0


def test_differences_are_measured() -> None:
    wanted = np.array([[1.0, -4.0]])
    assert agreement.difference("y", 1, wanted, wanted + np.array([0, 4e-5])) == pytest.approx(1e-5)
    assert agreement.difference("y", 1, np.zeros(2), np.zeros(2)) == 0
    for got in (wanted * 1.001, wanted[0], wanted * np.nan, wanted * np.inf, -wanted):
        with pytest.raises(ExportError, match=r"output 'y' at batch 1: .*nothing was written"):
            agreement.difference("y", 1, wanted, got)


def test_integers_in_and_two_outputs_out(tmp_path: Path) -> None:
    document = {
        "schema": "growir/1",
        "inputs": [{"name": "ids", "shape": ["N", 2], "dtype": "int64"}, {"name": "x", "shape": ["N", 3]}],
        "nodes": [
            {"name": "b", "op": "bias", "inputs": ["ids"], "features": 3},
            {"name": "y", "op": "add", "inputs": ["b", "x"]},
        ],
        "outputs": ["y", "b"],
    }
    Network.init(load(document), dtype=np.float64).save(tmp_path / "net")
    done = growir("export", tmp_path / "net", "-o", tmp_path / "net.onnx")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("flags", [[], ["--no-check"]])
class TestRefused:
    """One message, and what was there stays."""

    def refused(self, *args: object) -> str:
        done = growir("export", *args)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("growir: error: ")
        return done.err

    def test_other_suffix(self, flags: list[str], network: Path, tmp_path: Path) -> None:
        assert ".onnx" in self.refused(network, "-o", tmp_path / "net.pt", *flags)

    def test_foreign_file(self, flags: list[str], network: Path, tmp_path: Path) -> None:
        path = tmp_path / "net.onnx"
        path.write_text("mine", encoding="utf-8")
        assert "not written by growir" in self.refused(network, "-o", path, *flags)
        assert path.read_text(encoding="utf-8") == "mine"

    def test_folder(self, flags: list[str], network: Path, tmp_path: Path) -> None:
        (tmp_path / "net.onnx").mkdir()
        self.refused(network, "-o", tmp_path / "net.onnx", *flags)

    def test_missing_folder(self, flags: list[str], network: Path, tmp_path: Path) -> None:
        assert "does not exist" in self.refused(network, "-o", tmp_path / "none" / "net.onnx", *flags)

    def test_document_without_weights(self, flags: list[str], tmp_path: Path) -> None:
        self.refused(CONVOLUTIONAL, "-o", tmp_path / "net.onnx", *flags)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["net.onnx", "net.py"])
    def test_full_disk(self, name: str, flags: list[str], network: Path, tmp_path: Path) -> None:
        full = (
            "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); main()"
        )
        done = process("export", network, "-o", tmp_path / name, *flags, code=full)
        assert done.code == 2
        assert done.err == f"growir: error: {tmp_path / name}: the file cannot be written: File too large\n"
        assert [p.name for p in tmp_path.iterdir()] == ["network"]

    def test_nothing_can_be_written_there(self, flags: list[str], network: Path) -> None:
        done = growir("export", network, "-o", "/proc/net.onnx", *flags)
        assert done.code == 2
        assert "error: /proc/net.onnx: " in done.err
        assert "cannot be written: " in done.err

    def test_opset(self, flags: list[str], network: Path, tmp_path: Path) -> None:
        assert "opset" in self.refused(network, "-o", tmp_path / "net.onnx", "--opset", 5, *flags)
        assert [p.name for p in tmp_path.iterdir()] == ["network"]


class TestSource:
    """Source with torch alone, and its weights."""

    def test_written_and_replaced(self, network: Path, tmp_path: Path) -> None:
        path = tmp_path / "net.py"
        for flags in ([], [], ["--no-check"]):
            done = growir("export", network, "-o", path, *flags)
            assert (done.code, done.err) == (0, "")
            assert done.out.startswith(f"wrote {path} and {tmp_path / 'net.safetensors'}")
            assert done.out.endswith("to the bit\n") == (not flags)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["net.py", "net.safetensors", "network"]

    def test_a_difference_writes_nothing(self, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from growir.backends.torch_source import module_source, saving

        def wrong(*args: Any) -> str:
            return module_source(*args).replace("F.relu(", "F.silu(")

        monkeypatch.setattr(saving, "module_source", wrong)
        done = growir("export", network, "-o", tmp_path / "net.py")
        assert (done.code, done.out) == (2, "")
        assert "output 'head': the exported class and the network differ" in done.err
        assert [p.name for p in tmp_path.iterdir()] == ["network"]

    @pytest.mark.parametrize("name", ["torch.py", "json.py", "safetensors.py"])
    def test_a_name_that_would_hide_another_module(self, name: str, network: Path, tmp_path: Path) -> None:
        done = growir("export", network, "-o", tmp_path / name)
        assert (done.code, done.out) == (2, "")
        assert "would hide the module" in done.err
        assert [p.name for p in tmp_path.iterdir()] == ["network"]

    @pytest.mark.parametrize("flags", [[], ["--no-check"]])
    @pytest.mark.parametrize("name", ["net.py", "net.safetensors"])
    def test_foreign_files_stay(self, name: str, flags: list[str], network: Path, tmp_path: Path) -> None:
        (tmp_path / name).write_text("mine", encoding="utf-8")
        done = growir("export", network, "-o", tmp_path / "net.py", *flags)
        assert (done.code, done.out) == (2, "")
        assert f"{name}: is there already and was not written by growir" in done.err
        assert (tmp_path / name).read_text(encoding="utf-8") == "mine"
        assert len(list(tmp_path.iterdir())) == 2
