"""The experiment on learnable growth: what its numbers are, a short run of both arms, and the tables that are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.learnable import curves
from experiments.lines import Line, read
from growir.data.parts import Data
from growir.passes import Sequence, Update, Widen

FOLDER = Path(curves.__file__).parent


def curve(accuracies: list[float], losses: list[float]) -> list[Line]:
    return [
        {"arm": "learnable", "seed": 0, "epoch": k + 1, "accuracy": a, "loss": b, "ratio": 1.0 + k, "open_ratio": 1.0}
        for k, (a, b) in enumerate(zip(accuracies, losses, strict=True))
    ]


def test_falls_and_rises_are_those_behind_the_warm_epochs() -> None:
    found = curves.summary(curve([50, 20, 30, 26, 28], [1.0, 3.0, 2.0, 1.5, 1.8]))
    assert found["falls"] == pytest.approx(4 / 3)
    assert found["rises"] == pytest.approx(0.1)
    assert found["last loss less least"] == pytest.approx(0.8)
    assert (found["accuracy"], found["growth ratio"]) == (28, 5.0)


def test_what_closed_kernels_leave_at_zero_is_counted() -> None:
    kernel = np.ones((2, 3))
    kernel[0, 1] = 0
    grown = Widen(node="a", by=2, values={"a.weight": kernel, "a.bias": np.zeros(2)})
    learned = Update(parameters=("b.weight",), values={"b.weight": np.zeros((3, 3))})
    assert curves.zeros(Sequence(passes=(learned, Sequence(passes=(grown,))))) == 1


def test_both_arms_begin_alike_and_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 80)
    x = (rng.normal(size=(80, 3, 16, 16)) + y[:, None, None, None]).astype(np.float32)
    data = Data.from_arrays(x, y, test=(x[:20], y[:20]))
    monkeypatch.setattr(curves, "WIDTHS", (2, 2, 2, 2, 2, 2))
    found = [list(curves.lines(data, arm, 0, rounds=1)) for arm in curves.ARMS]
    for lines in found:
        assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
        assert lines[2]["after"] == "growth"
        assert lines[-1]["ratio"] > 1
    one, other = ([line["loss"] for line in lines] for lines in found)
    assert found[0][-1]["open_ratio"] == found[0][-1]["ratio"]
    assert one[: curves.WARM] == other[: curves.WARM]
    assert one[curves.WARM] != other[curves.WARM]


def test_the_tables_are_those_of_the_lines_that_are_kept() -> None:
    kept, text = read(FOLDER / "curves.jsonl"), (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "\n".join(curves.table(kept)) in text
    assert "\n".join(curves.curve_table(kept)) in text
