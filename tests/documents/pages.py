"""The fenced blocks of a page, with the marks above them that only the source of the page shows.

A mark is an HTML comment. Above a block, with nothing but other marks between:

    <!-- not run: it takes an hour -->      the block is not run, for that reason
    <!-- file: run.toml -->                 the block is what this file holds
    <!-- run: growir grow digits -->        this is run before the block: what the reader of the page has done or has

and anywhere on a page, of all of it:

    <!-- extra: test -->                    the page says that this extra of the package is installed
    <!-- alone: each block is a program -->
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
_MARK = r"<!-- (not run|file|run|extra|alone):\s(.*?)\s*-->"
_BLOCK = re.compile(
    r"^(?P<marks>(?:<!-- (?:(?!-->).)*-->\s*)*)^(?P<indent> *)```(?P<language>\S*)\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        line: Of its first line of code, counted from 1.
        before: Shell commands to run before it.
        file: The file that it is the contents of, if a mark says so.
        not_run: Why it is not run; None if it is.
    """

    language: str
    code: str
    line: int
    before: tuple[str, ...] = ()
    file: str | None = None
    not_run: str | None = None


@dataclass(frozen=True)
class Page:
    """The blocks of a page, the extras it needs, and whether each of its blocks is a program of its own."""

    name: str
    blocks: tuple[Block, ...]
    extras: tuple[str, ...]
    alone: bool


def read_page(name: str, text: str) -> Page:
    """A page's blocks and marks."""
    marks = _marks(_BLOCK.sub(lambda block: block["marks"], text))
    return Page(name, tuple(_blocks(text)), tuple(marks.get("extra", ())), "alone" in marks)


@cache
def page(name: str) -> Page:
    """A page of this repository."""
    return read_page(name, PAGES[name].read_text(encoding="utf-8"))


def _marks(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, said in re.findall(_MARK, text, re.DOTALL):
        found.setdefault(kind, []).append(said.strip())
    return found


def _blocks(text: str) -> list[Block]:
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        marks = _marks(match["marks"])
        found.append(
            Block(
                match["language"],
                textwrap.dedent(match["code"]),
                1 + text.count("\n", 0, match.start("code")),
                tuple(marks.get("run", ())),
                next(iter(marks.get("file", ())), None),
                next(iter(marks.get("not run", ())), None),
            )
        )
    return found
