"""Which seeds the profiles of hypothesis draw by."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def header(profile: str, *options: str) -> str:
    """What pytest says of hypothesis as it starts under a profile, on a file that takes no time."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "tests/test_profiles.py"]
    environment = {**os.environ, "GROWIR_HYPOTHESIS_PROFILE": profile}
    environment.pop("GROWIR_TESTS_SEED", None)
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("hypothesis: profile")]
    return line


def test_the_long_run_draws_by_a_new_seed_and_says_which() -> None:
    first, second = header("all"), header("all")
    assert first.startswith("hypothesis: profile all, --hypothesis-seed=")
    assert first != second


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_seed_that_is_given_is_kept(workers: list[str]) -> None:
    assert header("all", "--hypothesis-seed=7", *workers) == "hypothesis: profile all, --hypothesis-seed=7"


def test_each_worker_draws_by_the_seed_that_is_printed(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "test_it.py").write_text(
        "from hypothesis import core\n\ndef test_it():\n    raise ValueError(f'seed {core.global_force_seed}')\n"
    )
    command = [sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider"]
    environment = {**os.environ, "GROWIR_HYPOTHESIS_PROFILE": "all"}
    environment.pop("GROWIR_TESTS_SEED", None)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    (printed,) = re.findall(r"--hypothesis-seed=(\d+)", done.stdout)
    assert f"seed {printed}" in done.stdout


def test_the_run_before_a_merge_draws_the_same_each_time() -> None:
    assert header("ci") == "hypothesis: profile ci"
