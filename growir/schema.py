"""The JSON Schema of a graph document, generated from the operators; editors and other tools check documents by it.

`growir.document` reads documents without it, and refuses more: a schema cannot say that names refer to nodes.
"""

from __future__ import annotations

from growir import names
from growir.document import Json
from growir.graph import (
    MAX_DIFFERENCES,
    MAX_RANK,
    MAX_REFERENCE,
    MAX_STEPS,
    MAX_TEXT,
    SCHEMA,
)
from growir.ops import OPS, Op
from growir.ops.base import MAX_ENTRIES, MAX_INT


def json_schema() -> Json:
    """The JSON Schema of a graph document, generated from the operators."""
    name = {
        "type": "string",
        "maxLength": names.MAX_LENGTH,
        "pattern": names.PATTERN,
    }
    nodes = {op.kind(): _node_schema(op, name) for op in OPS}
    step = {
        "type": "object",
        "required": ["pass"],
        "properties": {
            "pass": {"type": "string", "maxLength": names.MAX_LENGTH},
            "version": {"type": "integer", "minimum": 1, "maximum": MAX_INT},
            "created": _array(name),
            "values": {
                "type": "object",
                "maxProperties": MAX_ENTRIES,
                "propertyNames": {"type": "string", "maxLength": MAX_REFERENCE},
                "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            },
        },
    }
    graph: Json = {
        "type": "object",
        "required": ["schema", "inputs", "nodes", "outputs"],
        "additionalProperties": False,
        "properties": {
            "schema": {"const": SCHEMA},
            "name": {"type": "string", "maxLength": names.MAX_LENGTH, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"},
            "inputs": {**_array(_input_schema(name)), "minItems": 1},
            "nodes": _array({"oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in nodes]}),
            "outputs": {**_array(name), "minItems": 1},
            "train_differs": {
                "type": "array",
                "maxItems": MAX_DIFFERENCES,
                "items": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT},
            },
            "fixed_sizes": _array(
                {
                    "type": "object",
                    "required": ["input", "axis"],
                    "additionalProperties": False,
                    "properties": {
                        "input": name,
                        "axis": {"type": "integer", "minimum": 1, "maximum": MAX_INT},
                        "why": {"type": "string", "maxLength": MAX_TEXT},
                    },
                }
            ),
        },
    }
    base = dict(graph)
    history = {
        "type": ["object", "null"],
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


def _array(items: Json) -> Json:
    return {"type": "array", "maxItems": MAX_ENTRIES, "items": items}


def _input_schema(name: Json) -> Json:
    return {
        "type": "object",
        "required": ["name", "shape"],
        "additionalProperties": False,
        "properties": {
            "name": name,
            "shape": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_RANK,
                "prefixItems": [{"const": "N"}],
                "items": {"type": "integer", "minimum": 1, "maximum": MAX_INT},
            },
            "dtype": {"enum": ["float32", "int64"]},
        },
    }


def _node_schema(op: type[Op], name: Json) -> Json:
    schema = op.model_json_schema()
    properties = {"name": name, "op": {"const": op.kind()}, "inputs": _array(name)}
    for field, spec in schema["properties"].items():
        if field != "op":
            properties[field] = {key: value for key, value in spec.items() if key != "title"}
    parameter = {"type": "string", "maxLength": names.MAX_LENGTH}
    properties["tied"] = {
        "type": "object",
        "maxProperties": MAX_ENTRIES,
        "propertyNames": parameter,
        "additionalProperties": name,
    }
    properties["frozen"] = _array(parameter)
    properties["source"] = {"type": ["string", "null"], "maxLength": MAX_TEXT}
    required = ["name", "op", *(["inputs"] if op.arity[0] else []), *schema.get("required", [])]
    about = (op.__doc__ or "").strip().splitlines()[0]
    return {
        "description": about,
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": properties,
    }
