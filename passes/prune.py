"""Prune: channels that go, with every weight that made or read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from growir.channels import ChannelSpace, analyse
from growir.errors import PassRefused
from growir.graph import Graph
from growir.ops.base import NonNegativeInt
from growir.ops.spaces import Space
from growir.passes.resizing import Resizing, check_steps
from growir.resize import Units
from growir.rewrite import Preserves


class Prune(Resizing):
    """Remove channels from a space, wherever it appears.

    What is left computes what the whole computed with the consumers' weights for these channels at zero; so the
    function is kept where they were zero, or where the channels always are. A space that is normalised as a whole loses
    them from its statistics too. `Network.measure` says how far the outputs move.

    Attributes:
        node: Names the space: a node whose value holds only that space, or the name `channel_spaces` gives.
        channels: The units of the space to remove, each once.
    """

    name: ClassVar[str] = "prune"

    channels: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]

    def check(self, graph: Graph) -> None:
        space = self.free_space(graph)
        if max(self.channels) >= space.units or len(set(self.channels)) < len(self.channels):
            raise PassRefused(f"{self.where}: channels must be different numbers below {space.units}")
        if self.values:
            raise PassRefused(f"{self.where}: nothing is fresh that values could fill; leave them out")
        steps = check_steps(self.where, space, len(self.channels), space.shrink[space.space], "it loses")
        for other, units in space.shrink.items():
            if other.size <= steps * units:
                most = min((other.size - 1) // units for other, units in space.shrink.items())
                raise PassRefused(
                    f"{self.where}: {steps * units} of {other.size} channels would go, and one must stay; at most "
                    f"{most * space.shrink[space.space]} can be removed"
                )

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.NOTHING if self.space(graph).uniform else Preserves.APPROXIMATE

    def plan(self, space: ChannelSpace) -> dict[Space, Units]:
        steps = len(self.channels) // space.shrink[space.space]
        found: dict[Space, Units] = {}
        for other, units in space.shrink.items():
            gone = self.channels if other is space.space else range(other.size - steps * units, other.size)
            left = np.setdiff1d(np.arange(other.size), np.fromiter(gone, np.int64))
            found[other] = Units(left, np.ones(len(left)))
        return found

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Prune]:
        for space in analyse(graph).spaces:
            if not space.pins and all(other.size > units for other, units in space.shrink.items()):
                yield cls(node=space.name, channels=tuple(range(space.shrink[space.space])))
