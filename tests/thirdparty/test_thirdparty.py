"""Somebody else's pass and policy: installed, found by name, under the laws by a test file of three lines each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import growir
from growir.testing import random_network
from tests.samples import mlp
from tests.sampling import thinned

PACKAGE = Path(__file__).parent / "package"
# The same draws each time: this is about the machinery.
NO_SHRINKING = """from hypothesis import Phase, settings

settings.register_profile("quick", phases=[Phase.explicit, Phase.generate])
settings.load_profile("quick")
"""
FILES = {"pass": "test_growir_reverse.py", "policy": "test_growir_alphabet.py"}


def pytest_of(what: str) -> list[str]:
    """The command that runs its tests."""
    return ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=1", FILES[what]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed, as pip does it, without a network."""
    source, target = tmp_path_factory.mktemp("source") / "package", tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, source)  # a build writes beside what it builds
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=300)
    return target


def run(site: Path, *args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with the package installed."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *map(str, args)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=site,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("what", FILES)
def test_its_test_file_is_three_lines(what: str) -> None:
    lines = (PACKAGE / FILES[what]).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3


@pytest.mark.parametrize("what", FILES)
def test_its_own_tests_pass(site: Path, what: str) -> None:
    shutil.copy(PACKAGE / FILES[what], site)
    done = run(site, *pytest_of(what))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


MISTAKES = {
    "wrong shares": (
        "pass",
        "np.arange(space.units)[::-1], np.ones(space.units)",
        "np.arange(space.units)[::-1], np.full(space.units, 0.9)",
    ),
    "promises too much": (
        "pass",
        "Preserves.EVAL if analyse(graph).find(self.node, graph).random else Preserves.EXACT",
        "Preserves.EXACT",
    ),
    "edits forgotten": ("pass", "done.edits)", "done.edits[:1])"),
    "budget forgotten": ("policy", "for step in steps if budget.fits(step)]", "for step in steps]"),
    "chance of nobody's": ("policy", "Score(each, 1.0 / (1 + k))", "Score(each, __import__('random').random())"),
}


@pytest.mark.parametrize("mistake", thinned(MISTAKES, 8))
def test_its_own_tests_notice_a_mistake(site: Path, tmp_path: Path, mistake: str) -> None:
    what, right, wrong = MISTAKES[mistake]
    name = FILES[what].removeprefix("test_")
    text = (PACKAGE / name).read_text(encoding="utf-8")
    assert right in text
    # Before the installed one on the path, since tests start in this folder.
    (tmp_path / name).write_text(text.replace(right, wrong), encoding="utf-8")
    shutil.copy(PACKAGE / FILES[what], tmp_path)
    # Making a failing case small takes a minute, and nobody reads it here.
    (tmp_path / "conftest.py").write_text(NO_SHRINKING, encoding="utf-8")
    done = run(tmp_path, *pytest_of(what))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout


def test_it_is_found_by_its_name(site: Path, tmp_path: Path) -> None:
    network = random_network(mlp())
    network.save(tmp_path / "net")
    step = {"pass": "reverse", "node": "fc1"}
    done = run(
        site, "-m", "growir", "rewrite", tmp_path / "net", "--pass", json.dumps(step), "-o", tmp_path / "reversed"
    )
    assert done.returncode == 0, done.stderr
    check = (
        "import growir, sys; from growir.passes import pass_from_data; "
        "net = growir.Network.load(sys.argv[1]); print(net.history.steps[0].kind); "
        "print((net.replayed(growir.Network.load(sys.argv[2]).arrays).arrays['fc1.bias'] "
        "== growir.Network.load(sys.argv[2]).arrays['fc1.bias'][::-1]).all()); "
        "print(repr(pass_from_data({'pass': 'reverse', 'node': 'fc1'})))"
    )
    done = run(site, "-c", check, tmp_path / "reversed", tmp_path / "net")
    assert done.stdout.splitlines() == ["reverse", "True", "Reverse(seed=0, node='fc1')"], done.stderr


RUN = """
network = "net"

[data]
path = "data.npz"

[policy]
name = "alphabet"
share = 0.5

[budget]
steps = 2

[train]
epochs_between = 1
epochs_final = 1
"""


def test_its_policy_is_run_by_its_name(site: Path, tmp_path: Path) -> None:
    random_network(mlp()).save(tmp_path / "net")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x_train=rng.normal(size=(60, 3)).astype(np.float32), y_train=rng.integers(0, 2, 60))
    (tmp_path / "run.toml").write_text(RUN, encoding="utf-8")
    out = tmp_path / "out"
    done = run(site, "-m", "growir", "grow", tmp_path / "run.toml", "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["policy"] for line in lines if line["event"] == "growth"] == ["alphabet", "alphabet"]
    listed = run(site, "-m", "growir", "grow", "--settings")
    assert "share" in listed.stdout
    # Beside the run file nothing of the package is found, and the message says which policies there are.
    gone = subprocess.run(
        [sys.executable, "-m", "growir", "grow", str(tmp_path / "run.toml"), "--out", str(tmp_path / "other")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert gone.returncode == 2
    assert "there is no policy 'alphabet'; there are autogrow, " in " ".join(gone.stderr.split())
    assert "Traceback" not in gone.stderr


def test_where_it_is_not_installed_its_history_loads_unchecked(site: Path, tmp_path: Path) -> None:
    random_network(mlp()).save(tmp_path / "net")
    step = json.dumps({"pass": "reverse", "node": "fc1"})
    done = run(site, "-m", "growir", "rewrite", tmp_path / "net", "--pass", step, "-o", tmp_path / "reversed")
    assert done.returncode == 0, done.stderr
    with pytest.warns(UserWarning, match="the history is not checked: .* reverse"):
        growir.Network.load(tmp_path / "reversed")


ENTRIES = {
    "two passes are called 'widen': growir.passes.widen.Widen and other.Widen": (
        "class Widen(Pass):\n    name = 'widen'\n"
    ),
    "entry point 'other' of growir.passes is no growir.rewrite.Pass: other:Widen": "Widen = 3\n",
    "entry point 'other' of growir.passes cannot be loaded: other:Widen: No module named 'nowhere'": "import nowhere\n",
}


@pytest.mark.parametrize("says", ENTRIES)
def test_an_entry_that_does_not_fit_is_one_clear_error(says: str, tmp_path: Path) -> None:
    random_network(mlp()).save(tmp_path / "net")
    folder = tmp_path / "site"
    info = folder / "other-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[growir.passes]\nother = other:Widen\n", encoding="utf-8")
    (folder / "other.py").write_text("from growir.rewrite import Pass\n" + ENTRIES[says], encoding="utf-8")
    step = json.dumps({"pass": "reverse", "node": "fc1"})
    done = run(folder, "-m", "growir", "rewrite", tmp_path / "net", "--pass", step, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
