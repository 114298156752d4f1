"""Run the benchmarks of this folder, print their tables and keep the numbers in benchmarks/results.

A benchmark is a module with `run() -> dict`: {"rows": [{column: value, ...}, ...]}, and whatever else is worth keeping.
A row with `value` and `limit` says whether the one is within the other.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import benchmarks

RESULTS = Path(__file__).parent / "results"


def names() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_")]


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def show(name: str, rows: Sequence[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=name, box=box.SIMPLE_HEAD, title_justify="left")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column, justify="left" if isinstance(rows[0].get(column), str) else "right")
    for row in rows:
        cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in (row.get(c, "") for c in columns)]
        table.add_row(*cells, style="red" if exceeded(row) else "")
    # Piped, a table is read by tools and by people who scroll: never cut it to 80 columns.
    console = Console() if sys.stdout.isatty() else Console(width=250)
    console.print(table)


def exceeded(row: dict[str, Any]) -> bool:
    return "limit" in row and row["value"] > row["limit"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed and size.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(names())} [default: all]")
    wanted = parser.parse_args().names or names()
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(names())}")
    RESULTS.mkdir(exist_ok=True)
    over = 0
    for name in wanted:
        result = importlib.import_module(f"benchmarks.{name}").run()
        show(name, result["rows"])
        over += sum(map(exceeded, result["rows"]))
        text = json.dumps({"machine": machine(), **result}, indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    if over:
        print(f"{over} over the limit", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
