"""The run files of the papers' settings run as they are, on a few random images and for an epoch at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import growir

PAPERS = Path(__file__).parent.parent / "experiments" / "papers"
SHORT = {
    "schedule.epochs": 1,
    "train.device": "cpu",
    "train.batch_size": 8,
    "train.recalibrate": 1,
}
MORE: dict[str, dict[str, object]] = {
    "autogrow": {"policy.window": 0, "budget.steps": 1, "train.epochs_final": 1},
    "firefly": {"schedule.growths": 1, "policy.learn_steps": 2, "policy.fresh_units": 2, "policy.judge_batches": 1},
    "gauss_newton": {
        "schedule.growths": 1,
        "policy.learn_steps": 2,
        "policy.learn_batch": 8,
        "policy.verify": False,
        "train.epochs_final": 1,
        "policy.price": 0.0,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(PAPERS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_run_file_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (32, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 32, dtype=np.uint8)
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])
    monkeypatch.chdir(tmp_path)
    policy = next(name for name in MORE if path.stem.startswith(name))
    more = {**SHORT, **MORE[policy]}
    words = [word for key, value in more.items() for word in ("--set", f"{key}={json.dumps(value).strip(chr(34))}")]
    done = growir("grow", path, "--out", "run", "--quiet", *words)
    assert done.code == 0, done.err
    told = [json.loads(line)["event"] for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert told.count("growth") == 1
    assert (tmp_path / "run" / "summary.json").exists()
