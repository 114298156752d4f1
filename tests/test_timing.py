"""When to grow: every arm takes the same operations, and ends at its size in three ways."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cifar import compare
from experiments.timing import table, when


@pytest.mark.slow
def test_every_arm_takes_the_same_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (700, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 700, dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    out = tmp_path / "when.jsonl"
    arms = ["once at .8", "2 up to .5", "even"]
    asked = [str(tmp_path / "images.npz"), "--out", str(out), "--seeds", "0-1", "--samples", "64", "--tested", "20"]
    when.main([*asked, "--arms", *arms])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    first = compare.network_of("vgg", compare.WIDTHS["vgg"], 16, 0).graph.costs().parameters
    (whole,) = {line["macs"] * end["steps"] for line in lines if line["arm"] == "even" for end in line["endings"]}
    for line in lines:
        assert first < line["parameters"] <= first * when.WHOLE
        assert [end["rate"] for end in line["endings"]] == list(when.ENDINGS)
        last = when.ARMS.get(line["arm"], (0.0,))[-1]
        left = {line["macs"] * end["steps"] for end in line["endings"]}
        assert all(abs(each - (1 - last) * whole) <= 0.5 * line["macs"] for each in left)
    when.main([*asked, "--arms", *arms])  # nothing is run again
    assert len(out.read_text().splitlines()) == len(lines) == 6
    table.main([str(out)])
    shown = capsys.readouterr().out
    assert shown.count("once at .8") == 2
