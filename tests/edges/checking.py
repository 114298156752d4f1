"""What must hold of any text that is given for a document: a result or a GraphError, and the schema agrees."""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import jsonschema

from growir.costs import costs_of
from growir.document import dumps, parse
from growir.errors import GraphError
from growir.graph import Graph
from growir.inspecting import inspection, page, summary
from growir.network import Network
from growir.ops import OP_BY_KIND
from growir.replay import check_history
from growir.schema import json_schema
from growir.verify import load, verify

SMALL = 10**5  # parameters, and numbers of all values, up to which a network is made and run

# JSON Schema calls 3.0 an integer; a document does not.
_TYPES = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
_Validator: Any = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=_TYPES)


@cache
def validator(kind: str = "") -> Any:
    """The schema of one kind of node; without one, of all but the nodes, since finding one of 90 kinds takes long."""
    whole = json_schema()
    if kind:
        return _Validator(whole["$defs"][kind])
    bare = {**whole["$defs"]["document"]["properties"], "nodes": {"type": "array", "items": {"type": "object"}}}
    base = {**whole["$defs"]["document"], "properties": bare}
    properties = {**whole["properties"], "nodes": bare["nodes"]}
    return _Validator({**whole, "properties": properties, "$defs": {"document": base}})


def fits_schema(data: Any) -> bool:
    """Whether the schema accepts a decoded document."""
    if not validator().is_valid(data):
        return False
    documents = [data, *([data["history"]["base"]] if data.get("history") else [])]
    return all(
        node.get("op") in OP_BY_KIND and validator(node["op"]).is_valid(node)
        for each in documents
        for node in each["nodes"]
    )


def check(text: str) -> str:
    """What became of a document, in a word. Raises whatever is no GraphError, and AssertionError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = check_history(load(text))
        except GraphError as error:
            told = error
            graph = None
        if graph is None:
            assert told.problems
            assert all(problem.text for problem in told.problems)
            assert len(str(told)) < 20_000
            return "refused"
        assert fits_schema(parse(text)), "read, although the schema refuses it"
        again = check_history(load(dumps(graph)))
    assert again.hash == graph.hash
    assert dumps(again) == dumps(graph)
    verify(graph)
    assert summary(graph)
    assert page(graph, everything=True, spaces=True)
    json.dumps(inspection(graph, spaces=True), allow_nan=False)
    costs = costs_of(graph)
    if costs.parameters + costs.buffers + costs.training_bytes > SMALL:
        return "read"
    return run(graph)


def run(graph: Graph) -> str:
    """Lower a small graph to torch, which must take every attribute that the document may have."""
    Network.init(graph).to_torch()
    return "lowered"
