"""What widen, extend, split and prune share: they say what becomes of the units of a space, and nothing else."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from growir.addresses import Address, axis_names
from growir.channels import Analysis, ChannelSpace, analyse
from growir.edits import Edit
from growir.errors import PassRefused, cut
from growir.graph import Graph, Node, Reference
from growir.ops.spaces import Space
from growir.params import param_table
from growir.resize import AS_EVER, Start, Units, resize
from growir.rewrite import Change, Pass

MAX_UNITS = 10**7  # of one space; its new units are listed one by one


class Resizing(Pass):
    """A pass that changes the width of one channel space, and of those that must move with it.

    Attributes:
        node: Names the space: a node whose value holds only that space, or the name `channel_spaces` gives.
    """

    node: Reference

    def analysis(self, graph: Graph) -> Analysis:
        """The analysis that the space is looked up in."""
        return analyse(graph)

    def space(self, graph: Graph) -> ChannelSpace:
        """The space that is meant. Raises PassRefused if the name stands for none."""
        return self.analysis(graph).find(self.node, graph)

    def free_space(self, graph: Graph) -> ChannelSpace:
        """The space that is meant. Raises PassRefused if it may not change, with every reason."""
        space = self.space(graph)
        if space.pins:
            reasons = "; ".join(str(pin) for pin in space.pins)
            raise PassRefused(f"{self.where}: its width {space.width} is pinned by {reasons}")
        return space

    @property
    def where(self) -> str:
        """How messages begin."""
        return f"{self.name} {cut(self.node)}"

    def start(self, graph: Graph) -> Start:
        """How fresh entries start where no numbers are given."""
        return AS_EVER

    def given(self, graph: Graph, space: ChannelSpace) -> Mapping[str, NDArray[Any]]:
        """Those of its `values` that fill places of the new widths."""
        return self.values

    def pairs(self, space: ChannelSpace) -> tuple[Space, Sequence[int]] | None:
        """Of a split the space, and its units that get a partner each."""
        return None

    @abstractmethod
    def plan(self, space: ChannelSpace) -> dict[Space, Units]:
        """The new units of the space and of those that move with it, once every choice is resolved."""

    def mergeable(self, graph: Graph) -> bool:
        """Whether it can be carried out together with others that change other spaces."""
        return self.analysis(graph) is analyse(graph)

    def change(self, graph: Graph, step: int) -> Change:
        space = self.space(graph)
        first = list(self.earlier(graph, space))
        if first:
            changed = {node.name: node for node, _ in first}
            graph = graph.replace(nodes=[changed.get(node.name, node) for node in graph.nodes])
            space = self.space(graph)
        done = resize(
            graph,
            self.plan(space),
            seed=self.seed,
            step=step,
            values=self.given(graph, space),
            analysis=self.analysis(graph),
            start=self.start(graph),
            stride=space.growth,
            pairs=self.pairs(space),
        )
        edits = (*(edit for _, edit in first), *done.edits, *self.more(graph, space, step))
        return Change(done.nodes, graph.outputs, edits, inputs=done.inputs, entries=done.entries)

    def earlier(self, graph: Graph, space: ChannelSpace) -> Iterable[tuple[Node, Edit]]:
        """Nodes that change before the widths do, and the edits for them; their own widths stay."""
        return ()

    def more(self, graph: Graph, space: ChannelSpace, step: int) -> Iterable[Edit]:
        """Edits that follow those of the new widths."""
        return ()


def check_growth(where: str, space: ChannelSpace, by: int, stride: int) -> int:
    """How many strides a growth by so many positions is. Raises PassRefused if it is no whole number, or too many."""
    if by % stride:
        near = max(stride, round(by / stride) * stride)
        why = "it is normalised as a whole" if space.uniform else "its channels come in groups"
        raise PassRefused(f"{where}: it grows by multiples of {stride} ({why}), but by is {by}; try by={near}")
    strides = by // stride
    most = max(other.size + strides * units for other, units in space.growth.items())
    if most > MAX_UNITS:
        raise PassRefused(f"{where}: it would have {most:.3g} channels; at most {MAX_UNITS:.0e} are allowed")
    return strides


def check_copies(where: str, space: ChannelSpace, copies: Sequence[int], units: int) -> None:
    """Raise PassRefused unless these are the old units that so many new ones can be copies of."""
    if len(copies) != units or max(copies) >= space.units:
        raise PassRefused(f"{where}: copies must be {units} channel numbers below {space.units}{unit_size(space)}")
    if space.uniform and len(set(np.bincount(copies, minlength=space.units).tolist())) > 1:
        raise PassRefused(f"{where}: it is normalised as a whole, so every channel is copied equally often")


def grown_units(
    space: ChannelSpace, strides: int, copies: Sequence[int], shares: Sequence[float], apart: float = 0.0
) -> dict[Space, Units]:
    """The new units of a space, fresh or copied with shares and kept apart, and of those that move with it."""
    found: dict[Space, Units] = {}
    for other, each in space.growth.items():
        units = strides * each
        if not copies:
            found[other] = fresh_units(other, units)
        elif other is space.space:
            found[other] = copied_units(other, copies, shares, apart)
        else:
            turn = in_turn(other, units)
            parts = equal_parts(turn) if apart else unequal_parts(turn)
            found[other] = copied_units(other, turn, parts if any(shares) else (0.0,) * units, apart)
    return found


def exceeds(analysis: Analysis, values: Mapping[str, NDArray[Any]]) -> bool:
    """Whether numbers are given where new ones must not exceed the old ones."""
    params = analysis.params
    return any((key := Address(address).key) in params and params[key].within for address in values)


def reads_given(graph: Graph, spaces: Iterable[ChannelSpace], values: Mapping[str, NDArray[Any]]) -> bool:
    """Whether what reads some spaces is given numbers other than zero for new units."""
    table = param_table(graph)
    read = {(s.parameter, axis_names(table[s.parameter].axes)[s.axis]) for each in spaces for s in each.consumers}
    keys = {key for key, _ in read}
    for address, array in values.items():
        place = Address(address)
        # Without an axis it is the only one of its tensor that grows; a corner is read if one of its sides is.
        is_read = any((place.key, axis) in read for axis in place.axes) if place.axes else place.key in keys
        if is_read and np.any(array):
            return True
    return False


def fresh_units(space: Space, count: int) -> Units:
    """A space's units with fresh ones behind them."""
    index = np.concatenate([np.arange(space.size), np.full(count, -1)])
    return Units(index, np.ones(len(index)))


def copied_units(space: Space, copies: Iterable[int], shares: Iterable[float], apart: float = 0.0) -> Units:
    """A space's units with copies behind them; each copy takes a share of its unit's outgoing weight."""
    index = np.fromiter(copies, np.int64)
    share = np.fromiter(shares, np.float64)
    left = np.ones(space.size)
    np.subtract.at(left, index, share)
    return Units(np.concatenate([np.arange(space.size), index]), np.concatenate([left, share]), apart)


def in_turn(space: Space, count: int) -> tuple[int, ...]:
    """The units to copy where nobody says which: each in turn, the first ones again if need be."""
    return tuple(k % space.size for k in range(count))


def unequal_parts(copies: tuple[int, ...]) -> tuple[float, ...]:
    """The share each copy takes: of k copies and their channel 1 : 2 : ... : k+1, the channel the largest.

    Equal parts would get equal gradients, and the copies would never differ.
    """
    total, seen = Counter(copies), Counter[int]()
    shares: list[float] = []
    for copy in copies:
        seen[copy] += 1
        parts = total[copy] + 1
        shares.append(seen[copy] / (parts * (parts + 1) / 2))
    return tuple(shares)


def equal_parts(copies: tuple[int, ...]) -> tuple[float, ...]:
    """The share each copy takes where a channel and its copies take the same."""
    total = Counter(copies)
    return tuple(1 / (total[copy] + 1) for copy in copies)


def check_strides(where: str, space: ChannelSpace, units: int, stride: int, what: str) -> int:
    """How many strides of so many units a number of units is. Raises PassRefused if it is no whole number."""
    if units % stride:
        near = max(stride, round(units / stride) * stride)
        others = len(space.growth) - 1
        why = f"{others} other spaces change with it" if others else "its channels come in groups"
        raise PassRefused(f"{where}: {what} a multiple of {stride} channels ({why}), but {units} are given; try {near}")
    return units // stride


def unit_size(space: ChannelSpace) -> str:
    """What one channel is where it is more than one position, for messages about channel numbers."""
    each = space.width // space.units
    return f": one channel of this space is {each} of the {space.width} positions" if each > 1 else ""
