"""`growir render` and `growir diff --html`: the files they write, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from growir.document import dumps
from growir.network import load_graph
from growir.passes import AddNode, Widen
from tests.cli.command import GOLDEN, growir

RESIDUAL = GOLDEN / "inspect" / "residual.json"


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    graph = AddNode(source="again", target="head", width=2).rewrite(load_graph(RESIDUAL)).graph
    graph = Widen(node="stem", by=4).rewrite(graph).graph
    path = tmp_path / "grown.json"
    path.write_text(dumps(graph), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["net.svg", "net.html", "NET.SVG"])
def test_written_and_replaced(name: str, grown: Path, tmp_path: Path) -> None:
    out = tmp_path / name
    texts: list[str] = []
    for path in (grown, RESIDUAL, grown):
        done = growir("render", path, "-o", out)
        assert (done.code, done.out, done.err) == (0, f"wrote {out}\n", "")
        texts.append(out.read_text(encoding="utf-8"))
    assert texts[0] == texts[2] != texts[1]
    assert "new in step 1: add_node" in texts[0]


def test_fewer_boxes(tmp_path: Path) -> None:
    out = tmp_path / "net.svg"
    assert growir("render", RESIDUAL, "-o", out, "--boxes", 3).code == 0
    assert out.read_text(encoding="utf-8").count("<rect") == 3
    assert growir("render", RESIDUAL, "-o", out, "--boxes", 1).code == 2


def test_the_page_holds_the_history(grown: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.html"
    assert growir("render", grown, "-o", out).code == 0
    text = out.read_text(encoding="utf-8")
    assert re.findall(r"<li>(\w+)", text) == ["add_node", "widen"]


def test_refused(grown: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.svg"
    mine.write_text("<svg/>", encoding="utf-8")
    for out, word in (
        (mine, "was not written by growir"),
        (tmp_path / "net.png", ".svg"),
        (tmp_path / "no" / "n.svg", "no"),
    ):
        done = growir("render", grown, "-o", out)
        assert (done.code, done.out) == (2, "")
        assert word in done.err
    assert mine.read_text(encoding="utf-8") == "<svg/>"
    assert growir("render", mine, "-o", tmp_path / "net.svg").code == 2
    assert not (tmp_path / "net.svg").exists()


def test_difference(grown: Path, tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    out = tmp_path / "diff.html"
    done = growir("diff", RESIDUAL, grown, "--html", out)
    assert (done.code, done.err) == (1, "")
    assert done.out == growir("diff", RESIDUAL, grown).out
    text = out.read_text(encoding="utf-8")
    golden(GOLDEN / "diff.html", text)
    assert text.count("<svg ") == 2
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    before, after = text.split("<svg ")[1:]
    assert before.count("marked changed") == after.count("marked changed") > 3
    assert (before.count("marked added"), after.count("marked added")) == (0, 4)
    assert not re.search(r"(?<!xmlns=\")https?:|src=|href=|<script", text)
    again = growir("diff", grown, RESIDUAL, "--html", out)
    assert again.code == 1
    assert out.read_text(encoding="utf-8").count("marked removed") == 4


def test_no_difference(tmp_path: Path) -> None:
    out = tmp_path / "diff.html"
    assert growir("diff", RESIDUAL, RESIDUAL, "--html", out).code == 0
    assert "no difference" in out.read_text(encoding="utf-8")
    mine = tmp_path / "mine.html"
    mine.write_text("mine", encoding="utf-8")
    done = growir("diff", RESIDUAL, RESIDUAL, "--html", mine)
    assert (done.code, done.out) == (2, "")
