"""Text that fits a number of columns: paragraphs, lines that are folded, and tables."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

LINE = 80  # columns that what growir prints fits, unless a terminal is wider
NARROW = 12  # columns that a cell keeps at least
_HANGING = "    "  # before what is left of a line that was folded, or stands below a row

Cells = tuple[str, ...]


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: most characters one, wide ones two, marks that combine none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph in lines of at most LINE columns, broken between words; `indent` stands before each but the first."""
    return textwrap.fill(text, LINE, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def listed(items: Iterable[str], width: int = LINE) -> str:
    """Items with commas between, in lines that are broken between them alone."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 3 <= width:
            lines[-1] += f", {item}"
            continue
        if lines:
            lines[-1] += ","
        lines.append(item)
    return "\n".join(lines)


def folded(text: str, width: int = LINE) -> str:
    """The same lines, those that are too long in several, each but the first of them further in."""
    return "\n".join(part for line in text.split("\n") for part in _folded_line(line, width))


def _folded_line(line: str, width: int) -> list[str]:
    if columns_of(line) <= width:
        return [line]
    inner = line.lstrip(" ")
    margin = line[: min(len(line) - len(inner), width // 2)]
    room = width - len(margin)
    first = fold(inner, room)[0]
    rest = inner[len(first) :].lstrip(" ")
    hanging = margin + (_HANGING if margin else "  ")
    return [margin + first, *(hanging + part for part in fold(rest, width - len(hanging)))]


def fold(text: str, width: int) -> list[str]:
    """A text in pieces of at most so many columns: broken at blanks, long words after punctuation, or anywhere."""
    pieces: list[str] = []
    while columns_of(text) > width:
        at = _break(text, width)
        pieces.append(text[:at].rstrip(" "))
        text = text[at:].lstrip(" ")
    return [*pieces, text]


def _break(text: str, width: int) -> int:
    """How much of a text that is too long goes on the first line."""
    end = len(text)
    while columns_of(text[:end]) > width:
        end -= max(1, (columns_of(text[:end]) - width) // 2)  # no character is wider than two columns
    blanks = [found.start() for found in re.finditer(" +", text[: end + 1]) if found.start() > 0]
    # After punctuation, or where columns were set apart, rather than anywhere; and rather not within "16 -> 20".
    early = width // 2
    clauses = [k for k in blanks if k >= early and (text[k - 1] in ",;:" or text[k : k + 2] == "  ")]
    apart = [k for k in blanks if k >= early and not text[k:].startswith(" ->") and not text[:k].endswith("->")]
    for found in (clauses, apart, blanks):
        if found:
            return found[-1]
    inside = [found.end() for found in re.finditer(r"[._/,-]+", text[:end])]
    return inside[-1] if inside else max(1, end)


# -- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grid:
    """A table for people.

    Attributes:
        headers: Of the columns.
        rows: Of cells, one for each column.
        numeric: The headers of columns that are aligned at the right.
        below: Headers of columns that may stand on lines of their own under each row where the table is too wide, each
            with the words before it there; those that are best moved come first.
    """

    headers: Cells
    rows: tuple[Cells, ...]
    numeric: frozenset[str] = frozenset()
    below: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int = LINE, rule: str = "") -> str:
        """The table in lines of at most so many columns; `rule` is the character of a line under the headers."""
        return "\n".join(_lines(self, width, rule))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which columns stand side by side, how wide, with how many blanks between; and which stand below."""

    shown: list[int]
    widths: list[int]
    gap: int
    below: list[int]

    @property
    def total(self) -> int:
        return sum(self.widths) + self.gap * (len(self.widths) - 1)


def _lines(grid: Grid, width: int, rule: str) -> Iterator[str]:
    table = (grid.headers, *grid.rows)
    natural = [max(map(columns_of, column)) for column in zip(*table, strict=True)]
    every = list(range(len(natural)))
    for gap in (3, 2) if rule else (2,):
        layout = _Layout(every, natural, gap, [])
        if layout.total <= width:
            yield from _drawn(grid, layout, width, rule)
            return
    body = [max(map(columns_of, column)) for column in zip(*grid.rows, strict=True)] if grid.rows else [0] * len(every)
    least = [max([b, *map(columns_of, h.split())]) for b, h in zip(body, grid.headers, strict=True)]
    movable = [grid.headers.index(header) for header, _ in grid.below]
    layout = _Layout(every, least, 2, [])
    for moved in (list(some) for count in range(len(movable) + 1) for some in combinations(movable, count)):
        shown = [k for k in every if k not in moved]
        layout = _Layout(shown, [least[k] for k in shown], 2, sorted(moved))
        if layout.total <= width:
            yield from _drawn(grid, _loosened(layout, natural, width), width, rule)
            return
    texts = [grid.headers[k] not in grid.numeric for k in layout.shown]
    for k, narrow in enumerate(_narrowed(layout, texts, width)):
        if k:
            yield ""
        yield from _drawn(grid, narrow, width, rule)


def _loosened(layout: _Layout, natural: Sequence[int], width: int) -> _Layout:
    """The same with headers on one line where there is room for it."""
    widths, room = list(layout.widths), width - layout.total
    for place, k in enumerate(layout.shown):
        more = natural[k] - widths[place]
        if more <= room:
            widths[place], room = natural[k], room - more
    return _Layout(layout.shown, widths, layout.gap, layout.below)


def _narrowed(layout: _Layout, texts: Sequence[bool], width: int) -> Iterator[_Layout]:
    """The same with narrower columns, of texts first; where that is not enough, several, the first column in each."""
    for may in (texts, [True] * len(texts)):
        least = [min(w, NARROW) if m else w for w, m in zip(layout.widths, may, strict=True)]
        for level in range(max(NARROW, *layout.widths), NARROW - 1, -1):
            widths = [max(min(w, level), low) for w, low in zip(layout.widths, least, strict=True)]
            found = _Layout(layout.shown, widths, layout.gap, layout.below)
            if found.total <= width:
                yield found
                return
    least = [min(w, NARROW) for w in layout.widths]
    rest, below = list(range(1, len(least))), layout.below
    while rest:
        taken, room = [0], width - least[0]
        while rest and (len(taken) == 1 or least[rest[0]] + layout.gap <= room):
            room -= least[rest[0]] + layout.gap
            taken.append(rest.pop(0))
        yield _Layout([layout.shown[k] for k in taken], [least[k] for k in taken], layout.gap, below)
        below = []


def _drawn(grid: Grid, layout: _Layout, width: int, rule: str) -> Iterator[str]:
    right = [grid.headers[k] in grid.numeric for k in layout.shown]

    def row(cells: Cells) -> Iterator[str]:
        columns = [fold(cells[k], size) for k, size in zip(layout.shown, layout.widths, strict=True)]
        for place in range(max(map(len, columns))):
            parts: list[str] = []
            for found, size, at_right in zip(columns, layout.widths, right, strict=True):
                text = found[place] if place < len(found) else ""
                blank = " " * (size - columns_of(text))
                parts.append(blank + text if at_right else text + blank)
            yield (" " * layout.gap).join(parts).rstrip()

    before = {grid.headers.index(header): words for header, words in grid.below}
    yield from row(grid.headers)
    if rule:
        yield rule * layout.total
    for cells in grid.rows:
        yield from row(cells)
        under = "  ".join(f"{before[k]}{cells[k]}" for k in layout.below if cells[k])
        if under:
            yield from (_HANGING + part for part in fold(under, width - len(_HANGING)))
