"""How commands read their arguments and write their results."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from growir.columns import Grid

PATH_HELP = "A graph document, a network or run directory, an .onnx file that growir wrote, or MASTER@TASK."

GraphPath = Annotated[Path, typer.Argument(metavar="PATH", help=PATH_HELP, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MaxParameters = Annotated[
    int, typer.Option("--max-parameters", metavar="N", min=1, help="Refuse documents with more parameters.")
]
# verify.MAX_PARAMETERS, which would cost an import of pydantic; a test compares the two.
MAX_PARAMETERS = 10**10


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would obey instead of show."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def print_page(parts: Iterable[str | Grid], *, as_text: bool = False) -> None:
    """Print texts and tables that fit the terminal, with blank lines between.

    Args:
        parts: Texts, and tables.
        as_text: Whether tables have no line under their headers.
    """
    width = line_width()
    for k, part in enumerate(parts):
        if k:
            print()
        text = part if isinstance(part, str) else part.text(width, "" if as_text else _rule())
        print_lines(text, width)


def print_lines(text: str, width: int | None = None) -> None:
    """Print a text with lines that are folded where they do not fit the terminal."""
    from growir.columns import folded

    print(folded(printable(text), width or line_width()))


def line_width() -> int:
    """How many columns there are: those of the terminal, or 80 where the output is piped to whoever may read it."""
    from growir.columns import LINE

    return shutil.get_terminal_size((LINE, 24)).columns if sys.stdout.isatty() else LINE


def _rule() -> str:
    """The character of the lines in tables, if the output can have it."""
    try:
        "─".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "-"
    return "─"


def print_json(data: Mapping[str, Any]) -> None:
    """Print an object as JSON, one row of each list of objects a line."""
    # json's own indentation runs in Python, ten times slower than the compact form, and puts each width on a line.
    parts: list[str] = []
    for key, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            table = cast("list[dict[str, Any]]", value)
            rows = ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in table)
            parts.append(f" {json.dumps(key)}: [\n{rows}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    print("{\n" + ",\n".join(parts) + "\n}")
