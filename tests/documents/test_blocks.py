"""Every code block of README, CONTRIBUTING and docs runs as printed, where no more is installed than a reader has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from growir.cellsearch.config import parse_search
from growir.continual.config import parse_sequence
from growir.growth.config import parse_run
from growir.network import load_graph
from growir.passes import pass_from_data
from tests.documents.installed import distributions, hidden, site
from tests.documents.pages import PAGES, ROOT, Block, Page, page, read_page

RUNS = {"python": "python", "sh": "shell"}
READ = ("toml", "json")
SHOWN = ("text", "gitattributes", "git-config")  # the last two are followed in tests/cli/test_documents.py
EVERY = [(name, block) for name in PAGES for block in page(name).blocks]


def steps(of: Page) -> list[dict[str, Any]]:
    """What is to be run of a page, in order."""
    found: list[dict[str, Any]] = []
    for block in of.blocks:
        found += [{"kind": "shell", "code": code, "line": block.line} for code in block.before]
        if block.not_run is not None:
            continue
        if block.file is not None:
            found.append({"kind": "file", "code": block.code, "line": block.line, "name": block.file})
        elif block.language in RUNS:
            found.append({"kind": RUNS[block.language], "code": block.code, "line": block.line})
    return found


def run_page(of: Page, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page's blocks in an empty folder, `growir` and `python` being this interpreter's."""
    tools, work = folder / "tools", folder / "work"
    tools.mkdir()
    work.mkdir()
    for name, call in (("growir", "-m growir"), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n', encoding="utf-8")
        (tools / name).chmod(0o755)
    (tools / "sitecustomize.py").write_text(site(("demo", *of.extras)), encoding="utf-8")
    plan = {
        "page": str(PAGES.get(of.name, of.name)),
        "steps": steps(of),
        "alone": of.alone,
        "tests": "test" in of.extras,
    }
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    first = {
        name: os.pathsep.join([str(tools), *filter(None, [os.environ.get(name)])]) for name in ("PATH", "PYTHONPATH")
    }
    environment = {**os.environ, **first, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "documents" / "running.py"), str(folder / "plan.json")],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


# Pages of many commands, each a process of its own, whose commands have tests in tests/cli and tests/growth too.
LONG = {"docs/cli.md", "docs/estimators.md", "docs/policies.md", "docs/tables.md", "docs/testing.md"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in PAGES if steps(page(name))],
)
def test_a_page_runs_as_printed(name: str, tmp_path: Path) -> None:
    done = run_page(page(name), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_block_is_run_or_read_or_said_not_to_be() -> None:
    for name, block in EVERY:
        where = f"{name}:{block.line}"
        assert block.language in (*RUNS, *READ, *SHOWN), f"{where}: say what the block is, ```text for instance"
        assert block.not_run is None or block.language in RUNS, f"{where}: it would not be run anyhow"


def test_what_is_not_run_and_what_is_run_unseen(golden: Callable[[Path, str], None]) -> None:
    lines: list[str] = []
    for name, block in EVERY:
        lines += [f"{name}: run before it: {code}" for code in block.before]
        if block.not_run is not None:
            lines.append(f"{name}: not run, {block.not_run}: {block.code.strip()}")
    golden(ROOT / "tests" / "golden" / "blocks.txt", "\n\n".join(lines) + "\n")


def read(block: Block) -> None:
    """Read a block as what it shows: a run file, the file of a package, a document, a pass."""
    if block.language == "toml":
        data = tomllib.loads(block.code)
        if "tasks" in data:
            parse_sequence(data, block.file or "run.toml")
        elif "cells" in data:
            parse_search(data, block.file or "run.toml")
        elif "project" not in data:
            parse_run(data, block.file or "run.toml")
        return
    found = json.loads(block.code)
    if "schema" in found:
        load_graph(found)
    elif "pass" in found:
        pass_from_data(found)


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=f"{name}:{block.line}") for name, block in EVERY if block.language in READ]
)
def test_what_is_no_program_is_what_it_says(block: Block) -> None:
    read(block)


def test_only_developers_have_what_the_other_extras_bring() -> None:
    assert {"hypothesis", "pytest", "mypy"} <= set(hidden(("demo",)))
    assert not {"hypothesis", "pytest"} & set(hidden(("demo", "test")))
    assert not {"torch", "numpy", "pydantic", "sklearn", "scipy", "growir", "pip"} & set(hidden(("demo",)))
    assert "scikit-learn" not in distributions("growir")


BROKEN = {
    "a wrong line": (
        "```python\nx = 1\n```\n\n```python\n\nprint(x / 0)\n```\n",
        'page.md", line 7',
        "ZeroDivisionError",
    ),
    "a failing command": ("```sh\ntrue\nfalse\necho later\n```\n", "page.md:2", "exit code 1"),
    "a package of developers": ("```python\nimport hypothesis\n```\n", "line 2", "No module named 'hypothesis'"),
    "in a command too": ("```sh\npython -c 'import pytest'\n```\n", "page.md:2", "No module named 'pytest'"),
    "a name of the block before": (
        "<!-- alone: each -->\n```python\nx = 1\n```\n```python\nx\n```\n",
        "line 6",
        "name 'x' is not defined",
    ),
    "a test": ("<!-- extra: test -->\n```python\ndef test_it():\n    assert 0\n```\n", "line 4", "AssertionError"),
    "an example that is no file": ("<!-- file: a/b -->\n```text\nx\n```\n", "No such file", "a/b"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_page_is_noticed(name: str, tmp_path: Path) -> None:
    text, *says = BROKEN[name]
    done = run_page(read_page("page.md", text), tmp_path)
    assert done.returncode == 1
    for said in says:
        assert said in done.stderr


def test_marks_are_read() -> None:
    text = (
        "<!-- not run: far, away -->\n```sh\nmake\n```\n\n<!-- run: a -->\n\n<!-- run:\nb\nc\n-->\n"
        "  ```python\n  x\n    y\n  ```\n<!-- file: f -->\n\nwords\n\n```text\nz\n```\n"
    )
    first, second, third = read_page("p", text).blocks
    assert (first.not_run, first.code, first.line) == ("far, away", "make\n", 3)
    assert (second.before, second.code, second.language) == (("a", "b\nc"), "x\n  y\n", "python")
    assert (third.file, third.before) == (None, ())


def test_marks_in_a_block_are_shown_and_not_followed() -> None:
    found = read_page("p", "```text\n<!-- alone: x -->\n<!-- extra: dev -->\n```\n\n<!-- extra: test -->\n")
    assert (found.alone, found.extras) == (False, ("test",))
