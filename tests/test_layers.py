"""Rules of the house that import-linter has no contract for: no circles, and a map with every room on it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp
import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent


def imports_of(package: str) -> Mapping[str, Iterable[str]]:
    """Each module of a package with the modules that it imports anywhere in it, but for type checkers alone."""
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circles(imports: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The sets of modules of which each imports every other, perhaps by way of others."""
    found = nx.DiGraph([(module, other) for module, others in imports.items() for other in others])
    return sorted(sorted(part) for part in nx.strongly_connected_components(found) if len(part) > 1)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(imports_of("growir")) == []


@pytest.mark.parametrize("hidden", [False, True])
def test_circles_are_found_also_where_a_function_hides_them(
    hidden: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"rounded_{hidden}".lower()  # where a package lies is remembered
    (tmp_path / package).mkdir()
    indent = "def late():\n    " if hidden else ""
    files = {
        "__init__": "",
        "a": f"from {package}.b import B\n",
        "b": f"from {package}.c import C\n",
        "c": f"{indent}from {package} import a\n",
        "d": "from typing import TYPE_CHECKING\n",
        "e": f"from {package}.d import TYPE_CHECKING\n",
    }
    files["d"] += f"if TYPE_CHECKING:\n    from {package} import e\n"
    for name, text in files.items():
        (tmp_path / package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert circles(imports_of(package)) == [[f"{package}.{name}" for name in "abc"]]


def test_the_map_of_the_rooms_has_every_room() -> None:
    rows = [
        line.split("|")[1] for line in (ROOT / "docs" / "design.md").read_text().splitlines() if line.startswith("| `")
    ]
    told = Counter(name.rstrip("/") for row in rows for name in re.findall(r"`([\w/]+)`", row))
    graph = grimp.build_graph("growir", exclude_type_checking_imports=True, cache_dir=None)
    rooms = {child.removeprefix("growir.") for child in graph.find_children("growir")}
    assert told == Counter(rooms - {"__main__", "schemas"})
