"""Start-up counts: what a command imports, and what `growir --help` lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from growir.network import Network, load_graph
from tests.cli.command import GOLDEN, process

DENSE = GOLDEN / "diff" / "by_hand.a.json"
PRINT_MODULES = """
import atexit
atexit.register(lambda: print("\\n".join(sorted(sys.modules)), file=sys.stderr))
main()
"""


def imported(*args: object) -> set[str]:
    done = process(*args, code=PRINT_MODULES)
    assert done.code in (0, 1), done.err
    return set(done.err.split())


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "network"
    Network.init(load_graph(DENSE)).save(path)
    return path


@pytest.mark.parametrize(
    "command", ["inspect", "inspect --all", "inspect --json --spaces", "validate", "diff DENSE", "log"]
)
@pytest.mark.parametrize("kind", ["document", "network"])
def test_reading_needs_neither_torch_nor_onnx(command: str, kind: str, network: Path) -> None:
    args = [DENSE if word == "DENSE" else word for word in command.split()]
    modules = imported(*args, DENSE if kind == "document" else network)
    assert not modules & {"torch", "onnx", "onnxruntime", "sklearn"}
    assert "growir.show" in modules or "inspect" not in command


@pytest.mark.parametrize("kind", ["document", "network"])
def test_rewriting_needs_neither_torch_nor_onnx(kind: str, network: Path, tmp_path: Path) -> None:
    step = '{"pass": "widen", "node": "fc1", "by": 2}'
    source = DENSE if kind == "document" else network
    modules = imported("rewrite", source, "--pass", step, "-o", tmp_path / "out")
    assert not modules & {"torch", "onnx", "onnxruntime", "sklearn"}


@pytest.mark.parametrize("name", ["net.svg", "net.html"])
def test_drawing_needs_neither_torch_nor_onnx(name: str, network: Path, tmp_path: Path) -> None:
    modules = imported("render", network, "-o", tmp_path / name) | imported(
        "diff", DENSE, network, "--html", tmp_path / "d.html"
    )
    assert not modules & {"torch", "onnx", "onnxruntime", "sklearn", "networkx"}


def test_drawing_cells_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    modules = imported("render", "DARTS_V2", "--cell", "-o", tmp_path / "cell.svg")
    assert not modules & {"torch", "onnx", "onnxruntime", "sklearn", "networkx"}


def test_inspecting_an_onnx_file_needs_no_torch(network: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    assert "torch" not in imported("export", network, "-o", path, "--no-check")
    modules = imported("inspect", path)
    assert "onnx" in modules
    assert "torch" not in modules


def test_schema() -> None:
    modules = imported("schema", "--check")
    assert not modules & {"torch", "onnx", "numpy", "networkx", "rich.console"}


def test_help_lists_all_commands_and_imports_next_to_nothing() -> None:
    done = process("--help")
    assert done.code == 0
    for command in ("grow", "predict", "inspect", "diff", "validate", "rewrite", "render", "log", "export", "schema"):
        assert f"  {command} " in done.out
    for args in (["--help"], ["grow", "--help"], ["predict", "--help"], ["inspect", "--help"]):
        modules = imported(*args)
        heavy = {"torch", "onnx", "numpy", "networkx", "rich.console", "growir.graph", "growir.growth"}
        assert not modules & heavy


def test_version() -> None:
    import growir

    assert process("--version").out == f"growir {growir.__version__}\n"
