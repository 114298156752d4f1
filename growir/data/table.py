"""Tables in text files: columns of text by name, with the line that each row stands on.

The first line names the columns. Nothing is guessed: a file that another separator would cut better, rows of another
length and columns without a name are refused, with what would mend it.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from growir.errors import DataError, cut

SUFFIXES = {".csv": ",", ".tsv": "\t"}
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
# What stands for a value that is not there, beside nothing at all; other words mean themselves.
MISSING = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "NULL", "null", "#N/A", "?"})
MAX_CELL = 1_000_000  # characters; a quote that is never closed makes one cell of all that follows


@dataclass(frozen=True, slots=True)
class Table:
    """Named columns of text.

    Attributes:
        source: The file, as a message begins.
        columns: The cells of each column by its name, without blanks around them.
        lines: The line of the file that each row begins on.
    """

    source: str
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def names(self) -> list[str]:
        """Of the columns, in the file's order."""
        return list(self.columns)

    def without(self, rows: set[int]) -> Table:
        """The same less some of its rows."""
        kept = [row for row in range(len(self)) if row not in rows]
        columns = {name: [cells[row] for row in kept] for name, cells in self.columns.items()}
        return Table(self.source, columns, [self.lines[row] for row in kept])


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name says that it is a table."""
    return Path(path).suffix.lower() in SUFFIXES


def read_table(path: Path, separator: str | None = None, *, learning: bool = True) -> Table:
    """The table in a file, in UTF-8.

    Args:
        path: The file.
        separator: One character between cells; by default a comma, or a tab in a .tsv file.
        learning: Whether a run learns from it, whose file may say the separator; or answers are asked for its rows.

    Raises:
        DataError: It cannot be read, or is no table; the message says on which line.
    """
    sep = separator or SUFFIXES.get(path.suffix.lower(), ",")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line} is not UTF-8 text; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}: line {line} holds a NUL character; this is no text file, or UTF-16: save it as UTF-8")
    rows, lines = _rows(text, sep, str(path))
    if not rows:
        raise DataError(f"{path}: the file is empty; its first line must name the columns")
    header = rows[0]
    _check_header(header, text, sep, str(path), learning)
    if len(rows) == 1:
        raise DataError(f"{path}: there are no rows below the line that names the columns")
    for row, line in zip(rows[1:], lines[1:]):
        if len(row) != len(header):
            raise DataError(_ragged(path, line, row, header, sep))
    cells = zip(*rows[1:], strict=True)
    columns = {name: [cell.strip() for cell in column] for name, column in zip(header, cells, strict=True)}
    return Table(str(path), columns, lines[1:])


def _rows(text: str, sep: str, source: str) -> tuple[list[list[str]], list[int]]:
    """All rows that are not blank, and the line that each begins on."""
    limit = csv.field_size_limit(MAX_CELL)
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sep, skipinitialspace=sep != "\t", strict=True)
    begins = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row) or len(row) > 1:
                rows.append(row)
                lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{source}: line {begins}: {error}; quotes must be closed, and doubled inside quotes") from None
    finally:
        csv.field_size_limit(limit)
    return rows, lines


def _check_header(header: list[str], text: str, sep: str, source: str, learning: bool) -> None:
    header[:] = [name.strip() for name in header]
    first = text.splitlines()[0] if text else ""
    if len(header) == 1:
        better = max(SEPARATORS, key=first.count)
        if better != sep and first.count(better):
            raise DataError(
                f"{source}: line 1 is one column with a {SEPARATORS.get(sep, cut(sep))} between columns, and "
                f"{first.count(better) + 1} with a {SEPARATORS[better]}; say {_said(better, learning)}"
            )
    if all(number(name) is not None for name in header):
        raise DataError(
            f"{source}: line 1 holds only numbers, but it must name the columns; put a line of names above it"
        )
    for place, name in enumerate(header, 1):
        if not name:
            hint = ""
            if place == 1:
                hint = "; if it is the index that pandas writes, to_csv(..., index=False) leaves it out"
            raise DataError(f"{source}: column {place} has no name in line 1{hint}")
    twice = next((name for place, name in enumerate(header) if name in header[:place]), None)
    if twice is not None:
        raise DataError(f"{source}: two columns are named {cut(twice)!r} in line 1; rename one")


def _said(separator: str, learning: bool) -> str:
    shown = {"\t": "\\t"}.get(separator, separator)
    if learning:
        return f"separator = \"{shown}\" in [data], or --separator '{shown}'"
    return f"--separator '{shown}', which in Python is separator=\"{shown}\""


def _ragged(path: Path, line: int, row: list[str], header: list[str], sep: str) -> str:
    found = f"{path}: line {line} has {len(row)} {'cell' if len(row) == 1 else 'cells'}, but line 1 names"
    if len(row) < len(header):
        hint = f"the last, {cut(header[len(row)], 24)!r} on, are missing: an empty cell still needs its separator"
    else:
        hint = f"{cut(row[len(header)], 24)!r} is too many: a cell that holds a {SEPARATORS.get(sep, cut(sep))} needs "
        hint += 'quotes around it, "like, this"'
    return f"{found} {len(header)} columns; {hint}"


def number(cell: str) -> float | None:
    """The number that a cell holds, or None: unlike `float`, of digits, point, sign and exponent alone."""
    if "_" in cell or not any(c.isdigit() for c in cell):
        return None
    try:
        return float(cell)
    except ValueError:
        return None
