"""The graph document on disk: JSON in and out, versions and their migrations."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from pydantic import TypeAdapter, ValidationError

from growir import names
from growir.errors import GraphError, Problem, cut
from growir.fields import field_problems, shown, wrong
from growir.graph import (
    MAX_DIFFERENCES,
    MAX_STEPS,
    MAX_TEXT,
    SCHEMA,
    FixedSize,
    Graph,
    History,
    Input,
    Node,
    Step,
    Ties,
    fixed_size_problems,
    node_place,
    per_graph,
    structure_problems,
)
from growir.identity import canonical, node_data
from growir.nearest import suggestion
from growir.ops import OP_BY_KIND

MAX_BYTES = 256 * 2**20
MAX_DEPTH = 100  # levels of lists and objects in a step's fields, which may be anything
_NODE_FIELDS = ("name", "op", "inputs", "tied", "frozen", "source")
_GRAPH_FIELDS = ("schema", "name", "inputs", "nodes", "outputs", "train_differs", "fixed_sizes", "history")

Json = dict[str, Any]
Migration = Callable[[Json], Json]

# Each entry takes a document of that version to the next one. Nothing precedes growir/1.
MIGRATIONS: Mapping[str, Migration] = {}


# -- writing ----------------------------------------------------------------------------------------------------------


def _is_object(value: object) -> TypeGuard[Json]:
    return isinstance(value, dict)


def _is_array(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def step_data(step: Step) -> Json:
    """A history step as its document shows it."""
    data: Json = {"pass": step.kind, **step.fields}
    data["version"] = step.version
    data["created"] = list(step.created)
    if step.values:
        data["values"] = dict(sorted(step.values.items()))
    return data


def to_data(graph: Graph) -> Json:
    """The whole document as JSON values."""
    data: Json = {
        "schema": SCHEMA,
        "name": graph.name,
        "inputs": [{"name": i.name, "shape": list(i.shape), "dtype": i.dtype} for i in graph.inputs],
        "nodes": [node_data(node) for node in graph.nodes],
        "outputs": list(graph.outputs),
    }
    if graph.train_differs:
        data["train_differs"] = list(graph.train_differs)
    if graph.fixed_sizes:
        data["fixed_sizes"] = [entry.model_dump(exclude_defaults=True) for entry in graph.fixed_sizes]
    if graph.history is not None:
        base = to_data(graph.history.base)
        data["history"] = {"base": base, "steps": [step_data(step) for step in graph.history.steps]}
    return data


def dumps(graph: Graph) -> str:
    """The document as text, one node a line, so that line-based tools can read a change."""
    return _pretty(to_data(graph), "") + "\n"


def _pretty(data: Json, indent: str) -> str:
    inner = indent + " "
    parts: list[str] = []
    for key, value in data.items():
        if _is_array(value) and value and _is_object(value[0]):
            rows = ",\n".join(f"{inner}  {json.dumps(row, allow_nan=False)}" for row in value)
            parts.append(f"{inner}{json.dumps(key)}: [\n{rows}]")
        elif _is_object(value):
            parts.append(f"{inner}{json.dumps(key)}: {_pretty(value, inner).lstrip()}")
        else:
            parts.append(f"{inner}{json.dumps(key)}: {json.dumps(value, allow_nan=False)}")
    return indent + "{" + ",\n".join(parts).lstrip() + "}"


@per_graph
def function_hash(graph: Graph) -> str:
    """The hash of the same graph with nothing frozen, which two graphs share that compute the same of the same tensors.

    Which parameters learn is a setting of training. It may change at any time, and no rewrite says that it did.
    """
    if not any(node.frozen for node in graph.nodes):
        return graph.hash
    return hashlib.sha256(canonical(graph, frozen=False)).hexdigest()


# -- reading ----------------------------------------------------------------------------------------------------------


class _Unreadable(ValueError):
    """What Python's json would accept and JSON does not."""


def _refuse_constant(token: str) -> Any:
    raise _Unreadable(f"{token} is no JSON number")


def _finite(token: str) -> float:
    number = float(token)
    if math.isinf(number):
        raise _Unreadable(f"{cut(token)} is larger than any float; numbers lie within 1.8e308")
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> Json:
    data = dict(pairs)
    if len(data) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _Unreadable(f"the key {cut(twice)!r} stands twice in one object")
    return data


def parse(text: str | bytes, what: str = "graph document") -> object:
    """What a JSON text holds, read strictly: no NaN, no key twice in one object. Raises GraphError."""
    if len(text) > MAX_BYTES:
        raise GraphError(f"the {what} has {len(text)} bytes; at most {MAX_BYTES} are read")
    try:
        if isinstance(text, bytes):
            text = text.decode()
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise GraphError(f"line {error.lineno}, column {error.colno}: this is not valid JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise GraphError(f"byte {error.start}: this is not UTF-8 text, so no {what}") from None
    except RecursionError:
        raise GraphError(f"the JSON is nested too deeply for a {what}") from None
    except _Unreadable as error:
        raise GraphError(f"this is not valid JSON: {error}") from None
    except ValueError:  # the only other one: Python reads no integer of thousands of digits
        raise GraphError("the JSON holds a whole number of thousands of digits") from None


def decode(text: str | bytes) -> Json:
    """Parse the text of a document. Raises GraphError on anything that is not one JSON object."""
    data = parse(text)
    if not _is_object(data):
        raise GraphError(f"a graph document is a JSON object, but this is {_json_type(data)}")
    return data


def _json_type(value: object) -> str:
    kinds: dict[type, str] = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return kinds.get(type(value), "a number")


def migrate(data: Json, migrations: Mapping[str, Migration] = MIGRATIONS) -> Json:
    """Bring an older document to the current version. Raises GraphError for a newer or unknown one."""
    seen: set[str] = set()
    while True:
        version = data.get("schema")
        if version == SCHEMA:
            return data
        if not isinstance(version, str) or not version.startswith("growir/"):
            found = (
                f"this one says {json.dumps(version, default=str)[:60]}" if "schema" in data else "this one has none"
            )
            raise GraphError([Problem("schema", f'a graph document says "schema": "{SCHEMA}", but {found}')])
        number = version.removeprefix("growir/")
        if re.fullmatch("[0-9]+", number) and int(number[:18]) > int(SCHEMA.removeprefix("growir/")):
            text = f"this document is of version {cut(version)}, and this growir reads up to {SCHEMA}; upgrade growir"
            raise GraphError([Problem("schema", text)])
        if version not in migrations or version in seen:
            raise GraphError([Problem("schema", f"there is no version {cut(version)!r}; the current one is {SCHEMA}")])
        seen.add(version)
        data = migrations[version](data)


@dataclass(frozen=True, slots=True)
class Draft:
    """A document as far as it could be read, and everything found wrong on the way."""

    graph: Graph
    problems: list[Problem]
    unread: frozenset[str]


def draft(data: Json, migrations: Mapping[str, Migration] = MIGRATIONS, *, nested: bool = False) -> Draft:
    """Read a decoded document, collecting problems instead of stopping at the first."""
    data = migrate(data, migrations)
    problems: list[Problem] = []
    for key in data:
        if key not in _GRAPH_FIELDS or (nested and key == "history"):
            problems.append(Problem(cut(key), f"unknown field.{suggestion(key, _GRAPH_FIELDS)}"))
    name = data.get("name", "graph")
    if not isinstance(name, str):
        problems.append(Problem("name", f"a string is needed, but this is {_json_type(name)}"))
        name = "graph"
    elif wrong := names.title_fault(name):
        problems.append(Problem("name", wrong))
    described = _items(data, "inputs", problems)
    read = [(k, entry) for k, item in enumerate(described) if (entry := _input(k, item, problems))]
    inputs, input_index = [entry for _, entry in read], [k for k, _ in read]
    nodes: list[Node] = []
    index: list[int] = []
    unread: set[str] = set()
    for k, item in enumerate(_items(data, "nodes", problems)):
        node = _node(k, item, problems)
        if node is not None:
            nodes.append(node)
            index.append(k)
        elif _is_object(item) and isinstance(item.get("name"), str):
            unread.add(item["name"])
    outputs: list[str] = []
    listed = _items(data, "outputs", problems)
    for k, item in enumerate(listed):
        if isinstance(item, str):
            outputs.append(item)
        else:
            problems.append(Problem(f"outputs[{k}]", f"a node's name is needed, but this is {_json_type(item)}"))
    if (inputs or not described) and (outputs or not listed):
        unread |= {item["name"] for item in described if _is_object(item) and isinstance(item.get("name"), str)}
        unread -= {entry.name for entry in inputs}
        told = {problem.where for problem in problems}  # that `inputs` is no array, say, is not said twice
        found = structure_problems(inputs, nodes, outputs, frozenset(unread), index, input_index)
        problems += [problem for problem in found if problem.where not in told & {"inputs", "outputs"}]
    differs = _train_differs(data.get("train_differs", []), problems)
    fixed = _fixed_sizes(data.get("fixed_sizes", []), problems)
    if len(inputs) == len(described):
        problems += fixed_size_problems(inputs, fixed)
    history = None if nested else _history(data.get("history"), migrations, problems)
    # Not the checking constructor: everything it would say is in `problems` already.
    graph = Graph.model_construct(
        name=name,
        inputs=tuple(inputs),
        nodes=tuple(nodes),
        outputs=tuple(outputs),
        train_differs=differs,
        fixed_sizes=tuple(fixed),
        history=history,
    )
    return Draft(graph, problems, frozenset(unread))


def _items(data: Json, key: str, problems: list[Problem]) -> list[Any]:
    value = data.get(key)
    if _is_array(value):
        return value
    found = "is missing" if key not in data else f"is {_json_type(value)}"
    problems.append(Problem(key, f"a graph document has an array of {key} here, but it {found}"))
    return []


def _train_differs(value: object, problems: list[Problem]) -> tuple[str, ...]:
    given: list[Any] = value if _is_array(value) else []
    found = tuple(text for text in given if isinstance(text, str) and 0 < len(text) <= MAX_TEXT)
    if not _is_array(value) or len(found) != len(given) or len(found) > MAX_DIFFERENCES:
        text = f"an array of at most {MAX_DIFFERENCES} strings of 1 to {MAX_TEXT:,} characters is needed"
        problems.append(Problem("train_differs", text))
    return found


def _fixed_sizes(value: object, problems: list[Problem]) -> list[FixedSize]:
    if not _is_array(value):
        problems.append(Problem("fixed_sizes", f"an array of objects is needed, but this is {_json_type(value)}"))
        return []
    found: list[FixedSize] = []
    for k, item in enumerate(value):
        where = f"fixed_sizes[{k}]"
        if not _is_object(item):
            text = f"an object with input and axis is needed, but this is {_json_type(item)}"
            problems.append(Problem(where, text))
            continue
        try:
            found.append(FixedSize.model_validate(item))
        except ValidationError as error:
            problems += field_problems(where, "a fixed size", error, FixedSize)
    return found


def _input(index: int, item: object, problems: list[Problem]) -> Input | None:
    where = f"inputs[{index}]"
    if not _is_object(item):
        problems.append(Problem(where, f"an object with name and shape is needed, but this is {_json_type(item)}"))
        return None
    if isinstance(item.get("name"), str):
        where += f" {cut(item['name'])!r}"
    try:
        return Input.model_validate(item)
    except ValidationError as error:
        problems += field_problems(where, "an input", error, Input)
        return None


def _node(index: int, item: object, problems: list[Problem]) -> Node | None:
    if not _is_object(item):
        found = _json_type(item)
        problems.append(
            Problem(f"nodes[{index}]", f"an object with name, op and inputs is needed, but this is {found}")
        )
        return None
    name, kind = item.get("name"), item.get("op")
    where = node_place(index, name) if isinstance(name, str) else f"nodes[{index}]"
    before = len(problems)
    if not isinstance(name, str):
        problems.append(Problem(where, "a node has a name, a string"))
    inputs, tied, source = item.get("inputs", []), item.get("tied", {}), item.get("source")
    frozen = item.get("frozen", [])
    if not _is_array(inputs) or not all(isinstance(i, str) for i in inputs):
        problems.append(Problem(where, "inputs is an array of names"))
    if not _is_object(tied) or not all(isinstance(v, str) for v in tied.values()):
        problems.append(Problem(where, 'tied is an object like {"weight": "emb.weight"}'))
    if not _is_array(frozen) or not all(isinstance(i, str) for i in frozen):
        problems.append(Problem(where, 'frozen is an array of parameter names like ["weight"]'))
    if not (source is None or (isinstance(source, str) and len(source) <= MAX_TEXT)):
        problems.append(Problem(where, f"source is a string of at most {MAX_TEXT:,} characters"))
    op = None
    if not isinstance(kind, str):
        problems.append(Problem(where, "a node has an op, the name of an operator"))
    elif kind not in OP_BY_KIND:
        problems.append(Problem(where, f"unknown op {cut(kind)!r}.{suggestion(kind, OP_BY_KIND)}"))
    else:
        attributes = {key: value for key, value in item.items() if key not in _NODE_FIELDS}
        try:
            op = OP_BY_KIND[kind].model_validate(attributes)
        except ValidationError as error:
            problems += field_problems(where, kind, error, OP_BY_KIND[kind])
    if len(problems) > before or op is None or not isinstance(name, str):
        return None
    return Node.model_construct(
        name=name, op=op, inputs=tuple(inputs), tied=Ties(tied), frozen=tuple(sorted(set(frozen))), source=source
    )


def _depth(value: object) -> int:
    """Levels of lists and objects in a JSON value, counted without recursion and hardly beyond the limit."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        inner: list[object] = []
        for each in level:
            if _is_object(each):
                inner.extend(each.values())
            elif _is_array(each):
                inner.extend(each)
        level, depth = inner, depth + 1
    return depth


_STEPS: TypeAdapter[tuple[Step, ...]] = TypeAdapter(tuple[Step, ...])


def _history(item: object, migrations: Mapping[str, Migration], problems: list[Problem]) -> History | None:
    if item is None:
        return None
    if not _is_object(item) or set(item) != {"base", "steps"} or not _is_object(item["base"]):
        problems.append(Problem("history", "an object with base (a document) and steps (an array) is needed"))
        return None
    if not _is_array(item["steps"]) or len(item["steps"]) > MAX_STEPS:
        problems.append(Problem("history.steps", f"an array of at most {MAX_STEPS} steps is needed"))
        return None
    try:
        base = draft(item["base"], migrations, nested=True)
    except GraphError as error:
        problems += [Problem(f"history.base.{p.where}", p.text) for p in error.problems]
        return None
    problems += [Problem(f"history.base.{p.where}", p.text) for p in base.problems]
    try:
        steps = _STEPS.validate_python(item["steps"])
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
            problems.append(Problem(f"history.steps{cut(place)}", f"it is {shown(fault['input'])}: {wrong(fault)}"))
        return None
    for k, step in enumerate(steps):
        if _depth(step.fields) > MAX_DEPTH:
            text = f"its fields are nested more than {MAX_DEPTH} levels deep"
            problems.append(Problem(f"history.steps[{k}] {cut(step.kind)!r}", text))
    return None if base.problems else History(base=base.graph, steps=steps)
