"""Every example runs, leaves the files it names, and finds what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import growir
from tests.cli.command import growir as command

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run_example(name: str, folder: Path, *args: str) -> str:
    """Run an example as its reader would, in an empty folder; return what it prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_handmade(tmp_path: Path) -> None:
    printed = run_example("handmade.py", tmp_path)
    assert "~ conv  out_channels 4 -> 6 (+2)" in printed
    assert "refused: edge_1 already leads" in printed
    change = next(line for line in printed.splitlines() if line.startswith("largest change"))
    assert float(change.rpartition(" ")[2]) < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["handmade.json", "handmade.onnx"]
    graph = growir.load_graph(tmp_path / "handmade.onnx")
    assert graph.history is not None
    assert graph.history.base.hash == growir.load_graph(tmp_path / "handmade.json").hash


def test_grow_from_python(tmp_path: Path) -> None:
    printed = run_example("grow_from_python.py", tmp_path)
    assert printed.startswith("1: 8 neurons standard -> node_1 -> out, gain ")
    summary = json.loads((tmp_path / "ripple" / "summary.json").read_text(encoding="utf-8"))
    assert summary["parameters"] <= 150
    # The targets' variance is 40^2 times that of a cosine, several hundred.
    assert summary["test_after_fit"]["mse"] < 200
    predictions = [line for line in printed.splitlines() if line.startswith("target")]
    assert len(predictions) == 5


@pytest.mark.slow
def test_teacher_student(tmp_path: Path) -> None:
    printed = run_example("teacher_student.py", tmp_path)
    assert printed.startswith("widen 1: 10 neurons standard -> node_1 -> out, ")
    assert "\nkept what " in printed
    student = next(line for line in printed.splitlines() if line.startswith("student"))
    assert int(student.split()[1]) < 4701
    assert float(student.split()[4]) < 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_grow_resnet(tmp_path: Path) -> None:
    printed = run_example("grow_resnet.py", tmp_path, "--short")
    assert printed.count("test accuracy") == 4
    results = json.loads((tmp_path / "grow_resnet.json").read_text(encoding="utf-8"))
    for found in results.values():
        assert len(found["growths"]) == 3
        sizes = [list(event["widths"].values()) for event in found["growths"]]
        assert sizes == [[6, 12], [9, 18], [14, 27]]  # both residual classes, by half, three times
        assert all(event["change of an output"] < 1e-5 for event in found["growths"])
    drawing = ElementTree.parse(tmp_path / "grow_resnet.svg").getroot()
    lines = drawing.findall("{http://www.w3.org/2000/svg}polyline")
    steps = [len(found["losses"]) for found in results.values()]
    assert [len(line.attrib["points"].split()) for line in lines] == steps


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_under_test(path: Path) -> None:
    assert f"def test_{path.stem}(" in Path(__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["mnist.toml", pytest.param("mnist_maps.toml", marks=pytest.mark.slow)])
def test_run_files_grow_on_data_of_that_shape(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 40, (90, 12, 12), dtype=np.uint8)
    labels = np.arange(90, dtype=np.uint8) % 3
    for k, label in enumerate(labels):
        images[k, 3 * label : 3 * label + 3] += 150
    np.savez(tmp_path / "mnist.npz", x_train=images[:60], y_train=labels[:60], x_test=images[60:], y_test=labels[60:])
    (tmp_path / name).write_bytes((EXAMPLES / name).read_bytes())
    done = command("grow", tmp_path / name, "--out", tmp_path / "run", "--quiet")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["test_after_fit"]["accuracy"] > 0.8
    assert summary["parameters"] <= 50_000
    kinds = {node.op.kind() for node in growir.load_graph(tmp_path / "run").nodes}
    assert ("conv2d" in kinds) == (name == "mnist_maps.toml")
