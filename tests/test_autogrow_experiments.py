"""The experiments on AutoGrow: the policy's table, and one arm as the command runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.autogrow import deepen, depths, killed, selecting, synthetic, table
from experiments.lines import read


def test_growth_on_a_curve_that_saturates() -> None:
    """The depths of the README's table."""
    text = (Path(synthetic.__file__).parent / "README.md").read_text(encoding="utf-8")
    assert "\n".join(synthetic.table()) in text
    assert [synthetic.run(period).depths for period in (3, 10, 50)] == [(35, 34, 34), (24, 23, 23), (16, 15, 15)]


def test_the_figure_is_the_one_that_is_kept() -> None:
    kept = (Path(synthetic.__file__).parent / "synthetic.svg").read_text(encoding="utf-8")
    assert synthetic.figure() == kept


SMALL = {"SAMPLES": 60, "SELECTS": 30, "BATCH": 30, "WIDTH": 2, "WINDOW": 2, "FITTED": 1}


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few images by chance, as MNIST has them, for small networks."""
    rng = np.random.default_rng(0)
    path = tmp_path / "mnist.npz"
    x, y = rng.integers(0, 256, (90, 8, 8), dtype=np.uint8), np.arange(90) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    for name, value in SMALL.items():
        monkeypatch.setattr(depths, name, value)
    monkeypatch.setattr(deepen, "WIDTH", 2)
    monkeypatch.setattr(deepen, "EPOCHS", 1)
    return path


def test_an_arm_is_run_once_and_told(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "lines.jsonl"
    monkeypatch.setattr(depths, "arms", lambda: [depths.Arm("Plain3Net", 1, "default")])
    asked = ["--mnist", str(archive), "--out", str(out), "--seeds", "0"]
    for _ in range(2):
        depths.main([*asked[:-1], "0-0"])
    (line,) = read(out)
    assert line["epochs"] == line["growths"] + 1 + 1  # one behind each growth and before the first, and the fit
    assert line["scratch"]["equal epochs"]["epochs"] == line["epochs"]
    spent = line["scratch"]["equal FLOPs"]["flops"] / line["flops"]
    assert abs(spent - 1) < 0.5 / line["scratch"]["equal FLOPs"]["epochs"] + 1e-9
    rows = list(table.table([line]))
    assert rows[2].startswith("| mnist | Plain3Net | period 1, default | 1 | ")


def test_a_shallow_network_is_deepened_once(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lines.jsonl"
    monkeypatch.setattr(deepen, "DEPTHS", (1,))
    for _ in range(2):
        deepen.main(["--mnist", str(archive), "--out", str(out), "--seeds", "0-0"])
    found = {line["arm"]: line for line in read(out)}
    assert list(found) == ["shallow", "zero", "adam", "gaussian", "default", "scratch", "scratch, equal FLOPs"]
    assert {line["net"] for line in found.values()} == {"Basic3ResNet-1-1-1", "Basic3ResNet-2-2-2"}
    assert found["zero"]["flops"] > found["scratch"]["flops"] > found["shallow"]["flops"]
    capsys.readouterr()
    deepen.main(["--table", str(out)])
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 + len(found)
    assert rows[3].startswith("| mnist | 2 in each | zero | ")


@pytest.mark.slow
def test_a_run_that_is_killed_is_the_same(archive: Path, tmp_path: Path) -> None:
    found = killed.compared(archive, tmp_path / "runs", 2, 0)
    assert found["same graph"]
    assert found["same weights"]


def test_arms_have_names_of_their_own() -> None:
    names = [(arm.net, arm.name) for arm in depths.arms()]
    assert len(set(names)) == len(names)
    assert ("Basic3ResNet", "period 6, gaussian, 0.5 of the images") in names
    assert ("Basic3ResNet", "converged, zero") in names


def test_selecting_on_test_images(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lines.jsonl"
    monkeypatch.setattr(selecting, "SELECTING", 10)
    for _ in range(2):
        selecting.main(["--mnist", str(archive), "--out", str(out), "--seeds", "0-0"])
    found = read(out)
    assert [line["arm"] for line in found] == ["held out", "test"]
    capsys.readouterr()
    selecting.main(["--table", str(out)])
    rows = capsys.readouterr().out.splitlines()
    ahead = [found[1]["accuracy"][part] - found[0]["accuracy"][part] for part in ("selecting", "others")]
    assert rows[4] == f"| mnist | ahead |  | {ahead[0]:+.2f} | {ahead[1]:+.2f} |"
    assert rows[5].endswith(f"| {ahead[0] - ahead[1]:+.2f} |  |")


def test_the_images_of_a_part_are_in_no_other(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selecting, "SELECTING", 10)
    of = selecting.parts(archive, 0)
    assert [len(labels) for _, labels in of.values()] == [60, 30, 10, 10]
    seen = [image.tobytes() for name in ("train", "held") for image in of[name][0]]
    assert len(set(seen)) > 80, "images by chance differ"
