"""Text that fits a number of columns: nothing is lost by folding, and no line is too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from growir.columns import LINE, NARROW, Grid, columns_of, fold, folded, listed, wrapped

WORDS = st.text("ab.,_-/> 0漢é", max_size=200)
WIDTHS = st.integers(2, 100)


def bare(text: str) -> str:
    return "".join(text.split())


@given(WORDS, WIDTHS)
def test_folding_loses_nothing(text: str, width: int) -> None:
    pieces = fold(text, width)
    assert all(columns_of(piece) <= width for piece in pieces)
    assert bare("".join(pieces)) == bare(text)


@given(st.lists(WORDS, max_size=5), st.integers(20, 100))
def test_folded_lines_fit(lines: list[str], width: int) -> None:
    text = "\n".join(lines)
    found = folded(text, width)
    assert all(columns_of(line) <= width for line in found.split("\n"))
    assert bare(found) == bare(text)
    assert folded(found, width) == found


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("one two three", ["one two", "three"]),
        ("a, b, cc dd", ["a, b,", "cc dd"]),  # after a comma, where the line is half full
        ("16 -> 20 or", ["16 -> 20", "or"]),
        ("16 ->  20000", ["16 ->", "20000"]),
        ("model.layers.fc1", ["model.", "layers.", "fc1"]),  # at a point, where a word is too long
        ("abcdefghijkl", ["abcdefghi", "jkl"]),
        ("漢字漢字漢字", ["漢字漢字", "漢字"]),
        ("", [""]),
    ],
)
def test_where_lines_are_broken(text: str, pieces: list[str]) -> None:
    assert fold(text, 9) == pieces


def test_a_continued_line_stands_further_in() -> None:
    assert folded("  a list of words", 12) == "  a list of\n      words"
    assert folded("  a list of words of one width", 12) == "  a list of\n      words\n      of one\n      width"
    assert folded("a list of words", 12) == "a list of\n  words"
    assert folded("short\n\n  lines", 12) == "short\n\n  lines"


def test_items_stay_whole() -> None:
    assert listed(["e one edge", "n a node", "* both"], 24) == "e one edge, n a node,\n* both"


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("漢字", 4), ("e\u0301", 1), ("é", 1), ("", 0)])
def test_columns(text: str, columns: int) -> None:
    assert columns_of(text) == columns


def test_paragraphs() -> None:
    assert max(map(len, wrapped("word " * 50).splitlines())) <= LINE


CELLS = st.one_of(WORDS, st.text("0123456789,", max_size=400), st.just(""))


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    count = draw(st.integers(1, 12))
    headers = tuple(f"{k} {draw(st.text('ab ', max_size=20))}" for k in range(count))
    rows = draw(st.lists(st.tuples(*[CELLS] * count), max_size=4))
    numeric = draw(st.frozensets(st.sampled_from(headers)))
    movable: list[str] = draw(st.lists(st.sampled_from(headers[1:]), unique=True, max_size=3)) if count > 1 else []
    return Grid(headers, tuple(rows), numeric, tuple((header, "<- ") for header in movable))


@given(grids(), st.integers(2 * NARROW + 2, 130), st.sampled_from(["", "-"]))
def test_a_table_fits_and_shows_every_cell(grid: Grid, width: int, rule: str) -> None:
    text = grid.text(width, rule)
    assert all(columns_of(line) <= width for line in text.split("\n"))
    letters = sorted(bare(text).replace("<-", "").replace("-", ""))
    for row in grid.rows:
        for cell in row:
            for letter in bare(cell).replace("<-", "").replace("-", ""):
                letters.remove(letter)


def test_a_table_that_fits_is_left_alone() -> None:
    grid = Grid(("name", "count"), (("a", "1"), ("long name", "1,000")), frozenset({"count"}), below=(("name", ""),))
    assert str(grid) == "name       count\na              1\nlong name  1,000"
    assert grid.text(rule="-").splitlines()[:2] == ["name        count", "-----------------"]


def test_what_a_table_does_where_it_is_too_wide() -> None:
    headers, rows = ("name", "what it has", "size of it"), (("a", "x" * 8, "1"), ("b", "", "2"))
    grid = Grid(headers, rows, frozenset({"size of it"}))
    assert grid.text(28).splitlines() == [
        "name  what it has  size",
        "                     of",
        "                     it",
        "a     xxxxxxxx        1",
        "b                     2",
    ]
    moved = Grid(headers, rows, grid.numeric, below=(("what it has", "has "),)).text(16)
    assert moved.splitlines() == ["name  size of it", "a              1", "    has xxxxxxxx", "b              2"]
    parts = Grid(("key", "a" * 10, "b" * 10), (("1", "2", "3"),)).text(20)
    assert parts.splitlines() == ["key  aaaaaaaaaa", "1    2", "", "key  bbbbbbbbbb", "1    3"]
