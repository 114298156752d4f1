"""Results as lines of JSON. What a kill cut short is left out, and written anew by the run that goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

Line = dict[str, Any]


def read(path: Path) -> list[Line]:
    """The lines that there are, none where there is no file. Raises ValueError where one is no JSON object.

    A last line that was cut short does not count.
    """
    whole = _whole(path.read_text(encoding="utf-8")) if path.exists() else ""
    return [_line(path, number, row) for number, row in enumerate(whole.splitlines(), 1)]


def add(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write lines behind those that are there, in place of one that was cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = _whole(before)
    if whole != before:
        path.write_text(whole, encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _whole(text: str) -> str:
    """All whole lines, each with its end."""
    rows, end, last = text.rpartition("\n")
    head = rows + end
    try:
        json.loads(last)
    except json.JSONDecodeError:
        return head
    return f"{head}{last}\n"


def _line(path: Path, number: int, row: str) -> Line:
    try:
        found: object = json.loads(row)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: this is no JSON ({error.msg}); remove the line") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}, line {number}: an object is needed, but this is {type(found).__name__}")
    return cast("Line", found)
