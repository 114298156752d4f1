"""Widen: more channels in a space, with the function kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field

from growir.channels import ChannelSpace, analyse
from growir.errors import PassRefused, cut
from growir.graph import Graph
from growir.ops.base import NonNegativeInt, PositiveInt
from growir.resize import Units, resize
from growir.rewrite import Change, Pass, Preserves

MAX_UNITS = 10**7  # of one space; its new units are listed one by one
Share = Annotated[float, Field(strict=True, gt=0, lt=1)]


class Widen(Pass):
    """Add channels to a space, wherever it appears.

    By default new channels are *fresh*: initialised incoming weights, zero outgoing ones, so the function is kept and
    they learn at once. With `copies`, each new channel is a copy of an old one and takes a share of its outgoing weight
    (Net2Net, Chen et al. 2016). A space that is normalised as a whole grows by copies of every channel.

    Attributes:
        node: Names the space: a node whose value holds only that space, or the name `channel_spaces` gives.
        by: How many positions that node's width gains; a multiple of the space's step.
        copies: The old channel (unit of the space) each new one copies; empty for fresh channels.
        shares: The share of the old channel's outgoing weight each copy takes. By default k copies of a channel and the
            channel itself take parts 1 : 2 : ... : k+1; equal parts would get equal gradients and never differ.
    """

    name: ClassVar[str] = "widen"

    node: str
    by: PositiveInt
    copies: tuple[NonNegativeInt, ...] = ()
    shares: tuple[Share, ...] = ()

    def _space(self, graph: Graph) -> ChannelSpace:
        return analyse(graph).find(self.node, graph)

    def check(self, graph: Graph) -> None:
        space = self._space(graph)
        where = f"widen {cut(self.node)}"
        if space.pins:
            reasons = "; ".join(str(pin) for pin in space.pins)
            raise PassRefused(f"{where}: its width {space.width} is pinned by {reasons}")
        if self.by % space.step:
            near = max(space.step, round(self.by / space.step) * space.step)
            why = "it is normalised as a whole" if space.uniform else "its channels come in groups"
            raise PassRefused(
                f"{where}: it grows by multiples of {space.step} ({why}), but by is {self.by}; try by={near}"
            )
        units = self.by // space.step * (space.units if space.uniform else 1)
        if space.units + units > MAX_UNITS:
            raise PassRefused(
                f"{where}: it would have {space.units + units:.3g} channels; at most {MAX_UNITS:.0e} are allowed"
            )
        if self.copies:
            self._check_copies(space, units, where)
        elif self.shares:
            raise PassRefused(f"{where}: shares go with copies; fresh channels have none")
        if space.uniform and self.values:
            raise PassRefused(f"{where}: it is normalised as a whole and grows by copies only; leave values out")

    def _check_copies(self, space: ChannelSpace, units: int, where: str) -> None:
        if space.tied:
            raise PassRefused(
                f"{where}: one tensor both produces and consumes these channels, so no copy can keep the function; "
                "leave copies out for fresh channels"
            )
        if len(self.copies) != units or max(self.copies) >= space.units:
            raise PassRefused(f"{where}: copies must be {units} channel numbers below {space.units}")
        if space.uniform and len(set(np.bincount(self.copies, minlength=space.units).tolist())) > 1:
            raise PassRefused(f"{where}: it is normalised as a whole, so every channel is copied equally often")
        if self.shares and len(self.shares) != units:
            raise PassRefused(f"{where}: shares must be as many as copies, {units}, but are {len(self.shares)}")
        left = np.ones(space.units)
        np.subtract.at(left, list(self.copies), self.shares or 0.0)
        if left.min() <= 0:
            raise PassRefused(f"{where}: the shares of one channel's copies must add up to less than 1")

    def preserves(self, graph: Graph) -> Preserves:
        space = self._space(graph)
        if any(np.any(self.values[slot.parameter]) for slot in space.consumers if slot.parameter in self.values):
            return Preserves.NOTHING
        return Preserves.EVAL if space.random else Preserves.EXACT

    def resolved(self, graph: Graph) -> Self:
        space = self._space(graph)
        copies = self.copies
        if space.uniform and not copies:
            copies = tuple(range(space.units)) * (self.by // space.step)
        if not copies:
            return self
        shares = self.shares or _parts(copies)
        return self.model_copy(update={"copies": copies, "shares": shares})

    def units(self, space: ChannelSpace) -> Units:
        """The space's new units, once every choice is resolved."""
        old = np.arange(space.units)
        if not self.copies:
            fresh = np.full(self.by // space.step, -1)
            return Units(np.concatenate([old, fresh]), np.ones(len(old) + len(fresh)))
        copies = np.array(self.copies)
        shares = np.array(self.shares)
        left = np.ones(space.units)
        np.subtract.at(left, copies, shares)
        return Units(np.concatenate([old, copies]), np.concatenate([left, shares]))

    def change(self, graph: Graph, step: int) -> Change:
        space = self._space(graph)
        done = resize(graph, {space.space: self.units(space)}, seed=self.seed, step=step, values=self.values)
        return Change(done.nodes, graph.outputs, done.edits)

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for space in analyse(graph).spaces:
            if not space.pins:
                yield cls(node=space.name, by=space.step)
                if not (space.uniform or space.tied):
                    yield cls(node=space.name, by=space.step, copies=(space.units - 1,))


def _parts(copies: tuple[int, ...]) -> tuple[float, ...]:
    """The share each copy takes: of k copies and their channel 1 : 2 : ... : k+1, the channel the largest."""
    total, seen = Counter(copies), Counter[int]()
    shares: list[float] = []
    for copy in copies:
        seen[copy] += 1
        parts = total[copy] + 1
        shares.append(seen[copy] / (parts * (parts + 1) / 2))
    return tuple(shares)
