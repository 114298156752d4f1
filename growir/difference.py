"""The semantic difference of two graphs or networks.

Names are identity: a pass never reuses one, so nodes are matched by name alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from growir.columns import folded
from growir.costs import Costs, costs_of
from growir.document import function_hash, step_data
from growir.errors import cut
from growir.graph import FixedSize, Graph, Input, Node, Step, graph_of
from growir.identity import node_data
from growir.show import (
    MAX_LINE,
    SHORT_HASH,
    costs_data,
    field_text,
    fixed_size_text,
    input_text,
    some,
    step_text,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Json = dict[str, Any]


class Weighted(Protocol):
    """A graph with its tensors, such as a Network."""

    @property
    def graph(self) -> Graph:
        """The architecture."""
        ...

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Its tensors by state_dict key."""
        ...


@dataclass(frozen=True, slots=True)
class Field:
    """One field with another value: an attribute, a tied parameter, a cost. None where a side has none."""

    name: str
    before: Any
    after: Any
    width: bool = False


@dataclass(frozen=True, slots=True)
class Edges:
    """What one node reads differently.

    Attributes:
        added: Values it now reads too.
        removed: Values it no longer reads.
        repointed: (before, after) where an input was exchanged in its place.
        reordered: The inputs that stay stand in another order.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    repointed: tuple[tuple[str, str], ...] = ()
    reordered: bool = False


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node of both graphs that is not the same in them."""

    name: str
    kind: Field | None
    attributes: tuple[Field, ...]
    tied: tuple[Field, ...]
    edges: Edges | None


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as weights are compared: its shape, and a sha256 of dtype, shape and numbers."""

    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class WeightDifference:
    """Weights by state_dict key: how many are the same, and (before, after) of the others."""

    same: int
    changed: Mapping[str, tuple[Tensor, Tensor]]
    added: Mapping[str, Tensor]
    removed: Mapping[str, Tensor]

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed)


@dataclass(frozen=True)
class Difference:
    """All that two graphs or networks have not in common.

    Attributes:
        before: The first graph.
        after: The second.
        weights: None unless both sides have weights.
        with_weights: Which sides have weights.
        passes: The recorded steps that lead from the first to the second; empty unless its history goes on from there.
    """

    before: Graph
    after: Graph
    weights: WeightDifference | None
    with_weights: tuple[bool, bool]
    passes: tuple[Step, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs; names of graphs, histories and where they come from are no part of a network."""
        return self.before.hash == self.after.hash and not self.weights

    @property
    def verdict(self) -> str:
        """What it comes to, in words."""
        if not self.same:
            return "different"
        return "the graphs are the same" if self.weights is None and any(self.with_weights) else "no difference"

    @cached_property
    def added(self) -> tuple[Node, ...]:
        """Nodes only the second graph has."""
        return tuple(node for node in self.after.nodes if node.name not in self.before)

    @cached_property
    def removed(self) -> tuple[Node, ...]:
        """Nodes only the first graph has."""
        return tuple(node for node in self.before.nodes if node.name not in self.after)

    @cached_property
    def changed(self) -> tuple[NodeChange, ...]:
        """Nodes of both graphs that are not the same in them."""
        pairs = [(self.before[n.name], n) for n in self.after.nodes if n.name in self.before]
        pairs = [(a, b) for a, b in pairs if (a.op, a.inputs, a.tied, a.frozen) != (b.op, b.inputs, b.tied, b.frozen)]
        if not pairs:
            return ()
        widths = _width_attributes(self.before) | _width_attributes(self.after)
        return tuple(_node_change(a, b, widths) for a, b in pairs)

    @cached_property
    def reordered(self) -> bool:
        """Whether the nodes of both graphs stand in another order."""
        first = [node.name for node in self.before.nodes if node.name in self.after]
        return first != [node.name for node in self.after.nodes if node.name in self.before]

    @property
    def inputs(self) -> tuple[tuple[Input, ...], tuple[Input, ...]] | None:
        """Both graphs' inputs, if they differ."""
        both = self.before.inputs, self.after.inputs
        return both if both[0] != both[1] else None

    @property
    def outputs(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Both graphs' outputs, if they differ."""
        both = self.before.outputs, self.after.outputs
        return both if both[0] != both[1] else None

    @property
    def train_differs(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """What either is said not to have of its model's train mode, if that differs."""
        both = self.before.train_differs, self.after.train_differs
        return both if both[0] != both[1] else None

    @property
    def fixed_sizes(self) -> tuple[tuple[FixedSize, ...], tuple[FixedSize, ...]] | None:
        """The axes of either's inputs that have one right size, if they differ."""
        both = self.before.fixed_sizes, self.after.fixed_sizes
        return both if both[0] != both[1] else None

    @property
    def costs(self) -> tuple[Costs, Costs]:
        """Both graphs' costs."""
        return costs_of(self.before), costs_of(self.after)

    def to_json(self) -> Json:
        """The difference as JSON values."""
        weights, fixed = self.weights, self.fixed_sizes
        return {
            "same": self.same,
            "before": {"name": self.before.name, "hash": self.before.hash, "costs": costs_data(self.costs[0])},
            "after": {"name": self.after.name, "hash": self.after.hash, "costs": costs_data(self.costs[1])},
            "passes": [step_data(step) for step in self.passes],
            "added": [node_data(node) for node in self.added],
            "removed": [node_data(node) for node in self.removed],
            "changed": [_change_data(change) for change in self.changed],
            "reordered": self.reordered,
            "inputs": None if self.inputs is None else [[i.model_dump() for i in side] for side in self.inputs],
            "outputs": self.outputs,
            "train_differs": self.train_differs,
            "fixed_sizes": fixed and [[entry.model_dump() for entry in side] for side in fixed],
            "weights": None if weights is None else _weights_data(weights),
        }

    def __str__(self) -> str:
        return folded("\n".join(line.text for line in lines(self)))


def diff(a: Graph | Weighted, b: Graph | Weighted) -> Difference:
    """What is different in `b` compared with `a`; each a graph or a network.

    Weights are compared where both sides have them. Raises GraphError for anything else.
    """
    graphs = [graph_of(side) for side in (a, b)]
    arrays = [None if isinstance(side, Graph) else side.arrays for side in (a, b)]
    weights = None if arrays[0] is None or arrays[1] is None else _weights(arrays[0], arrays[1])
    return Difference(
        before=graphs[0],
        after=graphs[1],
        weights=weights,
        with_weights=(arrays[0] is not None, arrays[1] is not None),
        passes=_passes(graphs[0], graphs[1]),
    )


def change_text(before: Graph, after: Graph) -> str:
    """What a rewrite did to a graph, on one line: widths, then nodes that came, went or read something else."""
    found = diff(before, after)
    widths = [
        f"{change.name} {json.dumps(field.before)} -> {json.dumps(field.after)}"
        for change in found.changed
        for field in change.attributes
        if field.width
    ]
    others = [c.name for c in found.changed if not any(field.width for field in c.attributes)]
    parts = (
        ("widths", widths),
        ("added", [node.name for node in found.added]),
        ("removed", [node.name for node in found.removed]),
        ("changed", others),
    )
    return "; ".join(f"{what} {some(names)}" for what, names in parts if names) or "nothing changed"


def _width_attributes(graph: Graph) -> set[tuple[str, str]]:
    from growir.channels import analyse

    return {(follower.node, follower.attribute) for follower in analyse(graph).followers}


def _node_change(a: Node, b: Node, widths: set[tuple[str, str]]) -> NodeChange:
    kinds = a.op.kind(), b.op.kind()
    if kinds[0] == kinds[1]:
        # A default is left out of a document, but to a reader of a change it is a value like any other.
        old, new = (node.op.model_dump(mode="json") for node in (a, b))
        names = [name for name in old if old[name] != new[name]]
    else:
        old, new = a.op.attributes(), b.op.attributes()
        names = list(dict.fromkeys((*old, *new)))
    attributes = [Field(n, old.get(n), new.get(n), (a.name, n) in widths) for n in names]
    if a.frozen != b.frozen:
        attributes.append(Field("frozen", list(a.frozen), list(b.frozen)))
    return NodeChange(
        name=a.name,
        kind=Field("op", *kinds) if kinds[0] != kinds[1] else None,
        attributes=tuple(attributes),
        tied=tuple(
            Field(n, a.tied.get(n), b.tied.get(n)) for n in sorted({*a.tied, *b.tied}) if a.tied.get(n) != b.tied.get(n)
        ),
        edges=_edges(a.inputs, b.inputs) if a.inputs != b.inputs else None,
    )


def _edges(old: Sequence[str], new: Sequence[str]) -> Edges:
    gone, come = Counter(old) - Counter(new), Counter(new) - Counter(old)
    if len(old) == len(new):
        exchanged = [(x, y) for x, y in zip(old, new, strict=True) if x != y]
        # Only if each gone one made room for one that came is it an exchange and not a new order as well.
        if Counter(x for x, _ in exchanged) == gone and Counter(y for _, y in exchanged) == come:
            return Edges(repointed=tuple(exchanged))
    stay = [_without(side, lost) for side, lost in ((old, gone), (new, come))]
    return Edges(tuple(come.elements()), tuple(gone.elements()), reordered=stay[0] != stay[1])


def _without(names: Iterable[str], lost: Counter[str]) -> list[str]:
    left = Counter(lost)
    kept: list[str] = []
    for name in names:
        if left[name]:
            left[name] -= 1
        else:
            kept.append(name)
    return kept


def _weights(a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]) -> WeightDifference:
    from growir.params import array_digest

    sides = [{k: Tensor(array.shape, array_digest(array)) for k, array in side.items()} for side in (a, b)]
    old, new = sides
    changed = {key: (old[key], new[key]) for key in old if key in new and old[key] != new[key]}
    return WeightDifference(
        same=len(old.keys() & new.keys()) - len(changed),
        changed=changed,
        added={key: tensor for key, tensor in new.items() if key not in old},
        removed={key: tensor for key, tensor in old.items() if key not in new},
    )


def _passes(a: Graph, b: Graph) -> tuple[Step, ...]:
    if b.history is None:
        return ()
    base = a if a.history is None else a.history.base
    before = () if a.history is None else a.history.steps
    if function_hash(base) != function_hash(b.history.base) or b.history.steps[: len(before)] != before:
        return ()
    return b.history.steps[len(before) :]


# -- as data ----------------------------------------------------------------------------------------------------------


def _change_data(change: NodeChange) -> Json:
    data: Json = {"name": change.name}
    if change.kind:
        data["op"] = [change.kind.before, change.kind.after]
    if change.attributes:
        data["attributes"] = {field.name: [field.before, field.after] for field in change.attributes}
        data["widths"] = [field.name for field in change.attributes if field.width]
    if change.tied:
        data["tied"] = {field.name: [field.before, field.after] for field in change.tied}
    if change.edges:
        edges = change.edges
        data["inputs"] = {
            "added": edges.added,
            "removed": edges.removed,
            "repointed": edges.repointed,
            "reordered": edges.reordered,
        }
    return data


def _weights_data(weights: WeightDifference) -> Json:
    def tensor(found: Tensor) -> Json:
        return {"shape": found.shape, "sha256": found.sha256}

    return {
        "same": weights.same,
        "changed": {key: [tensor(x) for x in both] for key, both in weights.changed.items()},
        "added": {key: tensor(x) for key, x in weights.added.items()},
        "removed": {key: tensor(x) for key, x in weights.removed.items()},
    }


# -- as text ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the text of a difference, and what it speaks of."""

    kind: Literal["heading", "added", "removed", "changed", "width", "plain"]
    text: str


def lines(difference: Difference) -> Iterator[Line]:
    """The difference as text for people, line by line."""
    yield Line("removed", f"--- {_title(difference.before)}")
    yield Line("added", f"+++ {_title(difference.after)}")
    if difference.passes:
        yield Line("heading", "grown by")
        yield from (Line("plain", f"  {step_text(step)}") for step in difference.passes)
    yield from _headed("graph", _graph_lines(difference))
    yield from _headed("nodes", _node_lines(difference))
    yield from _headed("costs", _cost_lines(*difference.costs))
    yield from _headed("weights", _weight_lines(difference))
    if difference.same:
        yield Line("plain", difference.verdict)


def _title(graph: Graph) -> str:
    return f"{cut(graph.name)}  {graph.hash[:SHORT_HASH]}"


def _headed(heading: str, found: Iterator[Line]) -> Iterator[Line]:
    for k, line in enumerate(found):
        if not k:
            yield Line("heading", heading)
        yield line


def _graph_lines(difference: Difference) -> Iterator[Line]:
    if difference.before.name != difference.after.name:
        yield Line("plain", f"  name {cut(difference.before.name)} -> {cut(difference.after.name)}")
    if difference.train_differs:
        old, new = ("; ".join(cut(text, MAX_LINE) for text in side) or "nothing" for side in difference.train_differs)
        yield Line("plain", f"  train mode of the model differs in {old} -> {new}")
    if difference.fixed_sizes:
        old, new = (
            "; ".join(fixed_size_text(graph, entry) for entry in graph.fixed_sizes) or "none"
            for graph in (difference.before, difference.after)
        )
        yield Line("plain", f"  fixed sizes {old} -> {new}")
    if difference.inputs:
        old, new = (", ".join(map(input_text, side)) for side in difference.inputs)
        yield Line("changed", f"  ~ inputs {old} -> {new}")
    if difference.outputs:
        old, new = (", ".join(side) for side in difference.outputs)
        yield Line("changed", f"  ~ outputs {old} -> {new}")
    if difference.reordered:
        yield Line("changed", "  ~ the nodes of both stand in another order")


def _node_lines(difference: Difference) -> Iterator[Line]:
    for node in difference.removed:
        yield Line("removed", f"  - {_node_text(node)}")
    for node in difference.added:
        yield Line("added", f"  + {_node_text(node)}")
    for change in difference.changed:
        if change.kind:
            yield Line("changed", f"  ~ {change.name}  op {change.kind.before} -> {change.kind.after}")
        for field in change.attributes:
            kind: Literal["width", "changed"] = "width" if field.width else "changed"
            yield Line(kind, f"  ~ {change.name}  {field.name} {_values(field)}")
        for field in change.tied:
            yield Line("changed", f"  ~ {change.name}  tied {field.name} {_values(field)}")
        if change.edges:
            yield Line("changed", f"  ~ {change.name}  inputs {_edge_text(change.edges)}")


def _node_text(node: Node) -> str:
    attributes = field_text(node.op.attributes())
    tied = field_text(node.tied)
    still = f"frozen {', '.join(node.frozen)}" if node.frozen else ""
    reads = f"<- {', '.join(node.inputs)}" if node.inputs else ""
    return "  ".join(filter(None, (node.name, node.op.kind(), attributes, tied and f"tied {tied}", still, reads)))


def _edge_text(edges: Edges) -> str:
    parts = [f"{old} -> {new}" for old, new in edges.repointed]
    parts += [f"+ {name}" for name in edges.added] + [f"- {name}" for name in edges.removed]
    if edges.reordered:
        parts.append("in another order")
    return ", ".join(parts)


def _values(field: Field) -> str:
    text = " -> ".join("none" if x is None else cut(json.dumps(x)) for x in (field.before, field.after))
    return text + _delta(field.before, field.after)


def _delta(before: object, after: object) -> str:
    """How much an integer grew."""
    return f" ({after - before:+,})" if type(before) is int and type(after) is int else ""


def _cost_lines(before: Costs, after: Costs) -> Iterator[Line]:
    old, new = costs_data(before), costs_data(after)
    for name in old:
        if old[name] != new[name]:
            yield Line("changed", f"  ~ {name} {old[name]:,} -> {new[name]:,}{_delta(old[name], new[name])}")


def _weight_lines(difference: Difference) -> Iterator[Line]:
    weights = difference.weights
    if weights is None:
        if any(difference.with_weights):
            which = "second" if difference.with_weights[1] else "first"
            yield Line("plain", f"  not compared: only the {which} has any")
        return
    for key, tensor in weights.removed.items():
        yield Line("removed", f"  - {cut(key)}  {list(tensor.shape)}")
    for key, tensor in weights.added.items():
        yield Line("added", f"  + {cut(key)}  {list(tensor.shape)}")
    for key, (old, new) in weights.changed.items():
        shapes = f"{list(old.shape)} -> {list(new.shape)}" if old.shape != new.shape else f"{list(new.shape)}"
        digests = f"sha256 {old.sha256[:SHORT_HASH]} -> {new.sha256[:SHORT_HASH]}"
        yield Line("changed", f"  ~ {cut(key)}  {shapes}  {digests}")
    if weights.same:
        yield Line("plain", f"  {weights.same:,} the same")
