"""Phrases and lines that people read: sizes, fields, inputs, steps of a history, modules and what marks a graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from growir.costs import Costs
from growir.errors import cut
from growir.graph import FixedSize, Graph, Input, Node, Step
from growir.lengths import bounds_of

MAX_ROWS = 200
MAX_PASSES_SHOWN = 8  # of a sequence on one line
MAX_DEPTH = 20  # of sequences within sequences
MAX_DIFFERENCES_SHOWN = 8
MAX_LINE = 120
FEW_ROWS = 10  # a module table this short tells less than runs of the level below
SHORT_HASH = 12

Json = dict[str, Any]


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


def bounds_text(graph: Graph) -> str:
    """The axes of the inputs that may have any size up to a bound, a line each; empty if there are none."""
    lines = [
        f"  {cut(name)} axis {axis}, at most {bound.most}: table {cut(bound.table)}"
        for (name, axis), bound in bounds_of(graph).items()
    ]
    return "\n".join(["any size up to these is right:", *lines]) if lines else ""


def costs_data(costs: Costs) -> Json:
    """Total costs as JSON values."""
    names = ("parameters", "buffers", "macs", "peak_bytes", "training_bytes")
    return {name: getattr(costs, name) for name in names}
