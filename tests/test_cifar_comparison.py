"""The comparison of policies on images, on a few random ones: every arm ends in all four ways, at its size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cifar import compare
from experiments.cifar.table import WAYS, differences, table


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (700, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 700, dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return tmp_path / "images.npz"


def _spent(line: dict[str, Any], equal: str) -> float:
    """The operations of training with which both endings of a kind end, in units of 1e12."""
    (found,) = {each["teraflop"] for each in line["endings"] if each["equal"] == equal}
    return float(found)


@pytest.mark.slow
def test_every_arm_grows_to_its_size_and_ends_in_all_ways(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "FIRST", 1)
    monkeypatch.setattr(compare, "LAST", 1)
    out = tmp_path / "compare.jsonl"
    asked = ["compare", str(archive), "--out", str(out), "--net", "vgg", "--seeds", "0-1", "--samples", "64"]
    arms = ["random new units", "random among learned", "even"]
    monkeypatch.setattr(sys, "argv", [*asked, "--tested", "20", "--arms", *arms])
    compare.main()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    first = compare.network_of("vgg", compare.WIDTHS["vgg"], 16, 0).graph.costs().parameters
    assert {line["arm"] for line in lines} == {*arms, "random new units, from scratch"}
    (limit,) = {_spent(line, "operations") for line in lines if line["arm"] == "even"}
    for line in lines:
        assert first < line["parameters"] <= first * compare.FACTOR**2
        assert {(each["equal"], each["rate"]) for each in line["endings"]} == set(WAYS)
        # A step is an epoch of 64 images here.
        assert abs(_spent(line, "operations") - limit) <= 6 * line["macs"] * 64 / 1e12
        assert _spent(line, "operations") > _spent(line, "epochs")
    compare.main()  # nothing is run again
    assert len(out.read_text().splitlines()) == len(lines)
    assert len(list(table(lines))) == 2 + len({line["arm"] for line in lines})
    assert any("even" in row for row in differences(lines, "random new units"))
