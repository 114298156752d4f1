"""Documents at the edges: drawn from the JSON Schema, or valid ones in which a few places hold something extreme.

A graph drawn from a schema hardly ever has shapes that fit, so its nodes are hardly ever asked what they cost. Hence
the second way: operators' examples and grown graphs in which one to three places are replaced, which mostly stay valid
up to that place.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from growir.document import to_data
from growir.ops import OPS
from growir.passes import PASSES
from growir.schema import json_schema
from growir.testing import example_graph

Json = dict[str, Any]
Path_ = tuple[str | int, ...]

GOLDEN = Path(__file__).parent.parent / "golden"
DEEP = 250  # levels of a nested value
# Spelled into the text as they stand here, since no Python value is written so.
RAW = ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "-0", "1" + "0" * 400, "1" * 5000)
NUMBERS: tuple[object, ...] = (
    *(0, 1, 2, 3, -1, -2, 7, 127, 10**4, 46341, 10**6, 10**9, 2**31 - 2, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1),
    *(2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 10**308, 0.0, -0.0, 0.5, 1.0, 1 + 1e-12, -1e-12),
    *(3.4e38, 3.5e38, 1e-38, 1.2e-38, 1e-45, 5e-324, 1e308, -1e308),
)
TEXTS = ("", "N", "x", "nope", "1", "\ud800", "a\x00b", "a" * 300, "a" * 10_001)
OTHERS: tuple[object, ...] = (None, True, False, *TEXTS, {}, {"x": 1})
LIKELY = (1, 2, 3, 4, 5, 6, 8, 12, 0.5, 1.5)
HUGE = (10**5, 10**9, 2**31 - 1)


def extremes() -> Iterator[object]:
    """Values that are wrong or extreme wherever they stand."""
    yield from NUMBERS
    yield from OTHERS
    yield from ([], [1], [0, 0], [1, 1, 1], [2**31, 1], [10**9] * 5, ["x", "x"], [[1]], [None], list(range(40)))
    nested: object = 1
    for _ in range(DEEP):
        nested = [nested]
    yield nested
    yield from ({"@raw": text} for text in RAW)


EXTREMES = tuple(extremes())


def edges(schema: Json) -> list[object]:
    """The numbers at and beyond each bound that a schema names, at any depth; in lists where it has lists."""
    found: list[object] = []
    for bound in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        if bound in schema:
            value = schema[bound]
            whole = schema["type"] == "integer"
            found += (value - 1, value, value + 1) if whole else (value, value * 2, value / 2, -value)
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        found += edges(choice)
    if schema.get("type") == "array":
        least, most = schema.get("minItems", 0), schema.get("maxItems", 3)
        fixed = [edges(item)[:1] or [1] for item in schema.get("prefixItems", ())]
        for value in edges(schema.get("items") or {}) or [1]:
            counts = {max(least - 1, 0), least, least + 1, min(most, 20), min(most + 1, 20)}
            found += [[value] * count for count in sorted(counts)]
        found += [[value[0] for value in fixed], [value[-1] for value in fixed]]
    return found


@cache
def definitions() -> Json:
    """The schema of every operator's node, and of a document under `document`."""
    found: Json = json_schema()["$defs"]
    return found


def draw(schema: Json, rng: random.Random) -> object:
    """A value drawn from a schema, numbers at its bounds, beyond them now and then."""
    if "$ref" in schema:
        return draw(definitions()[schema["$ref"].removeprefix("#/$defs/")], rng)
    if rng.random() < 0.02:
        return _copied(rng.choice(EXTREMES))
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return draw(rng.choice(schema[several]), rng)
    match schema.get("type"):
        case "object":
            named = schema.get("properties", {})
            wanted = [key for key in named if key in schema.get("required", ()) or rng.random() < 0.3]
            return {key: draw(named[key], rng) for key in wanted}
        case "array":
            least, most = schema.get("minItems", 0), schema.get("maxItems", 4)
            first = [draw(item, rng) for item in schema.get("prefixItems", ())]
            count = max(rng.randint(least, min(most, least + 3)) - len(first), 0)
            return [*first, *(draw(schema["items"], rng) for _ in range(count))]
        case "integer":
            return rng.choice(rng.choice((LIKELY[:8], LIKELY[:8], edges(schema))))
        case "number":
            return rng.choice(rng.choice((LIKELY, LIKELY, edges(schema))))
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
        case _:
            return rng.choice(["x", "a", "b", "weight"])


def from_schema(rng: random.Random) -> Json:
    """A document drawn from the schema, whose nodes read each other."""
    known = ["x"]
    sizes = rng.choice([[3], [4, 4], [4, 5, 6], [2, 3, 3, 3], [rng.choice(HUGE), 2], [2, rng.choice(HUGE)]])
    shape: list[object] = ["N", *sizes]
    nodes: list[object] = []
    for k in range(rng.randint(1, 3)):
        kind = rng.choice(OPS)
        node: Any = draw(definitions()[kind.kind()], rng)
        if isinstance(node, dict):
            least, most = kind.arity
            count = rng.randint(least, least + 2 if most is None else most)
            node = {**node, "name": f"n{k}", "inputs": [rng.choice(known[-3:]) for _ in range(count)]}
            known.append(f"n{k}")
            for key in ("tied", "frozen"):
                if rng.random() < 0.8:
                    node.pop(key, None)
        nodes.append(node)
    dtype = rng.choice(["float32"] * 4 + ["int64"])
    inputs = [{"name": "x", "shape": shape, "dtype": dtype}]
    return {"schema": "growir/1", "inputs": inputs, "nodes": nodes, "outputs": [known[-1]]}


@cache
def valid() -> tuple[Json, ...]:
    """Documents to start from: every operator's examples, the golden ones, and one grown by each pass."""
    examples = [example for op in OPS for example in op.examples()]
    found = [to_data(example_graph(example, side)) for example in examples for side in ("first", "last")]
    for name in ("inspect", "diff"):
        found += [json.loads(path.read_text(encoding="utf-8")) for path in sorted((GOLDEN / name).glob("*.json"))]
    from growir.network import load_graph

    base = load_graph(GOLDEN / "inspect" / "residual.json")
    for kind in PASSES:
        found += [to_data(step.rewrite(base).graph) for step in itertools.islice(kind.candidates(base), 2)] * 5
    return tuple(json.loads(json.dumps(data)) for data in found)


def places(value: object, at: Path_ = ()) -> Iterator[Path_]:
    """Every place of a JSON value but the whole."""
    entries: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*at, key)
        yield from places(inner, (*at, key))


def _copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _held(value: Any, at: Path_) -> Any:
    for key in at:
        value = value[key]
    return value


def _is_known(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("op"), str) and node["op"] in definitions()


def _mutate(data: Json, rng: random.Random) -> None:
    """Replace one place: an attribute of a node by the edges of its schema, or any place by anything extreme."""
    listed = data.get("nodes")
    nodes = [node for node in listed if _is_known(node)] if isinstance(listed, list) else []
    if nodes and rng.random() < 0.5:
        node = rng.choice(nodes)
        properties = definitions()[node["op"]]["properties"]
        names = [name for name in properties if name not in ("name", "op", "inputs", "tied", "source")]
        if names:
            name = rng.choice(names)
            choices = (LIKELY[:8], LIKELY[:8], edges(properties[name]) or (1,), NUMBERS)
            node[name] = _copied(rng.choice(rng.choice(choices)))
            return
    if isinstance(data.get("inputs"), list) and rng.random() < 0.2:
        for entry in data["inputs"]:
            if isinstance(entry, dict) and isinstance(entry.get("shape"), list) and len(entry["shape"]) > 1:
                entry["shape"][rng.randrange(1, len(entry["shape"]))] = rng.choice(HUGE)
        return
    at = rng.choice(list(places(data)) or [("schema",)])
    host, old = _held(data, at[:-1]), _held(data, at)
    if rng.random() < 0.1:
        if isinstance(host, dict):
            host.pop(at[-1])
        else:
            host.append(_copied(old))
        return
    numeric = isinstance(old, int | float)
    host[at[-1]] = _copied(rng.choice(rng.choice((LIKELY, LIKELY, NUMBERS, EXTREMES)) if numeric else EXTREMES))


def mutated(rng: random.Random) -> Json:
    """A valid document with one to three places replaced."""
    data: Json = _copied(rng.choice(valid()))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        _mutate(data, rng)
    return data


WAYS: tuple[Callable[[random.Random], Json], ...] = (mutated, mutated, mutated, from_schema)


def text_of(value: object) -> str:
    """JSON text; what no Python value is written as stands in it as it is."""
    text = json.dumps(value)
    for raw in RAW:
        text = text.replace(json.dumps({"@raw": raw}), raw)
    return text


def document(seed: int) -> str:
    """The text of the document of this seed."""
    rng = random.Random(seed)
    return text_of(rng.choice(WAYS)(rng))
