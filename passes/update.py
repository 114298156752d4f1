"""Update: recorded numbers added to whole parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field

from growir.edits import Edit, Shift
from growir.errors import PassRefused, cut
from growir.graph import Graph, Reference
from growir.nearest import alternatives
from growir.ops.base import MAX_ENTRIES
from growir.params import frozen_keys, owners, param_table
from growir.rewrite import Change, Pass, Preserves

ZERO = np.zeros(())


class Update(Pass):
    """Add numbers to parameters, entry by entry; the graph stays as it is, and so does optimizer state.

    This is how a change of weights that goes with a growth (a step along a gradient, statistics of a batch norm that
    were measured anew) becomes a part of the history, which replays it. Without numbers it adds zeros.

    A buffer such as `norm.running_mean` may be updated too: it is how a norm is calibrated anew. A frozen parameter
    may: training leaves it as it is, and a pass that names it means it.

    Attributes:
        parameters: The keys of the tensors, each once. `values` gives the numbers of some or all of them by key, in the
            shape of the whole tensor; the others get zeros.
    """

    name: ClassVar[str] = "update"
    keyed: ClassVar[bool] = False

    parameters: Annotated[tuple[Reference, ...], Field(min_length=1, max_length=MAX_ENTRIES)]

    def check(self, graph: Graph) -> None:
        table, own = param_table(graph), owners(graph)
        for key in self.parameters:
            if key not in table:
                near = f" Name it as its owner does, {cut(own[key])!r}." if key in own else alternatives(key, table)
                raise PassRefused(f"{self.name}: the graph has no parameter {cut(key)!r} of its own.{near}")
            if table[key].dtype != "float":
                raise PassRefused(
                    f"{self.name}: {cut(key)} counts in whole numbers and cannot be added to; leave it out"
                )
        if len(set(self.parameters)) < len(self.parameters):
            twice = next(key for k, key in enumerate(self.parameters) if key in self.parameters[:k])
            raise PassRefused(f"{self.name}: {cut(twice)} is named twice; name it once, with the sum of its numbers")
        for key, array in self.values.items():
            if key not in self.parameters:
                near = alternatives(key, self.parameters)
                raise PassRefused(
                    f"{self.name}: values are given for {cut(key)}, which parameters does not name.{near}"
                )
            if array.shape != table[key].shape:
                raise PassRefused(
                    f"{self.name}: {cut(key)} has shape {table[key].shape}, but values give {array.shape}; give a "
                    "number for each of its entries"
                )

    def preserves(self, graph: Graph) -> Preserves:
        moves = any(np.any(array) for array in self.values.values())
        return Preserves.NOTHING if moves else Preserves.EXACT

    def change(self, graph: Graph, step: int) -> Change:
        table = param_table(graph)
        by = {key: self.values.get(key, np.broadcast_to(ZERO, table[key].shape)) for key in self.parameters}
        return Change(graph.nodes, graph.outputs, [Shift(key, block) for key, block in by.items()])

    def blocks(self, grown: Graph, edits: Sequence[Edit]) -> dict[str, tuple[int, ...]]:
        return {edit.key: edit.by.shape for edit in edits if isinstance(edit, Shift)}

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        learned = [
            key
            for key, param in param_table(graph).items()
            if not param.buffer and param.dtype == "float" and key not in frozen_keys(graph)
        ]
        yield from (cls(parameters=(key,)) for key in learned)
        if len(learned) > 1:
            yield cls(parameters=tuple(learned))
