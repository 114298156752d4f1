"""The experiments on cells: one seed as the command runs it, small; run files; and tables that stand in the page."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from experiments.cells import full_size, run, table
from experiments.cells.data import Pictures, augmented
from experiments.lines import read
from growir.cells import genotype
from growir.cellsearch.config import parse_search
from growir.errors import DataError

FOLDER = Path(run.__file__).parent
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few images by chance, as CIFAR-10 has them."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), (np.arange(60) % 10)[:, None]
    path = tmp_path / "cifar10.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    monkeypatch.setenv("GROWIR_CIFAR", str(path))
    return path


SMALL = """
[cells]
nodes = 2
operations = ["skip_connect", "sep_conv_3x3"]
inner = 1
cells = 3
reductions = [1]
width = 2
[search.policy]
fresh_units = 1
learn_steps = 1
judge_batches = 1
[search.schedule]
epochs = 1
growths = 1
[evaluation]
cells = 3
reductions = [1]
width = 2
epochs = 1
"""


@pytest.mark.usefixtures("archive")
def test_a_seed_and_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    monkeypatch.setattr(run, "RUN_FILE", tmp_path / "small.toml")
    monkeypatch.setattr(run, "TRAIN", 30)
    monkeypatch.setattr(run, "TEST", 30)
    monkeypatch.setattr(run, "RANDOM", 2)
    out = tmp_path / "lines.jsonl"
    assert run.main(["--out", str(out), "--seeds", "1"]) == 0
    lines = read(out)
    assert [line["cell"] for line in lines] == ["search", "found", "DARTS_V2", "random 0", "random 1"]
    assert all(abs(line["parameters"] / lines[1]["parameters"] - 1) < 0.5 for line in lines[2:])
    assert genotype(lines[0]["genotype"]) == genotype(lines[1]["genotype"])
    capsys.readouterr()
    assert run.main(["--out", str(out), "--seeds", "1"]) == 0
    assert capsys.readouterr().out == ""  # what is there is not run again
    told = "\n".join(table.tables(lines))
    assert "| random, mean |" in told
    assert "| DARTS_V2, scaled down |" in told


def test_random_cells_differ_by_seed_and_have_the_templates_operations() -> None:
    config = run.configuration(0)
    drawn = [run.by_chance(config, 0, k) for k in range(5)]
    assert len(set(map(str, drawn))) == 5
    assert drawn[0] == run.by_chance(config, 0, 0)
    for each in drawn:
        assert {name for name, _ in (*each.normal, *each.reduce)} <= set(config.cells.operations)
        assert all(a[1] != b[1] for a, b in zip(each.normal[::2], each.normal[1::2], strict=True))


@pytest.mark.parametrize("name", ["small.toml", "paper.toml"])
def test_run_files_are_read(name: str) -> None:
    config = parse_search(tomllib.loads((FOLDER / name).read_text()), name)
    growth = config.growth()
    assert growth.policy.name == "firefly"
    if name == "paper.toml":
        assert (config.cells.nodes, config.cells.cells, config.evaluation.cells) == (4, 5, 20)
        assert growth.schedule.planned == 100


def test_the_page_has_the_tables_of_its_lines() -> None:
    told = list(table.tables(read(FOLDER / "small.jsonl")))
    assert "\n".join(told) in PAGE


@pytest.mark.usefixtures("archive")
def test_pictures_are_cropped_mirrored_and_cut() -> None:
    data = augmented()
    assert (len(data.train), data.test is not None) == (60, True)
    x, y = np.full((2, 32, 32, 3), 255, np.uint8), np.array([3, 4])
    changed, plain = Pictures(x, y, changed=True), Pictures(x, y, changed=False)
    image, label = changed[1]
    assert label == 4
    assert image.shape == (3, 32, 32)
    assert int((image == 0).all(0).sum()) >= 64  # a quarter of the hole at least, where it lies in a corner
    assert bool((plain[0][0] > 0).all())


def test_without_an_archive_one_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROWIR_CIFAR", raising=False)
    with pytest.raises(DataError, match=r"GROWIR_CIFAR names the archive of CIFAR-10, an .*, but it is not set"):
        augmented()


@pytest.mark.slow
def test_a_published_genotype_at_full_size() -> None:
    found = full_size.main("DARTS_V2")
    assert found["parameters"] == 3_349_342
    assert found["function moved by"] < 1e-5
    assert found["onnx apart by"] < 1e-5
