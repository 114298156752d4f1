"""docs/cli.md: every command and option is in it, and its recipe for git works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from growir.document import dumps
from growir.network import load_graph
from growir.passes import Widen
from tests.cli.command import GOLDEN
from tests.test_readme import ROOT, blocks, subcommands

TEXT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
RESIDUAL = GOLDEN / "inspect" / "residual.json"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One in which `growir` and `python` are this interpreter's, and git knows nobody's settings."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, call in (("growir", "-m growir"), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n', encoding="utf-8")
        (tools / name).chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    ours = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat"}
    people = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    return {**kept, **ours, **people, "PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT), ""])}


def test_every_command_and_option_is_described() -> None:
    sections = dict(re.findall(r"^## growir (\w+)\n(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL))
    for name, command in subcommands().items():
        assert name in sections
        for parameter in command.params:
            long = [option for option in parameter.opts if option.startswith("--")]
            where = TEXT if long in (["--help"], ["--max-parameters"]) else sections[name]
            short = [option for option in parameter.opts if re.search(rf"(?<![\w-]){option}\b", where)]
            assert short or not long, f"growir {name} {long[0]} is not in docs/cli.md"


class Repository:
    """A git repository that follows the recipe."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        folder.mkdir()
        self.git("init", "--quiet")
        (settings,) = blocks("git-config", TEXT)
        self.run(settings)
        (attributes,) = blocks("gitattributes", TEXT)
        (folder / ".gitattributes").write_text(attributes, encoding="utf-8")

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", script], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def git(self, *args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")


def test_git_speaks_of_widths(environment: dict[str, str], tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repository", environment)
    path = repository.folder / "graph.json"
    path.write_text(RESIDUAL.read_text(encoding="utf-8"), encoding="utf-8")
    repository.git("add", "graph.json")
    assert repository.git("diff", "--cached").startswith("residual  growir/1  ")
    repository.commit()
    assert repository.git("diff") == ""
    path.write_text(dumps(Widen(node="stem", by=4).rewrite(load_graph(RESIDUAL)).graph), encoding="utf-8")
    shown = repository.git("diff")
    assert "  ~ stem  out_channels 16 -> 20 (+4)" in shown.splitlines()
    assert '"nodes"' not in shown
    line_by_line = repository.git("diff", "--no-ext-diff")
    assert re.search(r"^\+stem +conv2d .*\n\+ +out_channels=20 .*  <- image", line_by_line, flags=re.MULTILINE)
    repository.commit()
    assert re.search(
        r"^-stem +conv2d .*\n- +out_channels=16 .*  <- image", repository.git("log", "-p", "-1"), flags=re.MULTILINE
    )
    path.unlink()
    assert repository.git("diff").startswith("residual  growir/1  ")
