"""What the documents say is so: commands exist, the run file is complete, tests that are named are there."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from growir.cli.app import app
from growir.growth.config import RunConfig, parse_run

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DECIMAL = re.compile(r"[0-9]+\.[0-9]+")
BY_DATA = {
    "run": {"threads"},
    "data": {"path", "target", "separator", "test", "variance"},
    "policy": {"neurons", "ridge", "significance"},
    "schedule": {"trials", "lengths"},
}
# What other pages tell: docs/training.md, docs/policies.md and docs/cli.md.
ELSEWHERE = {
    "run": {"network", "objective", "optimizer"},
    "schedule": {"fit", "epochs", "first", "growths"},
    "train": {"rate", "clip", "amp", "accumulate", "stopping", "device", "checkpoint", "recalibrate", "weights_final"},
    "budget": {"per_growth"},
}
BY_DATA["budget"] = {"parameters", "macs", "seconds"}
BY_DATA["train"] = {"batch_size", "epochs_between", "epochs_trial", "epochs_final", "keep_final", "fresh"}


def blocks(language: str, text: str = README) -> list[str]:
    """The contents of all fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str = README) -> list[list[str]]:
    """Every command line of the shell blocks, split into words."""
    lines = (line for block in blocks("sh", text) for line in block.splitlines())
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def subcommands() -> Mapping[str, Any]:
    """The commands of `growir` by name."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group.commands


def test_the_first_example_is_short() -> None:
    assert len(blocks("python")[0].strip().splitlines()) <= 25


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_ones_the_command_line_has(path: Path) -> None:
    known = subcommands()
    for words in commands(path.read_text(encoding="utf-8")):
        if words[0] == "growir":
            assert words[1] in known, words
            options = {option for parameter in known[words[1]].params for option in parameter.opts}
            assert {word for word in words[2:] if word.startswith("-")} <= options, words


def test_every_command_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `growir ([a-z]+)", README, flags=re.MULTILINE)) == set(subcommands())


def test_the_test_command_is_the_one_that_is_checked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    stand_in = tmp_path / "make"
    stand_in.write_text(f'#!/bin/sh\necho "make $*" >> {shlex.quote(str(log))}\n', encoding="utf-8")
    stand_in.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", str(ROOT / ".ci" / "run")], env={**os.environ, "PATH": path}, check=True)
    called = log.read_text(encoding="utf-8").splitlines()
    given = [" ".join(words) for words in commands() if words[0] == "make" and "test" in words[1]]
    assert len(given) == 1
    assert given[0] == called[0]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE)
    text = path.read_text(encoding="utf-8")
    named = {*re.findall(r"`make ([a-z-]+)", text), *(words[1] for words in commands(text) if words[0] == "make")}
    assert named <= set(targets)


def test_the_run_file_is_read_and_complete() -> None:
    (text,) = blocks("toml")
    data = tomllib.loads(text)
    config = parse_run(data, "README.md")
    defaults = RunConfig()
    sections = {name: data.pop(name) for name in [*data] if isinstance(data[name], dict)}
    for name, given in {"run": data, **sections}.items():
        model = config if name == "run" else getattr(config, name)
        base = defaults if name == "run" else getattr(defaults, name)
        keys = {key for key in type(model).model_fields if key not in sections} - ELSEWHERE.get(name, set())
        assert set(given) == keys, f"[{name}]"
        for key in keys - BY_DATA[name]:
            assert getattr(model, key) == getattr(base, key), f"[{name}] {key} is shown with another default"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_tests_and_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name, test in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?", text):
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not test or test in names, f"{name} has no {test}"
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="the digits come with scikit-learn")
def test_the_output_of_the_first_command_is_what_it_prints(tmp_path: Path) -> None:
    (shown,) = [block for block in blocks("text") if block.startswith("digits: ")]
    run = [sys.executable, "-m", "growir", "grow", "digits"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    found, wanted = _untimed(done.stdout), _untimed(shown)
    assert [DECIMAL.sub("#", line) for line in found] == [DECIMAL.sub("#", line) for line in wanted]
    # Other processors sum in another order, so that last digits differ.
    for line, right in zip(found, wanted, strict=True):
        numbers, expected = ([float(x) for x in DECIMAL.findall(each)] for each in (line, right))
        assert numbers == pytest.approx(expected, rel=0.02, abs=2e-3), line


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="the digits come with scikit-learn")
def test_the_picture_is_what_growir_draws(tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    (drawn,) = re.findall(r"^<!-- picture:\n(.*?)^-->$", README, flags=re.MULTILINE | re.DOTALL)
    for words in map(shlex.split, drawn.splitlines()):
        assert words[0] == "growir"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = [sys.executable, "-m", *words]
        subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, check=True)
    golden(ROOT / "docs" / "pictures" / "digits.svg", (tmp_path / "digits.svg").read_text(encoding="utf-8"))


def _untimed(text: str) -> list[str]:
    """Lines without the two times in seconds, the only words that differ between runs of one seed."""
    return [re.sub(r"│ [0-9.]+, [0-9.]+ of them growing +│", "", line.rstrip()) for line in text.splitlines()]
