"""`growir diff`: exit codes as diff(1) has them, and the text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from growir.network import Network, load_graph
from growir.passes import Widen
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
