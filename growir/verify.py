"""Checks of a whole graph: shapes, sizes, tied parameters. Everything that loads or rewrites goes through here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from growir.collecting import uncollected
from growir.document import MIGRATIONS, Migration, decode, draft
from growir.errors import GraphError, Problem, cut
from growir.graph import Graph, node_place
from growir.nearest import suggestion
from growir.ops import Param, ParamTable, Shape
from growir.shapes import infer_shapes, own_tables

MAX_PARAMETERS = 10**10


@uncollected()
def load(
    text: str | bytes | dict[str, Any],
    source: str = "",
    *,
    max_parameters: int = MAX_PARAMETERS,
    migrations: Mapping[str, Migration] = MIGRATIONS,
) -> Graph:
    """Read a graph document from its text or decoded JSON.

    Args:
        text: The document.
        source: Where it came from, for messages.
        max_parameters: The most numbers its parameters may hold.
        migrations: How older versions become current ones.

    Raises:
        GraphError: With every problem found, not only the first.
    """
    try:
        data = text if isinstance(text, dict) else decode(text)
        found = draft(data, migrations)
        problems = [*found.problems, *graph_problems(found.graph, found.unread, max_parameters)]
        if problems:
            raise GraphError(problems)
        history = found.graph.history
        if history is not None:
            verify(history.base, max_parameters=max_parameters)
        return found.graph
    except GraphError as error:
        raise error.at(source) from None


def verify(graph: Graph, *, max_parameters: int = MAX_PARAMETERS) -> Graph:
    """Return the graph if all of it is sound. Raises GraphError with every problem found."""
    problems = list(graph_problems(graph, frozenset(), max_parameters))
    if problems:
        raise GraphError(problems)
    return graph


def graph_problems(graph: Graph, unread: frozenset[str], max_parameters: int) -> Iterator[Problem]:
    """What shape inference, the limits and the tied parameters say."""
    known = [node for node in graph.nodes if node.name not in unread]
    names = [node.name for node in known]
    if len(set(names)) < len(names):
        return  # with two nodes of one name nothing below would mean anything
    shapes, problems = infer_shapes(graph)
    yield from problems
    tables = _tables(graph, shapes)
    yield from _size_problems(graph, tables, max_parameters)
    yield from _tied_problems(graph, tables)
    yield from _frozen_problems(graph, tables)
    for name in graph.outputs:
        if name in shapes and not shapes[name].batched:
            yield Problem("outputs", f"{cut(name)!r} has no batch axis: {shapes[name]}")


def _tables(graph: Graph, shapes: Mapping[str, Shape]) -> Mapping[str, ParamTable]:
    if all(node.name in shapes for node in graph.nodes):
        return own_tables(graph)
    fit = [node for node in graph.nodes if node.name in shapes]
    return {node.name: node.op.params(*(shapes[i] for i in node.inputs)) for node in fit}


def _size_problems(graph: Graph, tables: Mapping[str, ParamTable], limit: int) -> Iterator[Problem]:
    sizes = {
        node.name: sum(p.elements for key, p in tables[node.name].items() if key not in node.tied)
        for node in graph.nodes
        if node.name in tables
    }
    total = sum(sizes.values())
    if total > limit:
        largest = max(sizes, key=lambda name: sizes[name])
        text = (
            f"the graph has {total:.4g} parameters, {sizes[largest]:.4g} of them in {cut(largest)!r}; "
            f"at most {limit:.4g} are allowed (--max-parameters raises the limit)"
        )
        yield Problem("nodes", text)


def _tied_problems(graph: Graph, tables: Mapping[str, ParamTable]) -> Iterator[Problem]:
    seen: set[str] = set()
    for k, node in enumerate(graph.nodes):
        table = tables.get(node.name)
        if table is None:
            continue
        for parameter, owner in node.tied.items():
            where = node_place(k, node.name)
            host, _, name = owner.rpartition(".")
            if parameter not in table:
                known = ", ".join(table) or "none"
                yield Problem(where, f"tied names {cut(parameter)!r}, but {node.op.kind()} has {known}")
            elif host not in seen or name not in tables.get(host, {}):
                if host in tables or host not in graph:
                    near = suggestion(owner, [f"{each}.{key}" for each in seen for key in tables.get(each, {})])
                    text = f"tied {parameter} points to {cut(owner)!r}, which no earlier node has.{near}"
                    yield Problem(where, text)
            elif name in graph[host].tied:
                first = graph[host].tied[name]
                yield Problem(where, f"tied {parameter} points to {cut(owner)!r}, itself tied; point to {cut(first)!r}")
            elif tables[host][name].shape != table[parameter].shape:
                shapes = f"{list(tables[host][name].shape)} there and {list(table[parameter].shape)} here"
                yield Problem(where, f"tied {parameter} and {cut(owner)!r} must have one shape, but it is {shapes}")
            elif _role(tables[host][name]) != _role(table[parameter]):
                roles = f"{_role(tables[host][name])} there and {_role(table[parameter])} here"
                yield Problem(where, f"tied {parameter} and {cut(owner)!r} must be of one kind, but it is {roles}")
        seen.add(node.name)


def _frozen_problems(graph: Graph, tables: Mapping[str, ParamTable]) -> Iterator[Problem]:
    for k, node in enumerate(graph.nodes):
        table = tables.get(node.name)
        if table is None:
            continue
        for parameter in node.frozen:
            where = node_place(k, node.name)
            if parameter not in table:
                known = ", ".join(name for name, param in table.items() if not param.buffer) or "none"
                yield Problem(
                    where, f"frozen names {cut(parameter)!r}, but the parameters of {node.op.kind()}: {known}"
                )
            elif table[parameter].buffer:
                yield Problem(where, f"frozen names {cut(parameter)!r}, a buffer, which is never trained; leave it out")
            elif parameter in node.tied:
                text = f"frozen names {cut(parameter)!r}, which belongs to {cut(node.tied[parameter])!r}; say it there"
                yield Problem(where, text)


def _role(param: Param) -> str:
    return f"{'a buffer' if param.buffer else 'a trained parameter'} of {param.dtype}"
