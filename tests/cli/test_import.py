"""`growir import`: the user's own module, from the current folder, as a network folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from growir.network import Network
from tests.cli.command import growir, process

CODE = """
from torch import nn
import torch

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def make():
    torch.manual_seed(0)
    return Net()

def odd():
    class Odd(Net):
        def forward(self, x):
            return torch.cumprod(super().forward(x), 1)
    return Odd()

def asks():
    class Asks(Net):
        def forward(self, x):
            return super().forward(x).tanh() if self.training else super().forward(x)
    return Asks()

class made:
    tokens = staticmethod(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)))

text = "no model"

def fails():
    raise ValueError("no such size")

def leaves():
    raise SystemExit(3)

def asks_for(width):
    return Net()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "user_nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "user_nets", raising=False)
    return tmp_path


def test_a_model(folder: Path) -> None:
    done = growir("import", "user_nets:make", "--input", "1,3,8,8", "-o", "net")
    assert done.code == 0
    assert done.out == "wrote net: 3 nodes, 122 parameters\n"
    network = Network.load(folder / "net")
    module = __import__("user_nets").make()
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(network.to_torch().eval()(x), module.eval()(x), atol=1e-6)


def test_integers_and_a_factory_inside_a_class(folder: Path) -> None:
    assert growir("import", "user_nets:made.tokens", "--input", "2,3:int64", "-o", "net").code == 0
    assert Network.load(folder / "net").graph.inputs[0].dtype == "int64"


def test_a_notice_is_a_warning(folder: Path) -> None:
    done = growir("import", "user_nets:asks", "--input", "1,3,8,8", "-o", "net")
    assert done.code == 0
    assert "growir: warning: the model does something else in train mode" in done.err
    assert "super().forward(x).tanh() if self.training" in done.err


@pytest.mark.parametrize(
    ("source", "shape", "says"),
    [
        ("user_nets", "1,3,8,8", "user_nets: package.module:function is needed, such as nets:resnet18"),
        ("user_nets:make()", "1,3,8,8", "user_nets:make(): package.module:function is needed"),
        ("missing_nets:make", "1,3,8,8", "missing_nets:make: there is no module 'missing_nets' in this folder"),
        ("user_nets:other", "1,3,8,8", "user_nets:other: user_nets has no 'other'"),
        (
            "user_nets.py:make",
            "1,3,8,8",
            "there is no module 'user_nets.py' in this folder or installed; leave out .py",
        ),
        ("user_nets:fails", "1,3,8,8", 'raise ValueError("no such size"): ValueError: no such size'),
        ("user_nets:leaves", "1,3,8,8", "user_nets:leaves: leaves() failed."),
        ("user_nets:asks_for", "1,3,8,8", "asks_for() failed. TypeError: asks_for() missing 1 required"),
        ("half_nets:make", "1,3,8,8", "half_nets:make: importing half_nets failed. SyntaxError"),
        ("lost_nets:make", "1,3,8,8", "lost_nets.py:1: import nowhere_nets: ModuleNotFoundError"),
        ("user_nets:make", "1,99999999999999", "--input 1,99999999999999: there is no memory for so large an input"),
        ("user_nets:text", "1,3,8,8", "user_nets:text: gives an object of type str, no torch.nn.Module"),
        ("user_nets:make", "1,3,x", "--input 1,3,x: a shape such as 1,3,224,224 is needed"),
        ("user_nets:make", "8", "--input 8: the batch and at least one more size are needed"),
        ("user_nets:make", "1,2,8,8", "user_nets:make: the model does not run on the example inputs"),
        (
            "user_nets:odd",
            "1,3,8,8",
            "return torch.cumprod(super().forward(x), 1): aten.cumprod has no operator in growir",
        ),
    ],
)
def test_bad_input(folder: Path, source: str, shape: str, says: str) -> None:
    (folder / "half_nets.py").write_text("def make(")
    (folder / "lost_nets.py").write_text("import nowhere_nets")
    done = growir("import", source, "--input", shape, "-o", "net")
    assert done.code == 2
    assert says in done.err
    assert done.err.startswith("growir: error: ")
    assert "Traceback" not in done.err
    assert not (folder / "net").exists()


def test_a_place_that_is_taken_is_said_before_the_work(folder: Path) -> None:
    done = growir("import", "missing_nets:make", "--input", "1,3,8,8", "-o", "user_nets.py")
    assert done.code == 2
    assert "user_nets.py: is a file, not a growir network, and is not overwritten" in done.err


def test_help_says_that_it_runs_code_and_imports_no_torch() -> None:
    done = process(
        "import",
        "--help",
        code="import sys\nimport atexit\natexit.register(lambda: print('torch' in sys.modules))\nmain()",
    )
    assert "give only code" in " ".join(done.out.split())
    assert done.out.rstrip().endswith("False")
