"""`growir render` and `growir diff --html`: the files they write, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from growir.cells import Template, genotype, network
from growir.document import dumps
from growir.network import Network, load_graph
from growir.passes import AddNode, Discretise, Widen
from tests.cli.command import GOLDEN, flat, growir

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


CELLS = network(genotype("DARTS_V2"), (3, 16, 16), 10, cells=3, width=4)
TEXT = str(genotype("SNAS"))


def labels(svg: Path) -> list[str]:
    return re.findall(r'<text class="operation"[^>]*>([^<]*)<', svg.read_text(encoding="utf-8"))


def test_cells_of_a_graph_and_of_its_genotype(tmp_path: Path) -> None:
    document, folder, listed = tmp_path / "net.json", tmp_path / "net", tmp_path / "found.py"
    document.write_text(dumps(CELLS), encoding="utf-8")
    unnamed = tmp_path / "document"
    unnamed.write_text(dumps(CELLS), encoding="utf-8")
    Network.init(CELLS).save(folder)
    listed.write_text(f"A = {genotype('DARTS_V2')}\nB = {TEXT}\n", encoding="utf-8")
    found: list[list[str]] = []
    for k, source in enumerate((document, unnamed, folder, "DARTS_V2", f"{listed}:A")):
        out = tmp_path / f"{k}.svg"
        done = growir("render", source, "--cell", "-o", out)
        assert (done.code, done.out, done.err) == (0, f"wrote {out}\n", "")
        found.append(sorted(labels(out)))
    assert all(each == found[0] for each in found)
    assert len(found[0]) == 16
    assert ">normal: 0<" in (tmp_path / "0.svg").read_text(encoding="utf-8")
    assert ">reduce: 1, 2<" in (tmp_path / "2.svg").read_text(encoding="utf-8")
    # Both replace what growir wrote.
    assert growir("render", TEXT, "--cell", "-o", tmp_path / "0.svg").code == 0
    assert growir("render", f"{listed}:B", "--cell", "-o", tmp_path / "1.svg").code == 0
    assert labels(tmp_path / "0.svg") == labels(tmp_path / "1.svg")


def test_cells_that_are_searched_and_discretised(tmp_path: Path) -> None:
    graph = network(Template(nodes=2), (3, 16, 16), 10, cells=3, width=4)
    graph = Widen(node="reduce.1.edge_0_2.sep_conv_3x3.pointwise1", by=3).rewrite(graph).graph
    source, out = tmp_path / "net.json", tmp_path / "cell.svg"
    for each, words in ((graph, {"sep_conv_3x3 5.5", "skip_connect"}), (Discretise().rewrite(graph).graph, set[str]())):
        source.write_text(dumps(each), encoding="utf-8")
        assert growir("render", source, "--cell", "-o", out).code == 0
        assert words <= set(labels(out))
    assert len(labels(out)) == 8
    assert not any(" " in label for label in labels(out))


def test_a_file_goes_before_the_genotype_that_is_called_like_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("DARTS_V2").write_text(TEXT, encoding="utf-8")
    for source in ("DARTS_V2", "SNAS"):
        assert growir("render", source, "--cell", "-o", f"{source}.svg").code == 0
    assert labels(Path("DARTS_V2.svg")) == labels(Path("SNAS.svg"))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (RESIDUAL, f"{RESIDUAL}: there are no cells to draw: none of its 10 nodes is a cell's"),
        ("DARTS_V3", "there is no genotype 'DARTS_V3'; one is a published name, .* Did you mean 'DARTS_V1'"),
        ("Genotype(normal=[])", "reduce: a genotype has normal, normal_concat, reduce, reduce_concat"),
        ("Genotype(", "this is no genotype as DARTS writes it"),
        ("no.json", "no.json: cannot be read"),
        ("no.py", "no.py: there is no genotype here"),
        ("no@1", "there is no genotype 'no@1'"),
        ("empty", "no network in this folder"),
        ("text.txt", "text.txt: this is no genotype as DARTS writes it"),
        ("brace.txt", "brace.txt: "),
        ("bytes", "bytes: this is no text, so no genotype"),
        ("x" * 5000, "there is no genotype 'xxx"),
    ],
)
def test_cells_refused(source: object, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text.txt").write_text("what is this", encoding="utf-8")
    Path("brace.txt").write_text('{"schema": 1}', encoding="utf-8")
    Path("bytes").write_bytes(b"\xff\xfe\x00")
    done = growir("render", source, "--cell", "-o", "cell.svg")
    assert (done.code, done.out) == (2, "")
    assert re.search(words, flat(done.err)), done.err
    assert not Path("cell.svg").exists()


@pytest.mark.parametrize("more", [["--scores"], ["--boxes", 5], ["--growth", 1], ["--scores", "--growth", 1]])
def test_cells_go_with_nothing_else(more: list[object], tmp_path: Path) -> None:
    done = growir("render", "DARTS_V2", "--cell", "-o", tmp_path / "cell.svg", *more)
    assert (done.code, done.out) == (2, "")
    assert "--cell draws cells alone, so it takes none of --scores, --growth and --boxes" in flat(done.err)


def test_where_cells_are_written(tmp_path: Path) -> None:
    mine = tmp_path / "mine.svg"
    mine.write_text("<svg/>", encoding="utf-8")
    for out, word in (
        (tmp_path / "cell.html", "cells are drawn as .svg; give a name that ends so"),
        (tmp_path / "cell.png", "cells are drawn as .svg; give a name that ends so"),
        (mine, "was not written by growir"),
    ):
        done = growir("render", "DARTS_V2", "--cell", "-o", out)
        assert (done.code, done.out) == (2, "")
        assert word in flat(done.err)
    assert mine.read_text(encoding="utf-8") == "<svg/>"
