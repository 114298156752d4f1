"""The experiments on continual learning: one arm of each as the command runs it, and the run files of papers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.continual import killed, memory, papers, permuted, run, table
from experiments.continual.nets import NETS, graph_of, vgg16
from experiments.lines import read
from growir.continual.config import read_sequence
from growir.continual.starting import experiences_of, first_network
from growir.growth.naming import importing_from

FOLDER = Path(run.__file__).parent


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A few images by chance, as MNIST has them."""
    rng = np.random.default_rng(0)
    path = tmp_path / "mnist.npz"
    x, y = rng.integers(0, 256, (200, 28, 28), dtype=np.uint8), np.arange(200) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x[:50], y_test=y[:50])
    return path


def test_five_tasks_by_some_methods_and_their_tables(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "TRAIN", 12)
    monkeypatch.setattr(run, "EPOCHS", {"mlp": 1})
    out = tmp_path / "lines.jsonl"
    command = ["--mnist", str(archive), "--out", str(out), "--nets", "mlp", "--orders", "0", "1", "--arms"]
    assert run.main([*command, "grown", "grow only", "separate"]) == 0
    assert run.main([*command, "grown", "ewc"]) == 0
    lines = read(out)
    assert [(line["arm"], line["order"]) for line in lines] == [
        *(("grown", 0), ("grow only", 0), ("separate", 0)),
        *(("grown", 1), ("grow only", 1), ("separate", 1)),
        *(("ewc", 0), ("ewc", 1)),
    ]
    for line in lines:
        assert len(line["accuracy"]) == len(line["parameters"]) == len(line["bytes"]) == 5
    text = "\n".join(table.tables(lines))
    assert "### grown less others at the end" in text
    assert "In all 8 sequences" in text
    capsys.readouterr()


def test_the_networks_are_what_they_are_called() -> None:
    for name in NETS:
        graph = graph_of(name, (3, 32, 32))
        assert graph.costs().parameters > 0
    convolutions = [module for module in vgg16((3, 32, 32)).modules() if type(module).__name__ == "Conv2d"]
    assert len(convolutions) == 13


def test_twenty_tasks_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TASKS", 3)
    monkeypatch.setattr(memory, "SHOWN", (1, 3))
    monkeypatch.setattr(memory, "SETTINGS", {**memory.SETTINGS, "epochs": 1})
    line = memory.run(0)
    assert len(line["disk"]) == len(line["views"]) == 3
    assert line["forgetting"] == 0
    text = "\n".join(memory.table([line, line]))
    assert "A view has" in text


def test_permuted_tasks_have_the_first_as_it_is(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permuted, "TASKS", 2)
    monkeypatch.setattr(permuted, "SHOWN", (1, 2))
    monkeypatch.setattr(permuted, "SETTINGS", {**permuted.SETTINGS, "epochs": 1})
    one, two = permuted.experiences(archive, 0)
    assert one.classes == two.classes == tuple(range(10))
    line = permuted.run(archive, "ewc", 0)
    assert "| ewc |" in "\n".join(permuted.table([line]))


@pytest.mark.slow
def test_a_killed_sequence_is_the_same(tmp_path: Path) -> None:
    found = killed.compared(tmp_path, times=2, seed=0, method="grown", epochs=2)
    assert found["same weights"]
    assert found["same document, masks and digests"]


@pytest.mark.parametrize("name", ["cifar100_split", "cifar100_superclass"])
def test_the_run_files_of_papers_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8), np.arange(200) % 100
    np.savez(tmp_path / "cifar100.npz", x_train=x, y_train=y[:, None], x_test=x[:100], y_test=y[:100, None])
    monkeypatch.chdir(tmp_path)
    with importing_from(FOLDER.parent.parent):
        config = read_sequence(FOLDER / f"{name}.toml")
        tasks = experiences_of(config)
        assert len({label for task in tasks for label in task.classes}) == 100
        assert {len(task.classes) for task in tasks} == {10 if name.endswith("split") else 5}
        batch = next(iter(tasks[0].data.train.batches(2, None)))
        assert isinstance(batch.inputs, tuple)
        assert batch.inputs[0].shape[1:] == papers.SHAPE
        share = 0.5 if name.endswith("split") else 0.3
        whole = papers.lenet_whole() if name.endswith("split") else papers.vgg16_whole()
        start = first_network(config, tasks).graph.costs().parameters
    assert start / whole.graph.costs().parameters == pytest.approx(share, abs=0.01)


def test_results_that_are_kept_make_the_tables_of_the_page() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name, made in (("five_tasks", table.tables), ("memory", memory.table), ("permuted", permuted.table)):
        assert "\n".join(made(read(FOLDER / f"{name}.jsonl"))) in text, name
    assert json.loads((FOLDER / "killed.json").read_text())["same weights"]
