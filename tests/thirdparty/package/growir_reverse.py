"""Reverse: the channels of a space in the opposite order, with the function kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np

from growir.channels import analyse, channel_spaces
from growir.errors import PassRefused
from growir.graph import Graph
from growir.resize import Units, resize
from growir.rewrite import Change, Pass, Preserves


class Reverse(Pass):
    """Put the channels of a space into the opposite order, wherever they appear.

    Attributes:
        node: Names the space, as in `Widen`.
    """

    name: ClassVar[str] = "reverse"

    node: str

    def check(self, graph: Graph) -> None:
        space = analyse(graph).find(self.node, graph)
        if space.pins:
            raise PassRefused(f"reverse {self.node}: pinned by {'; '.join(map(str, space.pins))}")

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.EVAL if analyse(graph).find(self.node, graph).random else Preserves.EXACT

    def change(self, graph: Graph, step: int) -> Change:
        space = analyse(graph).find(self.node, graph)
        units = Units(np.arange(space.units)[::-1], np.ones(space.units))
        done = resize(graph, {space.space: units}, seed=self.seed, step=step)
        return Change(done.nodes, graph.outputs, done.edits)

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for space in channel_spaces(graph):
            if not space.pins and space.units > 1:
                yield cls(node=space.name)
