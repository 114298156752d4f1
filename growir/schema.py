"""The JSON Schema of a graph document, generated from the operators; editors and other tools check documents by it.

`growir.document` reads documents without it, and refuses more: a schema cannot say that names refer to nodes.
"""

from __future__ import annotations

from growir import names
from growir.document import Json
from growir.graph import MAX_DIFFERENCES, MAX_DIM, MAX_STEPS, SCHEMA
from growir.ops import OPS, Op


def json_schema() -> Json:
    """The JSON Schema of a graph document, generated from the operators."""
    name = {
        "type": "string",
        "maxLength": names.MAX_LENGTH,
        "pattern": r"^[A-Za-z_][A-Za-z0-9_]{0,63}(\.[A-Za-z0-9_]{1,64})*$",
    }
    nodes = {op.kind(): _node_schema(op, name) for op in OPS}
    step = {
        "type": "object",
        "required": ["pass", "created"],
        "properties": {
            "pass": {"type": "string"},
            "version": {"type": "integer", "minimum": 1},
            "created": {"type": "array", "items": name},
            "values": {"type": "object", "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
        },
    }
    graph: Json = {
        "type": "object",
        "required": ["schema", "inputs", "nodes", "outputs"],
        "additionalProperties": False,
        "properties": {
            "schema": {"const": SCHEMA},
            "name": {"type": "string", "maxLength": names.MAX_LENGTH, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"},
            "inputs": {"type": "array", "minItems": 1, "items": _input_schema(name)},
            "nodes": {"type": "array", "items": {"oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in nodes]}},
            "outputs": {"type": "array", "minItems": 1, "items": name},
            "train_differs": {
                "type": "array",
                "maxItems": MAX_DIFFERENCES,
                "items": {"type": "string", "minLength": 1, "maxLength": 10_000},
            },
            "fixed_sizes": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["input", "axis"],
                    "additionalProperties": False,
                    "properties": {
                        "input": name,
                        "axis": {"type": "integer", "minimum": 1, "maximum": MAX_DIM},
                        "why": {"type": "string", "maxLength": 10_000},
                    },
                },
            },
        },
    }
    base = dict(graph)
    history = {
        "type": "object",
        "required": ["base", "steps"],
        "additionalProperties": False,
        "properties": {
            "base": {"$ref": "#/$defs/document"},
            "steps": {"type": "array", "maxItems": MAX_STEPS, "items": step},
        },
    }
    whole = {**graph, "properties": {**graph["properties"], "history": history}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "growir graph document",
        **whole,
        "$defs": {**nodes, "document": base},
    }


def _input_schema(name: Json) -> Json:
    return {
        "type": "object",
        "required": ["name", "shape"],
        "additionalProperties": False,
        "properties": {
            "name": name,
            "shape": {
                "type": "array",
                "minItems": 2,
                "prefixItems": [{"const": "N"}],
                "items": {"type": "integer", "minimum": 1},
            },
            "dtype": {"enum": ["float32", "int64"]},
        },
    }


def _node_schema(op: type[Op], name: Json) -> Json:
    schema = op.model_json_schema()
    properties = {"name": name, "op": {"const": op.kind()}, "inputs": {"type": "array", "items": name}}
    for field, spec in schema["properties"].items():
        if field != "op":
            properties[field] = {key: value for key, value in spec.items() if key != "title"}
    properties["tied"] = {"type": "object", "additionalProperties": name}
    properties["frozen"] = {"type": "array", "items": {"type": "string"}}
    properties["source"] = {"type": "string"}
    required = ["name", "op", *(["inputs"] if op.arity[0] else []), *schema.get("required", [])]
    about = (op.__doc__ or "").strip().splitlines()[0]
    return {
        "description": about,
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": properties,
    }
