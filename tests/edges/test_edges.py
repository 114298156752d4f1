"""Every number of a document has bounds, and whatever stands there, growir answers with a result or a GraphError."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from growir.channels import analyse
from growir.document import MAX_DEPTH, parse, to_data
from growir.errors import GraphError, RunError
from growir.graph import MAX_RANK, Input, Step
from growir.growth.budget import BudgetConfig
from growir.growth.config import DataConfig, ObjectiveConfig, RunConfig, TrainConfig, parse_run
from growir.growth.policies.dag.settings import DagConfig
from growir.growth.recipe import OptimizerConfig
from growir.growth.schedule import Alternating
from growir.inspecting import inspection
from growir.ops import OPS, Op
from growir.passes import PASSES, EliminateDead
from growir.replay import check_history
from growir.schema import json_schema
from growir.verify import load
from tests.edges.checking import check, validator
from tests.edges.drawing import EXTREMES, document, edges, text_of

Json = dict[str, Any]


# -- the laws ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**40))
def test_documents_at_the_edges_are_read_or_refused(seed: int) -> None:
    for k in range(10):
        check(document(10 * seed + k))


@pytest.mark.slow
def test_many_documents_at_the_edges_are_read_or_refused() -> None:
    for seed in range(100_000):
        check(document(seed))


def test_enough_of_the_documents_are_read() -> None:
    """Without this a reader that refuses everything would keep the laws above."""
    found = [check(document(seed)) for seed in range(500)]
    assert found.count("refused") < 480
    assert found.count("lowered") > 20


def unbounded(schema: Json, where: str, definitions: Json) -> Iterator[str]:
    """The places of a schema at which a number, a list, an object or a text may be of any size."""
    kinds = schema.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    free = "const" not in schema and "enum" not in schema
    for kind in kinds:
        if (
            kind in ("integer", "number")
            and free
            and not (
                schema.keys() & {"minimum", "exclusiveMinimum"} and schema.keys() & {"maximum", "exclusiveMaximum"}
            )
        ):
            yield f"{where}: {kind}"
        elif kind == "array" and "maxItems" not in schema:
            yield f"{where}: array"
        elif kind == "string" and free and not schema.keys() & {"maxLength", "pattern"}:
            yield f"{where}: string"
        elif (
            kind == "object" and isinstance(schema.get("additionalProperties"), dict) and "maxProperties" not in schema
        ):
            yield f"{where}: object"
    for key, inner in schema.get("properties", {}).items():
        yield from unbounded(inner, f"{where}.{key}", definitions)
    for key in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(key), dict):
            yield from unbounded(schema[key], f"{where}.{key}", definitions)
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for inner in schema.get(key, ()):
            yield from unbounded(inner, where, definitions)


class _Lenient(GenerateJsonSchema):
    """Of fields that a schema cannot say anything of, such as a graph inside a pass, nothing is said."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Any:
        return {}


def model_schema(model: type[BaseModel]) -> Json:
    """A model's own schema, without the graphs and arrays it may hold."""
    return model.model_json_schema(schema_generator=_Lenient)


def test_every_number_of_a_document_has_bounds() -> None:
    schema = json_schema()
    wholes = {"document": schema, **schema["$defs"]}
    assert [text for name, each in wholes.items() for text in unbounded(each, name, {})] == []


@pytest.mark.parametrize("model", [*OPS, *PASSES, Step, Input, RunConfig], ids=lambda model: model.__name__)
def test_every_number_of_a_model_has_bounds(model: type[BaseModel]) -> None:
    schema = model_schema(model)
    sections = {model.__name__: schema, **schema.get("$defs", {})}
    graphs = {"Graph", "Node", "Op", "History", "Ties"}  # whose bounds are the document's
    found = [text for name, each in sections.items() if name not in graphs for text in unbounded(each, name, sections)]
    named = ("Input.name", "FixedSize.input")  # names have a rule of their own
    assert [text for text in found if not text.startswith(named)] == []


def test_a_field_without_bounds_is_noticed() -> None:
    class Loose(BaseModel):
        number: int
        real: float
        texts: list[str]

    found = list(unbounded(model_schema(Loose), "it", {}))
    assert found == ["it.number: integer", "it.real: number", "it.texts: array", "it.texts.items: string"]


@pytest.mark.parametrize("kind", OPS, ids=lambda kind: kind.kind())
def test_schema_and_operator_agree(kind: type[Op]) -> None:
    """On every attribute at every edge; what a schema cannot say are conditions between attributes."""
    schema = json_schema()["$defs"][kind.kind()]
    taken = kind.examples()[0].op.attributes()
    for name in kind.model_fields.keys() - {"op"}:
        for value in (*edges(schema["properties"][name]), *EXTREMES):
            text = text_of({**taken, name: value})
            try:
                attributes: Any = parse(text)
            except GraphError:
                continue  # no JSON, or a number that Python does not read
            try:
                kind.model_validate(attributes)
                faults = set()
            except ValidationError as error:
                faults = {fault["type"] for fault in error.errors(include_url=False)}
            node = {"name": "y", "op": kind.kind(), "inputs": [], **attributes}
            fits = validator(kind.kind()).is_valid(node)
            assert fits or faults, f"only the schema refuses {name} = {value!r}"
            assert not fits or faults <= {"value_error"}, f"the schema accepts {name} = {value!r}: {faults}"


SECTIONS: dict[str, type[BaseModel]] = {
    "": RunConfig,
    "data": DataConfig,
    "policy": DagConfig,
    "objective": ObjectiveConfig,
    "optimizer": OptimizerConfig,
    "schedule": Alternating,
    "train": TrainConfig,
    "budget": BudgetConfig,
}
RUN_FIELDS = [(key, name) for key, model in SECTIONS.items() for name in model.model_fields if name not in SECTIONS]


@pytest.mark.parametrize(("section", "name"), RUN_FIELDS, ids=[".".join(pair) for pair in RUN_FIELDS])
def test_run_files_at_the_edges_are_read_or_refused(section: str, name: str) -> None:
    values = [*edges(model_schema(SECTIONS[section])["properties"][name]), *EXTREMES]
    for value in values:
        if isinstance(value, dict) and "@raw" in value:
            continue
        with suppress(RunError):
            config = parse_run({section: {name: value}} if section else {name: value}, "run.toml")
            assert parse_run(tomllib.loads(config.to_toml()), "run.toml") == config


WHOLE = (1, 2**31 - 1, 2**31, 2**53, 2**63 - 1)
REAL = (5e-324, 1e-38, 1.0, 10.0, 3.4e38)
SETTINGS: dict[str, dict[str, tuple[float, ...]]] = {
    "budget": {"parameters": WHOLE, "macs": WHOLE, "seconds": REAL},
    "policy": {"neurons": WHOLE, "samples": WHOLE, "ridge": REAL[:4], "significance": REAL[:3]},
    "train": {
        "batch_size": WHOLE,
        "learning_rate": REAL[:4],
        "learning_rate_final": REAL[:4],
        "weight_decay": (0.0, -0.0, *REAL),
        "keep_final": REAL[:3],
    },
}


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        (section, name, value)
        for section, names in SETTINGS.items()
        for name, values in names.items()
        for value in values
    ],
)
def test_runs_at_the_edges_end_in_a_result_or_a_word(section: str, name: str, value: float) -> None:
    import growir
    from tests.growth.problems import spirals

    settings: Any = {
        "budget": {"parameters": 60, "steps": 1},
        "train": {"epochs_between": 1, "epochs_final": 1},
        "policy": {"strategy": "whole", "neurons": 2},
    }
    settings[section][name] = value
    with suppress(RunError):
        assert growir.grow(None, spirals(60), **settings).summary["ended"]


# -- what bounds of single fields do not catch ------------------------------------------------------------------------


def document_of(*nodes: Json, shape: tuple[object, ...] = (3,), outputs: tuple[str, ...] = (), **more: object) -> Json:
    """A document of one input x and these nodes."""
    last = (nodes[-1]["name"],) if nodes else ("x",)
    inputs = [{"name": "x", "shape": ["N", *shape]}]
    return {"schema": "growir/1", "inputs": inputs, "nodes": list(nodes), "outputs": list(outputs or last), **more}


def node(name: str, op: str, *inputs: str, **attributes: object) -> Json:
    """A node as its document has it."""
    return {"name": name, "op": op, "inputs": list(inputs), **attributes}


def grown() -> Json:
    """A document with one step in its history."""
    graph = load(document_of(node("dead", "relu", "x"), node("out", "linear", "x", out_features=2)))
    return to_data(EliminateDead().rewrite(graph).graph)


@pytest.mark.parametrize("size", [0, -1, 2**31, 2**63, 1.0, True, None, "3"])
@pytest.mark.parametrize("kind", [op for op in OPS if op.arity[0] == 1], ids=lambda kind: kind.kind())
def test_an_input_of_no_size_is_a_problem_whoever_reads_it(kind: type[Op], size: object) -> None:
    example = kind.examples()[0]
    reader = node("y", kind.kind(), "x", **example.op.attributes())
    with pytest.raises(GraphError, match=r"inputs\[0\] 'x': shape is .*: sizes are whole numbers from 1 to 2147483647"):
        load(document_of(reader, shape=(*example.inputs[0].sizes[:-1], size)))


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (("N", 0), "input 'x': shape is .*: sizes are whole numbers from 1 to 2147483647"),
        ((3, 4), "input 'x': shape is .*: it must be .* with the batch first"),
        (("N", *[1] * MAX_RANK), "input 'x': shape is .*: it has 65 axes; at most 64 may be"),
        (5, "input 'x': shape is 5: a list is needed"),
    ],
)
def test_an_input_made_in_python_is_checked_alike(shape: Any, says: str) -> None:
    with pytest.raises(GraphError, match=says):
        Input(name="x", shape=shape)


def test_a_value_of_too_many_axes_is_a_problem() -> None:
    nodes = [node(f"u{k}", "unsqueeze", f"u{k - 1}" if k else "x", dim=1) for k in range(100)]
    with pytest.raises(GraphError, match=r"nodes\[63\] 'u63': its value .* has 66 axes; at most 64 may be"):
        load(document_of(*nodes))


@pytest.mark.parametrize("number", ["1e400", "-1e999"])
def test_a_number_beyond_all_floats_is_a_problem_wherever_it_stands(number: str) -> None:
    """In a step's fields nothing else would look at it, and no text could repeat it."""
    data = grown()
    data["history"]["steps"][0]["note"] = 12321
    with pytest.raises(GraphError, match=rf"{number} is larger than any float; numbers lie within 1.8e308"):
        load(json.dumps(data).replace("12321", number))


def test_a_step_is_nested_as_deeply_as_it_can_be_written_again() -> None:
    data = grown()
    for depth in (MAX_DEPTH - 1, MAX_DEPTH):
        data["history"]["steps"][0]["note"] = json.loads("[" * depth + "]" * depth)
        if depth < MAX_DEPTH:
            assert load(json.dumps(data)).history is not None
        else:
            with pytest.raises(
                GraphError, match=r"history.steps\[0\] 'eliminate_dead': its fields are nested more than 100"
            ):
                load(json.dumps(data))


def test_a_deeply_nested_attribute_is_a_problem() -> None:
    text = json.dumps(document_of(node("a", "linear", "x", out_features=12321)))
    with pytest.raises(GraphError, match="out_features is"):
        load(text.replace("12321", "[" * 900 + "]" * 900))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("version", 0, r"version: it is 0: input should be greater than 0"),
        ("version", 2**31, r"version: it is 2147483648: input should be less than or equal to 2147483647"),
        ("created", ["a b"], r"created\[0\]: it is \"a b\": a name is made of segments"),
        ("values", {"a.weight": "x"}, r"values.a.weight: it is \"x\": string should match pattern"),
    ],
)
def test_a_step_says_what_is_wrong_with_it(field: str, value: object, says: str) -> None:
    data = grown()
    data["history"]["steps"][0][field] = value
    with pytest.raises(GraphError, match=r"history.steps\[0\]." + says):
        load(data)


def test_texts_are_as_long_as_the_message_says() -> None:
    with pytest.raises(GraphError, match=r"nodes\[0\] 'a': source is a string of at most 10,000 characters"):
        load(document_of(node("a", "relu", "x", source="a" * 10_001)))
    with pytest.raises(GraphError, match="train_differs: an array of at most 100 strings of 1 to 10,000 characters"):
        load(document_of(node("a", "relu", "x"), train_differs=[""]))


# Each would be spelled out as some thousand million rows.
WIDE = {
    "flatten": document_of(
        node("a", "linear", "x", out_features=3),
        node("f", "flatten", "a"),
        node("h", "linear", "f", out_features=1),
        shape=(10**9, 1),
    ),
    "groups": document_of(
        node("a", "conv1d", "x", out_channels=10**9, kernel_size=1, groups=10**9),
        node("h", "conv1d", "a", out_channels=1, kernel_size=1),
        shape=(10**9, 3),
    ),
    "transposed groups": document_of(
        node("a", "conv_transpose1d", "x", out_channels=10**9, kernel_size=1, groups=10**9),
        node("h", "conv1d", "a", out_channels=1, kernel_size=1),
        shape=(10**9, 3),
    ),
    "reshape": document_of(
        node("a", "linear", "x", out_features=2 * 10**9),
        node("f", "reshape", "a", shape=[10**9, 2]),
        node("h", "linear", "f", out_features=1),
    ),
    "concat": document_of(
        node("c0", "linear", "x", out_features=1),
        *(node(f"c{k}", "concat", f"c{k - 1}", f"c{k - 1}") for k in range(1, 32)),
        node("h", "linear", "c31", out_features=1),
    ),
}


@pytest.mark.parametrize("name", WIDE)
def test_what_falls_into_too_many_rows_keeps_its_width(name: str) -> None:
    started = time.process_time()
    graph = load(WIDE[name])
    first = [space for space in analyse(graph).spaces if space.name in ("a", "c0")]
    if name != "reshape":  # which scales its first factor, a row for each
        assert all(any("262,144 rows" in pin.reason for pin in space.pins) for space in first)
    json.dumps(inspection(graph, spaces=True))
    assert time.process_time() - started < 20


def test_rows_below_the_limit_are_free() -> None:
    graph = load(document_of(*WIDE["flatten"]["nodes"], shape=(1000, 1)))
    (space,) = [space for space in analyse(graph).spaces if space.name == "a"]
    assert space.pins == ()


def test_many_wrong_names_are_told_in_time() -> None:
    """Every suggestion is looked for among all names."""
    count = 5000
    nodes = [node(f"c{k}", "relu", f"nope{k}") for k in range(count)]
    started = time.process_time()
    with pytest.raises(GraphError) as caught:
        load(document_of(*nodes, outputs=tuple(f"d{k}" for k in range(count))))
    assert time.process_time() - started < 10
    assert len(caught.value.problems) == 2 * count


def test_the_passes_inside_a_sequence_count_as_steps() -> None:
    graph = load(document_of(*(node(f"c{k}", "relu", f"c{k - 1}" if k else "x") for k in range(30))))
    step = {"pass": "sequence", "passes": [{"pass": "eliminate_dead"}] * 9999, "created": []}
    base = to_data(graph)
    with pytest.warns(UserWarning, match="to run 100,000 steps again on 30 nodes would take too long"):
        check_history(load({**base, "history": {"base": base, "steps": [step] * 10}}))


def test_the_place_of_an_input_is_its_place_in_the_document() -> None:
    data = document_of(node("a", "relu", "x"))
    data["inputs"] = [{"name": "y", "shape": []}, {"name": "x.z", "shape": ["N", 3]}, *data["inputs"]]
    with pytest.raises(GraphError) as caught:
        load(data)
    assert [problem.where for problem in caught.value.problems] == ["inputs[0] 'y'", "inputs[1] 'x.z'"]
