"""The JSON Schema that is shipped, and what it lets through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from growir.cli import schema as schema_command
from growir.document import to_data
from growir.ops import OPS, Op
from tests.cli.command import GOLDEN, growir
from tests.test_costs import EXAMPLES, example_graph

# Wrong in ways a schema can say; the others need to know names, shapes or sizes.
REFUSED = [
    "bad_inputs",
    "illegal_names",
    "long_name",
    "look_alike",
    "many_problems",
    "newer_version",
    "no_version",
    "not_an_object",
    "path_separators",
    "unknown_attribute",
    "unknown_op",
    "wrong_attribute",
    "wrong_types",
]
VALID = sorted((GOLDEN / "inspect").glob("*.json")) + sorted((GOLDEN / "diff").glob("*.json"))


@pytest.fixture(scope="module")
def validator() -> Any:
    shipped = schema_command.shipped_text()
    assert shipped is not None
    kind = jsonschema.Draft202012Validator
    kind.check_schema(json.loads(shipped))
    return kind(json.loads(shipped))


def test_shipped_schema_is_current() -> None:
    assert schema_command.shipped_text() == schema_command.schema_text(), "growir schema -o schemas/growir-1.json"


def test_printed() -> None:
    done = growir("schema")
    assert (done.code, done.out) == (0, schema_command.schema_text())


def test_check(monkeypatch: pytest.MonkeyPatch) -> None:
    assert growir("schema", "--check").code == 0
    for outdated in ("{}", None):
        monkeypatch.setattr(schema_command, "shipped_text", lambda text=outdated: text)
        done = growir("schema", "--check")
        assert (done.code, done.out) == (1, "growir-1.json is outdated: growir schema -o schemas/growir-1.json\n")


def test_written(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    for _ in range(2):  # the second replaces the first
        assert growir("schema", "-o", path).code == 0
        assert path.read_text(encoding="utf-8") == schema_command.schema_text()


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    for name, text in {"notes.txt": "mine", "list.json": "[]", "other.json": '{"title": "mine"}'}.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        done = growir("schema", "-o", path)
        assert (done.code, done.out) == (2, "")
        assert "not written by growir" in done.err
        assert path.read_text(encoding="utf-8") == text
    assert growir("schema", "-o", tmp_path / "none" / "schema.json").code == 2
    assert growir("schema", "-o", tmp_path).code == 2


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid_documents(path: Path, validator: Any) -> None:
    validator.validate(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(("kind", "k"), EXAMPLES, ids=[f"{kind.kind()}-{k}" for kind, k in EXAMPLES])
def test_every_operator(kind: type[Op], k: int, validator: Any) -> None:
    example = kind.examples()[k]
    graph = example_graph(example.op, example.inputs)
    validator.validate(json.loads(json.dumps(to_data(graph))))


def test_history(validator: Any) -> None:
    from growir.passes import AddNode
    from growir.verify import load
    from tests.cli.test_inspect import grown_base

    grown = AddNode(source="x", target="out", width=2).rewrite(load(grown_base())).graph
    data = json.loads(json.dumps(to_data(grown)))
    validator.validate(data)
    del data["history"]["base"]
    assert not validator.is_valid(data)


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_documents(name: str, validator: Any) -> None:
    assert not validator.is_valid(json.loads((GOLDEN / "bad" / f"{name}.json").read_text(encoding="utf-8")))


def test_every_operator_is_in_it(validator: Any) -> None:
    assert {op.kind() for op in OPS} <= set(validator.schema["$defs"])
