"""Fits of a grown network from several starts, for several lengths: what is run, and what the table makes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from experiments.final_fit import fits
from experiments.final_fit.table import ratios, table


def test_starts_leave_vectors_alone_unless_all_is_new() -> None:
    weight, new = torch.full((2, 2), 4.0), torch.full((2, 2), 8.0)
    found = {name: float(change(weight, new)[0, 0]) for name, change in fits.STARTS.items()}
    assert found == pytest.approx({"warm": 4.0, "half": 2.0, "fifth": 0.8, "perturbed": 4.0, "new": 8.0})
    found = {name: float(change(weight[0], new[0])[0]) for name, change in fits.STARTS.items()}
    assert found == {name: 8.0 if name == "new" else 4.0 for name in fits.STARTS}


def test_losses_are_shares_of_the_lowest() -> None:
    head = {"problem": "wine", "strategy": "widen"}
    lines = [
        {**head, "seed": seed, "start": start, "share": share, "selection": loss * seed, "test": 3 * loss * seed}
        for seed in (1, 2)
        for start in fits.STARTS
        for share, loss in zip(fits.SHARES, (0.4, 0.2, 0.1 if start == "warm" else 0.3, 0.8), strict=True)
    ]
    found = ratios(lines)
    assert found["wine", "warm", 1.0] == pytest.approx(1.0)
    assert found["wine", "new", 0.5] == pytest.approx(2.0)
    rows = list(table(lines))
    assert len(rows) == 2 + len(fits.STARTS) * (len(fits.SHARES) + 1)
    assert "| warm | best | 1.00 | 1.00 |" in rows
    assert "| new | best | 2.00 | 2.00 |" in rows


@pytest.mark.slow
def test_each_fit_is_a_line_and_none_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "SHARES", (0.05,))
    out = tmp_path / "fits.jsonl"
    monkeypatch.setattr(sys, "argv", ["fits", "--out", str(out), "--problems", "wine", "--seeds", "0-0"])
    fits.main()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(line["start"], line["strategy"]) for line in lines} == {
        (a, b) for a in fits.STARTS for b in fits.STRATEGIES
    }
    assert len({line["test"] for line in lines if line["strategy"] == "widen"}) == len(fits.STARTS)
    fits.main()
    assert len(out.read_text().splitlines()) == len(lines)
