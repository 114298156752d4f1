"""All that `growir inspect` tells of a graph: the page with its tables, and the same as data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from growir.columns import Cells, Grid, folded
from growir.costs import Costs, costs_of
from growir.document import step_data
from growir.errors import counted, cut
from growir.graph import SCHEMA, Graph, HasGraph, Node, graph_of
from growir.lengths import bounds_of
from growir.shapes import shapes_of
from growir.show import (
    MAX_ROWS,
    SHORT_HASH,
    Json,
    bounds_text,
    byte_text,
    costs_data,
    differences_text,
    field_text,
    fixed_text,
    input_text,
    module_groups,
    some,
    step_text,
)
from growir.space_table import space_data, space_parts
from growir.stage_table import stage_data, stage_parts

MAX_LISTED_STEPS = 20

# -- the page ---------------------------------------------------------------------------------------------------------


def summary(graph: Graph | HasGraph) -> str:
    """A graph's or network's nodes, shapes and costs as a text table; over 200 nodes, collapsed by module.

    Raises GraphError for anything else.
    """
    return "\n\n".join(folded(part) if isinstance(part, str) else str(part) for part in page(graph_of(graph)))


def page(graph: Graph, *, everything: bool = False, spaces: bool = False) -> list[str | Grid]:
    """All that `inspect` prints, in order.

    Args:
        graph: A valid graph.
        everything: Every node, step and space, however many.
        spaces: Channel spaces too.
    """
    costs = costs_of(graph)
    parts: list[str | Grid] = [_heading(graph)]
    if everything or len(graph.nodes) <= MAX_ROWS:
        parts.append(_node_grid(graph, costs))
    else:
        parts.append(_module_grid(graph, costs))
        parts.append(f"{len(graph.nodes):,} nodes, collapsed; --all shows each")
    parts.append(_cost_text(costs))
    parts += stage_parts(graph)
    if spaces:
        parts += space_parts(graph, everything)
    if graph.history is not None:
        parts.append(_history_text(graph, everything))
    if graph.train_differs:
        parts.append(differences_text(graph))
    if graph.fixed_sizes:
        parts.append(fixed_text(graph))
    if bounds := bounds_text(graph):
        parts.append(bounds)
    return parts


def _heading(graph: Graph) -> str:
    shapes = shapes_of(graph)
    outputs = [f"{name} {shapes[name]}" for name in graph.outputs]
    lines = [
        f"{cut(graph.name)}  {SCHEMA}  {graph.hash[:SHORT_HASH]}",
        f"inputs   {_listed([input_text(entry) for entry in graph.inputs])}",
        f"outputs  {_listed(outputs)}",
    ]
    return "\n".join(lines)


def _listed(texts: Sequence[str], most: int = 8) -> str:
    more = f", +{len(texts) - most}" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


_HEADERS = ("node", "op", "attributes", "inputs", "shape", "parameters", "macs")
_NUMERIC = frozenset({"parameters", "macs"})


def _node_grid(graph: Graph, costs: Costs) -> Grid:
    shapes = shapes_of(graph)
    rows: list[Cells] = []
    for node in graph.nodes:
        own = costs.nodes[node.name]
        numbers = (f"{own.parameters:,}", f"{own.macs:,}")
        what = (cut(node.name), node.op.kind(), _node_fields(node), some(node.inputs))
        rows.append((*what, str(shapes[node.name]), *numbers))
    return Grid(_HEADERS, tuple(rows), _NUMERIC, below=(("inputs", "<- "), ("attributes", "")))


def _node_fields(node: Node) -> str:
    tied = " ".join(f"{name}={cut(owner)}" for name, owner in sorted(node.tied.items()))
    still = f"frozen {', '.join(node.frozen)}" if node.frozen else ""
    return " ".join(filter(None, (field_text(node.op.attributes()), f"tied {tied}" if tied else "", still)))


def _module_grid(graph: Graph, costs: Costs) -> Grid:
    shapes = shapes_of(graph)
    rows: list[Cells] = []
    for label, members in module_groups(graph.nodes):
        own = [costs.nodes[node.name] for node in members]
        numbers = (f"{sum(n.parameters for n in own):,}", f"{sum(n.macs for n in own):,}")
        rows.append((cut(label), str(len(members)), _kinds(members), str(shapes[members[-1].name]), *numbers))
    headers = ("module", "nodes", "ops", "shape", "parameters", "macs")
    return Grid(headers, tuple(rows), _NUMERIC | {"nodes"}, below=(("ops", ""),))


def _kinds(nodes: Iterable[Node], most: int = 5) -> str:
    count = Counter(node.op.kind() for node in nodes)
    shown = [kind if n == 1 else f"{n} {kind}" for kind, n in count.items()]
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")


def _cost_text(costs: Costs) -> str:
    buffers = f" + {costs.buffers:,} in buffers" if costs.buffers else ""
    return (
        f"parameters   {costs.parameters:,}{buffers}\n"
        f"macs         {costs.macs:,} per sample\n"
        f"activations  {byte_text(costs.peak_bytes)} per sample at most, {byte_text(costs.training_bytes)} in training"
    )


def _history_text(graph: Graph, everything: bool) -> str:
    assert graph.history is not None
    steps = graph.history.steps
    lines = [f"history: {counted(len(steps), 'step')} from {graph.history.base.hash[:SHORT_HASH]}"]
    first = 0 if everything else max(0, len(steps) - MAX_LISTED_STEPS)
    if first:
        lines.append(f"  ... {counted(first, 'earlier step')}; --all shows {'it' if first == 1 else 'them'}")
    lines += [f"  {k + 1}  {step_text(steps[k])}" for k in range(first, len(steps))]
    return "\n".join(lines)


# -- the same as data -------------------------------------------------------------------------------------------------


def inspection(graph: Graph, *, spaces: bool = False) -> Json:
    """All there is to say about a graph as JSON values: nodes, shapes, costs, history, and spaces if asked for."""
    costs, shapes = costs_of(graph), shapes_of(graph)
    nodes = []
    for node in graph.nodes:
        own = costs.nodes[node.name]
        data: Json = {
            "name": node.name,
            "op": node.op.kind(),
            "inputs": node.inputs,
            "attributes": node.op.attributes(),
            "shape": shapes[node.name].dims,
            "parameters": own.parameters,
            "buffers": own.buffers,
            "macs": own.macs,
            "activation_bytes": own.activation_bytes,
        }
        if node.tied:
            data["tied"] = dict(node.tied)
        if node.frozen:
            data["frozen"] = list(node.frozen)
        nodes.append(data)
    whole: Json = {
        "name": graph.name,
        "schema": SCHEMA,
        "hash": graph.hash,
        "inputs": [{"name": i.name, "shape": i.shape, "dtype": i.dtype} for i in graph.inputs],
        "outputs": [{"name": name, "shape": shapes[name].dims} for name in graph.outputs],
        "costs": costs_data(costs),
        "nodes": nodes,
    }
    if (staged := stage_data(graph))["stages"]:
        whole |= staged
    if graph.train_differs:
        whole["train_differs"] = list(graph.train_differs)
    if graph.fixed_sizes:
        whole["fixed_sizes"] = [entry.model_dump() for entry in graph.fixed_sizes]
    if bounds := bounds_of(graph):
        whole["bounds"] = [
            {"input": name, "axis": axis, "most": bound.most, "table": bound.table}
            for (name, axis), bound in bounds.items()
        ]
    if graph.history is not None:
        steps = [step_data(step) for step in graph.history.steps]
        whole["history"] = {"base": graph.history.base.hash, "steps": steps}
    if spaces:
        whole["spaces"] = space_data(graph)
    return whole
