"""Prune: channels that go, with every weight that made or read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictBool

from growir.channels import ChannelSpace, Slot, analyse
from growir.edits import Derive, Edit
from growir.errors import PassRefused, cut
from growir.graph import Graph, Node
from growir.layers import has_bias, shared_tensors
from growir.ops import Conv2d, Linear
from growir.ops.base import NonNegativeInt
from growir.ops.spaces import Space
from growir.passes.constants import added_bias, constant_of
from growir.passes.resizing import MAX_UNITS, Resizing, check_strides, unit_size
from growir.resize import Units
from growir.rewrite import Preserves
from growir.shapes import shapes_of


class Prune(Resizing):
    """Remove channels from a space, wherever it appears.

    What is left computes what the whole computed with the consumers' weights for these channels at zero; so the
    function is kept where they were zero, or where the channels always are. A space that is normalised as a whole loses
    them from its statistics too. `Network.measure` says how far the outputs move.

    A channel that nothing feeds, its weights or its norm's scale being zero, is not zero behind a bias, a norm or an
    activation, but constant. With `fold` that constant is added to the biases of the layers that read it. This is exact
    unless a reader pads its input with zeros, where the border saw less of the constant.

    Attributes:
        node: Names the space: a node whose value holds only that space, or the name `channel_spaces` gives.
        channels: The units of the space to remove, each once.
        fold: Keep what the channels would be if nothing fed them.
    """

    name: ClassVar[str] = "prune"

    channels: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=MAX_UNITS)]
    fold: StrictBool = False

    def check(self, graph: Graph) -> None:
        space = self.free_space(graph)
        if max(self.channels) >= space.units or len(set(self.channels)) < len(self.channels):
            raise PassRefused(f"{self.where}: channels must be different numbers below {space.units}{unit_size(space)}")
        if self.values:
            raise PassRefused(f"{self.where}: nothing is fresh that values could fill; leave them out")
        strides = check_strides(self.where, space, len(self.channels), space.shrink[space.space], "it loses")
        for other, units in space.shrink.items():
            if other.size <= strides * units:
                most = min((other.size - 1) // units for other, units in space.shrink.items())
                raise PassRefused(
                    f"{self.where}: {strides * units} of {other.size} channels would go, and one must stay; at most "
                    f"{most * space.shrink[space.space]} can be removed"
                )

        if self.fold:
            self._folds(graph, space)

    def mergeable(self, graph: Graph) -> bool:
        return not self.fold

    def earlier(self, graph: Graph, space: ChannelSpace) -> Iterable[tuple[Node, Edit]]:
        return self._folds(graph, space) if self.fold else ()

    def _folds(self, graph: Graph, space: ChannelSpace) -> list[tuple[Node, Edit]]:
        """Every layer that reads the channels, with a bias, and the edit that adds the constants to it."""
        gone = {other: np.setdiff1d(np.arange(other.size), units.index) for other, units in self.plan(space).items()}
        found: list[tuple[Node, Edit]] = []
        for read in analyse(graph).spaces:
            if read.space in gone:
                found += [self._fold(graph, slot, gone[read.space]) for slot in read.consumers]
        if len({node.name for node, _ in found}) < len(found):
            raise PassRefused(f"{self.where}: several of its spaces meet in one layer; fold is not known there")
        return found

    def _fold(self, graph: Graph, slot: Slot, gone: NDArray[np.int64]) -> tuple[Node, Edit]:
        name, _, parameter = slot.parameter.rpartition(".")
        node = graph[name]
        plain = isinstance(node.op, Linear | Conv2d) and len(node.inputs) == 1 and parameter == "weight"
        if not plain or getattr(node.op, "groups", 1) > 1 or shared_tensors(graph, name):
            raise PassRefused(
                f"{self.where}: {cut(name)} reads these channels, and fold is known for linear layers and convolutions "
                "without groups whose tensors are their own"
            )
        at = [(start + gone[:, None] * block + np.arange(block)).ravel() for start, _, block in slot.runs]
        axis = shapes_of(graph)[node.inputs[0]].rank - 1 if isinstance(node.op, Linear) else 1
        try:
            constant = constant_of(graph, node.inputs[0], axis)
        except PassRefused as error:
            raise PassRefused(f"{self.where}: its constants cannot be folded into {cut(name)}: {error}") from None
        biased = has_bias(graph, name)
        folded = added_bias(graph, node, biased, constant, np.concatenate(at))
        return node if biased else node.with_op(bias=True), Derive(f"{name}.bias", folded.formula, folded.sources)

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.APPROXIMATE

    def plan(self, space: ChannelSpace) -> dict[Space, Units]:
        strides = len(self.channels) // space.shrink[space.space]
        found: dict[Space, Units] = {}
        for other, units in space.shrink.items():
            gone = self.channels if other is space.space else range(other.size - strides * units, other.size)
            left = np.setdiff1d(np.arange(other.size), np.fromiter(gone, np.int64))
            found[other] = Units(left, np.ones(len(left)))
        return found

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Prune]:
        for space in analyse(graph).spaces:
            if not space.pins and all(other.size > units for other, units in space.shrink.items()):
                yield cls(node=space.name, channels=tuple(range(space.shrink[space.space])))
