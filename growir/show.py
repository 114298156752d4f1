"""What people read about a graph: the table of nodes, and the same as data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from growir.columns import Cells, Grid, folded
from growir.costs import Costs, costs_of
from growir.document import step_data
from growir.errors import counted, cut
from growir.graph import SCHEMA, FixedSize, Graph, HasGraph, Input, Node, Step, graph_of
from growir.shapes import shapes_of

MAX_ROWS = 200
MAX_LISTED_STEPS = 20
MAX_PASSES_SHOWN = 8  # of a sequence on one line
MAX_DEPTH = 20  # of sequences within sequences
MAX_DIFFERENCES_SHOWN = 8
MAX_LINE = 120
FEW_ROWS = 10  # a module table this short tells less than runs of the level below
SHORT_HASH = 12

Json = dict[str, Any]


# -- words and numbers ------------------------------------------------------------------------------------------------


def byte_text(count: int) -> str:
    """A size in bytes with a decimal prefix."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.0f} TB"


def si_text(count: float) -> str:
    """A count with three digits and a decimal prefix."""
    size = float(count)
    for prefix in ("", " k", " M", " G", " T", " P", " E"):
        if abs(size) < 999.5:
            return f"{size:.3g}{prefix}"
        size /= 1000
    return f"{float(count):.3g}"


def field_text(fields: Mapping[str, Any]) -> str:
    """Attributes or a pass's fields on one line."""
    return " ".join(f"{key}={cut(json.dumps(value))}" for key, value in fields.items())


def step_text(step: Step) -> str:
    """A history step on one line."""
    created = f"  created {some(step.created)}" if step.created else ""
    return f"{pass_text(step.kind, step.fields)}{created}"


def pass_text(kind: str, fields: Mapping[str, Any], depth: int = 0) -> str:
    """A recorded pass on one line: its name and arguments; of a sequence, those of each pass in it."""
    inside = sequence_parts(kind, fields)
    if not inside or depth == MAX_DEPTH:
        return f"{cut(kind)}  {field_text(_telling(fields))}".rstrip()
    shown = [pass_text(part["pass"], _arguments(part), depth + 1) for part in inside[:MAX_PASSES_SHOWN]]
    if len(inside) > MAX_PASSES_SHOWN:
        shown.append(f"{len(inside) - MAX_PASSES_SHOWN} more")
    return f"{kind}  {'; '.join(shown)}"


def sequence_parts(kind: str, fields: Mapping[str, Any]) -> list[Json]:
    """The passes of a recorded sequence, as data; none of any other pass, or where what is recorded is damaged."""
    passes = fields.get("passes") if kind == "sequence" else None
    if not isinstance(passes, (list, tuple)):
        return []
    parts = [cast("Json", part) for part in cast("list[object]", passes) if isinstance(part, dict)]
    return parts if len(parts) == len(cast("list[object]", passes)) and all(map(_named, parts)) else []


def _named(part: Mapping[str, Any]) -> bool:
    return isinstance(part.get("pass"), str)


def _arguments(part: Mapping[str, Any]) -> Json:
    return {key: value for key, value in part.items() if key not in ("pass", "version")}


def input_text(entry: Input) -> str:
    """A graph input on one line: name, shape, and dtype where it is not the usual one."""
    dims = ", ".join(str(d) for d in entry.shape)
    return f"{entry.name} ({dims})" + ("" if entry.dtype == "float32" else f" {entry.dtype}")


def some(names: Sequence[str], most: int = 6) -> str:
    """The first of many names, and how many more there are."""
    shown = ", ".join(cut(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown}, +{len(names) - most}"


def _telling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader wants of a recorded pass: not the seed of every one, nor its empty fields."""
    return {key: value for key, value in fields.items() if key != "seed" and value not in ([], None)}


def _node_fields(node: Node) -> str:
    tied = " ".join(f"{name}={cut(owner)}" for name, owner in sorted(node.tied.items()))
    still = f"frozen {', '.join(node.frozen)}" if node.frozen else ""
    return " ".join(filter(None, (field_text(node.op.attributes()), f"tied {tied}" if tied else "", still)))


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
    if spaces:
        from growir.space_table import space_parts

        parts += space_parts(graph, everything)
    if graph.history is not None:
        parts.append(_history_text(graph, everything))
    if graph.train_differs:
        parts.append(differences_text(graph))
    if graph.fixed_sizes:
        parts.append(fixed_text(graph))
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


def module_groups(nodes: Sequence[Node], limit: int = MAX_ROWS) -> list[tuple[str, list[Node]]]:
    """Nodes gathered into at most `limit` labelled groups, in document order of their first members.

    Groups are modules: the deepest level of dotted names that fits. Where modules are too many, or so few that they say
    nothing, neighbours of the level below are gathered into runs.
    """
    names = [node.name.split(".") for node in nodes]
    depth, count = 0, 0
    while depth < max(map(len, names), default=0):
        finer = len({tuple(parts[: depth + 1]) for parts in names})
        if finer > limit:
            break
        depth, count = depth + 1, finer
    runs = count < min(FEW_ROWS, len(nodes))
    groups: dict[str, list[Node]] = {}
    for node, parts in zip(nodes, names, strict=True):
        groups.setdefault(".".join(parts[: depth + 1 if runs else depth]), []).append(node)
    labels = list(groups)
    size = -(-len(labels) // limit)
    found: list[tuple[str, list[Node]]] = []
    for start in range(0, len(labels), size or 1):
        run = labels[start : start + size]
        members = [node for label in run for node in groups[label]]
        label = run[0] if members[0].name == run[0] else f"{run[0]}.*"
        found.append((label if len(run) == 1 else f"{run[0]} to {run[-1]}", members))
    return found


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


def differences_text(graph: Graph, most: int = MAX_DIFFERENCES_SHOWN) -> str:
    """What the model a graph was imported from does otherwise in train mode, a line each."""
    shown = [f"  {cut(text, MAX_LINE)}" for text in graph.train_differs[:most]]
    if len(graph.train_differs) > most:
        shown.append(f"  ... and {len(graph.train_differs) - most} more")
    return "\n".join(["train mode of the model it was imported from differs:", *shown])


def fixed_text(graph: Graph) -> str:
    """The axes of the inputs for which no other size is right, a line each."""
    lines = [f"  {fixed_size_text(graph, entry)}" for entry in graph.fixed_sizes]
    return "\n".join(["only this size is right:", *lines])


def fixed_size_text(graph: Graph, entry: FixedSize) -> str:
    """An axis of fixed size on one line: x axis 1, 5: net.py:12: x.sum(1) / x.shape[1]."""
    size = next(given.shape[entry.axis] for given in graph.inputs if given.name == entry.input)
    return f"{cut(entry.input)} axis {entry.axis}, {size}" + (f": {cut(entry.why, MAX_LINE)}" if entry.why else "")


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
    if graph.train_differs:
        whole["train_differs"] = list(graph.train_differs)
    if graph.fixed_sizes:
        whole["fixed_sizes"] = [entry.model_dump() for entry in graph.fixed_sizes]
    if graph.history is not None:
        steps = [step_data(step) for step in graph.history.steps]
        whole["history"] = {"base": graph.history.base.hash, "steps": steps}
    if spaces:
        from growir.space_table import space_data

        whole["spaces"] = space_data(graph)
    return whole


def costs_data(costs: Costs) -> Json:
    """Total costs as JSON values."""
    names = ("parameters", "buffers", "macs", "peak_bytes", "training_bytes")
    return {name: getattr(costs, name) for name in names}
