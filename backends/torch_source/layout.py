"""Expressions of Python source, and breaking them over lines as common formatters do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import cast

import torch

from growir.errors import ExportError, cut

MANY = 40  # parts that fill lines instead of having one each
WIDTH = 120  # as in growir, whose own modules come along


@dataclass(frozen=True, slots=True)
class Bracketed:
    """A call, list or tuple: a head, then parts between brackets, each with its keyword or ''."""

    head: str
    parts: tuple[tuple[str, Expression], ...]
    brackets: str = "()"

    def __str__(self) -> str:
        inner = ", ".join(f"{keyword}={part}" if keyword else str(part) for keyword, part in self.parts)
        comma = "," if self.brackets == "()" and not self.head and len(self.parts) == 1 else ""
        return f"{self.head}{self.brackets[0]}{inner}{comma}{self.brackets[1]}"


@dataclass(frozen=True, slots=True)
class Infix:
    """An operator between two operands."""

    symbol: str
    left: Expression
    right: Expression

    def __str__(self) -> str:
        return f"{_operand(self.left)} {self.symbol} {_operand(self.right)}"


Expression = str | Bracketed | Infix


def _operand(part: Expression) -> str:
    # A number with a sign binds less than a power; everything else binds tighter than any operator.
    return f"({part})" if isinstance(part, Infix) or str(part).startswith("-") else str(part)


def call(head: str, args: Sequence[Expression], keywords: Mapping[str, Expression] | None = None) -> Bracketed:
    """A function applied to arguments."""
    return Bracketed(head, (*(("", arg) for arg in args), *(keywords or {}).items()))


def literal(value: object) -> Expression:
    """A value as source that makes it again, whatever it holds. Raises ExportError for kinds that have none."""
    match value:
        case bool() | int() | None:
            return repr(value)
        case str():
            return _quoted(value)
        case float():
            return repr(value) if math.isfinite(value) else f'float("{value}")'
        case torch.dtype() | torch.memory_format() | torch.layout():
            return str(value)
        case torch.device():
            return _quoted(str(value))
        case list() | tuple():
            parts = cast("Sequence[object]", value)
            return Bracketed(
                "", tuple(("", literal(part)) for part in parts), "[]" if isinstance(value, list) else "()"
            )
        case _:
            if value is Ellipsis:
                return "..."
            raise ExportError(f"a {type(value).__name__} cannot be written as source: {cut(value)}")


def _quoted(text: str) -> str:
    """The text as a literal of ASCII characters, in double quotes where nothing in it needs care."""
    found = ascii(text)
    return f'"{found[1:-1]}"' if found[0] == "'" and not {'"', "'"} & set(text) else found


def statement(start: str, value: Expression, indent: int = 8) -> Iterator[str]:
    """The lines of `start` followed by an expression, broken where it is too long for one."""
    yield from _broken(f"{' ' * indent}{start}", value, "", indent)


def _broken(start: str, value: Expression, end: str, indent: int) -> Iterator[str]:
    whole = f"{start}{value}{end}"
    if len(whole) <= WIDTH or not isinstance(value, Bracketed) or not value.parts:
        yield whole
        return
    inner = indent + 4
    yield f"{start}{value.head}{value.brackets[0]}"
    together = str(Bracketed("", value.parts, "[]"))[1:-1]
    if inner + len(together) <= WIDTH and value.head:
        yield f"{' ' * inner}{together}"
    elif len(value.parts) > MANY and all(isinstance(part, str) and not keyword for keyword, part in value.parts):
        # A permutation of a thousand channels, one a line, would be all that anybody sees of the file.
        yield from wrap(f"{together},", WIDTH, initial_indent=" " * inner, subsequent_indent=" " * inner)
    else:
        for keyword, part in value.parts:
            yield from _broken(f"{' ' * inner}{f'{keyword}=' if keyword else ''}", part, ",", inner)
    yield f"{' ' * indent}{value.brackets[1]}{end}"
