"""`growir schema`: the JSON Schema of a graph document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from growir.cli.output import printable
from growir.staging import replaceable

FILE = "growir-1.json"
TITLE = "growir graph document"
CURRENT, OUTDATED = 0, 1


def schema(
    check: Annotated[
        bool, typer.Option("--check", help="Compare the shipped file with the operators; exit 1 if it differs.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write to a file.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON Schema of a graph document."""
    if check:
        current = shipped_text() == schema_text()
        print(f"{FILE} is current" if current else f"{FILE} is outdated: growir schema -o schemas/{FILE}")
        raise typer.Exit(CURRENT if current else OUTDATED)
    if out is None:
        print(schema_text(), end="")
        return
    from growir.store import write_file

    replaceable(out, is_schema)
    write_file(out, schema_text().encode())
    print(printable(f"wrote {out}"))


def schema_text() -> str:
    """The JSON Schema as the operators give it."""
    from growir.schema import json_schema

    return json.dumps(json_schema(), indent=1) + "\n"


def shipped_text() -> str | None:
    """The JSON Schema that this installation ships, or None if it ships none."""
    from importlib.resources import files

    shipped = files("growir.schemas") / FILE
    return shipped.read_text(encoding="utf-8") if shipped.is_file() else None


def is_schema(path: Path) -> bool:
    """Whether a file is a JSON Schema of graph documents, of whatever version."""
    try:
        found: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and cast("dict[str, Any]", found).get("title") == TITLE
