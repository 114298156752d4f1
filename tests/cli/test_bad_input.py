"""Whatever is wrong with what a user gives: one message that says where and what, exit code 2, no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from growir.errors import GraphError
from growir.network import load_graph
from tests.cli.command import GOLDEN, growir, process

BAD = sorted((GOLDEN / "bad").glob("*.json"))
GOOD = GOLDEN / "inspect" / "residual.json"


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_message(path: Path, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)  # messages name the file as it was given
    done = growir("validate", path.relative_to(GOLDEN))
    assert (done.code, done.out) == (2, "")
    golden(path.with_suffix(".txt"), done.err)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_message_in_python(path: Path) -> None:
    with pytest.raises(GraphError) as caught:
        load_graph(path)
    assert caught.value.problems
    assert caught.value.source == str(path)


def test_no_expected_text_is_left_over() -> None:
    texts = {path.stem for path in (GOLDEN / "bad").glob("*.txt")}
    assert texts == {path.stem for path in BAD}


READERS: list[list[object]] = [
    ["inspect"],
    ["validate"],
    ["validate", "--drop-history"],
    ["diff", GOOD],
    ["diff", GOOD, "--html", "never.html"],
    ["log"],
    ["render", "-o", "never.svg"],
    ["rewrite", "--pass", '{"pass": "eliminate_dead"}', "-o", "never.json"],
]


@pytest.mark.parametrize("command", READERS, ids=lambda command: " ".join(str(word) for word in command[:2]))
class TestUnreadable:
    """Paths that hold no graph."""

    def refused(self, command: list[object], path: object, *words: str) -> None:
        done = growir(*command, path)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("growir: error: ")
        assert done.err.count("\n") == 1
        for word in words:
            assert word in done.err
        assert not list(Path().glob("never.*"))

    def test_missing(self, command: list[object], tmp_path: Path) -> None:
        self.refused(command, tmp_path / "none.json", "none.json", "No such file")

    def test_folder(self, command: list[object], tmp_path: Path) -> None:
        self.refused(command, tmp_path, str(tmp_path))

    def test_folder_called_onnx(self, command: list[object], tmp_path: Path) -> None:
        (tmp_path / "net.onnx").mkdir()
        self.refused(command, tmp_path / "net.onnx", "net.onnx")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_forbidden(self, command: list[object], tmp_path: Path) -> None:
        path = tmp_path / "secret.json"
        path.touch(mode=0)
        self.refused(command, path, "secret.json", "Permission denied")

    def test_no_onnx(self, command: list[object], tmp_path: Path) -> None:
        path = tmp_path / "net.onnx"
        path.write_bytes(b"\xff" * 100)
        self.refused(command, path, "net.onnx", "no ONNX file")

    def test_below_a_file(self, command: list[object]) -> None:
        self.refused(command, GOOD / "graph.json", "Not a directory")


def test_terminal_escapes_in_a_path_are_shown_not_obeyed() -> None:
    done = growir("inspect", "\x1b]0;owned\x07[red]\u202eevil.json")
    assert done.code == 2
    assert "\x1b" not in done.err
    assert "\\x1b]0;owned\\x07[red]\\u202eevil.json" in done.err


def test_limit_is_raised_by_the_flag() -> None:
    path = GOLDEN / "bad" / "too_many_parameters.json"
    assert growir("validate", path).code == 2
    assert growir("validate", path, "--max-parameters", 10**11).code == 0


def test_limit_is_the_documents() -> None:
    from growir.cli.output import MAX_PARAMETERS
    from growir.verify import MAX_PARAMETERS as LIMIT

    assert MAX_PARAMETERS == LIMIT


@pytest.mark.parametrize("args", [["inspect"], ["inspect", "--bogus"], ["nonsense"], ["validate", "-o", "x", GOOD]])
def test_usage(args: list[object]) -> None:
    done = growir(*args)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: growir")


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("growir.inspecting.page", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        growir("inspect", GOOD)


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("growir.inspecting.page", interrupted)
    done = growir("inspect", GOOD)
    assert done.code == 130
    assert done.err == "growir: interrupted\n"


def test_closed_pipe_is_no_complaint(tmp_path: Path) -> None:
    nodes = [{"name": f"n{k}", "op": "relu", "inputs": [f"n{k - 1}" if k else "x"]} for k in range(5000)]
    document = {"schema": "growir/1", "inputs": [{"name": "x", "shape": ["N", 2]}], "nodes": nodes, "outputs": ["n0"]}
    path = tmp_path / "long.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    command = [sys.executable, "-m", "growir", "inspect", "--all", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline().startswith("graph ")
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 128 + signal.SIGPIPE


def test_ascii_terminal() -> None:
    path = GOLDEN / "bad" / "long_name.json"
    code = "sys.stderr.reconfigure(encoding='ascii'); main()"
    done = process("validate", path, code=code)
    assert done.code == 2
    assert "aaa\\u2026" in done.err
