"""Where the entries of a graph's inputs and outputs lie after a rewrite that lengthens some, and what callers do then.

Most rewrites leave what callers see as it is. One that adds classes, tokens, positions or features does not: what it
promises of the function then holds for the *old entries*. New inputs that hold the old numbers at their old places, and
any numbers at the new ones, give the old outputs at their old places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from growir.errors import cut
from growir.graph import Graph
from growir.ops import Embedding, Shape
from growir.params import frozen_keys, param_table
from growir.shapes import shapes_of

Index = NDArray[np.int64]
Moves = Mapping[int, Index]  # for each axis that changed, the old place of every new one, -1 where there is none


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Where old entries went, by the axes of inputs and outputs that became longer; empty for most rewrites.

    Attributes:
        inputs: By the input's name.
        outputs: By the output's place among the graph's outputs.
        zero: Whether the promise needs the new entries of inputs to be zero.
    """

    inputs: Mapping[str, Moves] = field(default_factory=dict[str, Moves])
    outputs: Mapping[int, Moves] = field(default_factory=dict[int, Moves])
    zero: bool = False

    def then(self, later: Entries) -> Entries:
        """Both, one after the other."""
        return Entries(
            {name: _chained(self.inputs.get(name, {}), later.inputs.get(name, {})) for name in _keys(self, later)},
            {
                k: _chained(self.outputs.get(k, {}), later.outputs.get(k, {}))
                for k in sorted({*self.outputs, *later.outputs})
            },
            self.zero or later.zero,
        )

    def kept(self, output: int) -> Mapping[int, Index]:
        """For each axis of an output that changed, the places at which its old entries now lie, in their old order."""
        return {axis: old_places(index) for axis, index in self.outputs.get(output, {}).items()}


UNCHANGED = Entries()


def old_places(index: Index) -> Index:
    """Where each old entry lies now.

    With two entries, then a third that is new: [0, 1, -1] gives [0, 1]. After an exchange, [1, 0], it gives [1, 0].
    """
    kept = np.flatnonzero(index >= 0)
    return kept[np.argsort(index[kept], kind="stable")]


def first_of_each(index: Index) -> Index:
    """The index with -1 in place of every further copy of an old entry: a copy is new to who reads it."""
    found = np.full(len(index), -1)
    _, first = np.unique(index, return_index=True)
    found[first] = index[first]
    return found


def _keys(one: Entries, other: Entries) -> list[str]:
    return sorted({*one.inputs, *other.inputs})


def _chained(first: Moves, then: Moves) -> Moves:
    found = dict(first)
    for axis, index in then.items():
        before = found.get(axis)
        found[axis] = index if before is None else np.where(index < 0, -1, before[index.clip(0)])
    return found


# -- for people -------------------------------------------------------------------------------------------------------


def for_callers(before: Graph, after: Graph) -> tuple[str, ...]:
    """What a rewrite asks of those who call the network: one sentence for each input, output or table that grew."""
    asked = (*_inputs(before, after), *_tables(before, after), *_outputs(before, after))
    return (*asked, *_frozen(before, after)) if asked else ()


def _inputs(before: Graph, after: Graph) -> list[str]:
    old = {entry.name: Shape(entry.shape) for entry in before.inputs}
    found: list[str] = []
    for entry in after.inputs:
        a, b = old.get(entry.name), Shape(entry.shape)
        if a is not None and a != b:
            text = f"input {cut(entry.name)} takes {b} where it took {a}: callers give {_new(a, b)} too"
            found.append("; ".join([text, *_numbers(after, entry.name, a, b)]))
    return found


def _numbers(graph: Graph, name: str, old: Shape, new: Shape) -> list[str]:
    """Where the old size of an axis became a number of the graph: lengths have followed, other uses have not."""
    return [
        f"its size {old.dims[rule.axis]} became a number of the graph"
        + (f" ({cut(rule.why)})" if rule.why else "")
        + f": where that is more than a length, a divisor say, it is still {old.dims[rule.axis]}"
        for rule in graph.fixed_sizes
        if rule.input == name and old.dims[rule.axis] != new.dims[rule.axis]
    ]


def _tables(before: Graph, after: Graph) -> list[str]:
    found: list[str] = []
    for node in after.nodes:
        if node.name not in before or not isinstance(node.op, Embedding):
            continue
        op = before[node.name].op
        if isinstance(op, Embedding) and op.num_embeddings < node.op.num_embeddings:
            new = _span(op.num_embeddings, node.op.num_embeddings)
            found.append(
                f"embedding {cut(node.name)} knows {node.op.num_embeddings} integers where it knew "
                f"{op.num_embeddings}: a tokenizer may give {new} too"
            )
    return found


def _outputs(before: Graph, after: Graph) -> list[str]:
    found: list[str] = []
    pairs: Sequence[tuple[str, str]] = list(zip(before.outputs, after.outputs))
    for old, new in dict.fromkeys(pairs):
        a, b = shapes_of(before)[old], shapes_of(after)[new]
        if a.dims != b.dims:
            found.append(
                f"output {cut(new)} is {b} where it was {a}: {_new(a, b)} are new; targets, class weights and metrics "
                "that count them must follow"
            )
    return found


def _frozen(before: Graph, after: Graph) -> list[str]:
    """Frozen tensors with new entries."""
    old, new = param_table(before), param_table(after)
    grown = [k for k in sorted(frozen_keys(after)) if k in old and k in new and old[k].elements < new[k].elements]
    return [f"{cut(key)} is frozen, so its new entries are not trained unless it is thawed" for key in grown]


def _new(old: Shape, new: Shape) -> str:
    if old.rank != new.rank:
        return "all entries"
    axes = [
        f"{_span(a, b)} of axis {k}"
        for k, (a, b) in enumerate(zip(old.dims, new.dims, strict=True))
        if isinstance(a, int) and isinstance(b, int) and a < b
    ]
    return "entries " + " and ".join(axes) if axes else "all entries"


def _span(start: int, stop: int) -> str:
    return str(start) if stop == start + 1 else f"{start} to {stop - 1}"
