"""Widen: more channels in a space, with the function kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from growir.channels import Analysis, ChannelSpace, analyse, opened
from growir.errors import PassRefused
from growir.graph import Graph
from growir.ops.base import MAX_REAL, NonNegativeInt, PositiveInt
from growir.ops.spaces import Space
from growir.passes.held import check_constants, held
from growir.passes.resizing import (
    MAX_UNITS,
    Resizing,
    check_copies,
    check_growth,
    equal_parts,
    exceeds,
    grown_units,
    in_turn,
    reads_given,
    unequal_parts,
)
from growir.resize import AS_EVER, Start, Units
from growir.rewrite import Preserves

Share = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]
SAME = 1e-9  # shares that differ by less are equal


class Widen(Resizing):
    """Add channels to a space, wherever it appears.

    By default new channels are *fresh*: initialised incoming weights, zero outgoing ones, so the function is kept and
    they learn at once. With `copies`, each new channel is a copy of an old one and takes a share of its outgoing weight
    (Net2Net, Chen et al. 2016). Copies compute one number, so weights that read them may differ by any numbers that sum
    to zero over a channel and its copies: with `apart` they do, and the copies part from the first step on. A space
    that is normalised as a whole grows by copies of every channel, in equal parts and kept apart. In a space that
    passes through a function that is not finite everywhere, fresh channels have the incoming weights of old ones.

    A space that only callers hold back (a graph input, an output, a table that integers choose from) may be named too.
    It is lengthened as `Extend` does it, and the function is kept at the old entries. `candidates` names none of those,
    so nothing that asks it changes how many classes there are.

    Attributes:
        node: Names the space: a node whose value holds only that space, or the name `channel_spaces` gives. Or a graph
            input.
        by: How many positions that node's width gains; a multiple of the space's stride.
        copies: The old channel (unit of the space) each new one copies; empty for fresh channels.
        shares: The share of the old channel's outgoing weight each copy takes. By default k copies of a channel and the
            channel itself take parts 1 : 2 : ... : k+1; equal parts would get equal gradients and never differ. In
            a space that is normalised as a whole, or with `apart`, they are equal.
        apart: By how many standard deviations of their own the weights that read a channel and its copies differ. By
            default 1 in a space that is normalised as a whole where no shares are given, and 0 elsewhere. Equal shares
            in such a space need it, since their copies get equal gradients; 0 says that something else parts them.
        init: Fresh weights are drawn as the operator's initialiser draws them ("operator"), or with the standard
            deviation that the weights beside them have ("like").
    """

    name: ClassVar[str] = "widen"
    version: ClassVar[int] = 2
    later: ClassVar[frozenset[str]] = frozenset({"apart", "init"})

    by: PositiveInt
    copies: Annotated[tuple[NonNegativeInt, ...], Field(max_length=MAX_UNITS)] = ()
    shares: Annotated[tuple[Share, ...], Field(max_length=MAX_UNITS)] = ()
    apart: Annotated[float, Field(strict=True, ge=0, le=MAX_REAL, allow_inf_nan=False)] | None = None
    init: Literal["operator", "like"] = "operator"

    @classmethod
    def upgraded(cls, version: int, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
        # The first version kept nothing apart, whatever the shares.
        return {**fields, "apart": 0.0} if version == 1 else super().upgraded(version, fields)

    def analysis(self, graph: Graph) -> Analysis:
        closed = analyse(graph)
        if self.node in closed.values and self.node not in graph:
            return held(graph, self.node, None, self.where).analysis
        if not closed.find(self.node, graph).pins:
            return closed
        free = opened(graph)
        with suppress(PassRefused):
            space = free.find(self.node, graph)
            if not space.pins and free.callers_hold(space, graph):
                return free
        return closed

    def check(self, graph: Graph) -> None:
        space = self.free_space(graph)
        strides = check_growth(self.where, space, self.by, space.stride)
        analysis = self.analysis(graph)
        if analysis is not analyse(graph) and not (self.copies or space.uniform or space.partial):
            check_constants(graph, analysis, space, self.values, self.where)
        if self.copies:
            self._check_copies(space, strides * space.growth[space.space])
        elif self.shares:
            raise PassRefused(f"{self.where}: shares go with copies; fresh channels have none")
        elif self.apart and not space.uniform:
            raise PassRefused(f"{self.where}: apart goes with copies; fresh channels are apart")
        if self.init != "operator" and (self.copies or space.uniform):
            raise PassRefused(f"{self.where}: init={self.init!r} is about fresh weights, but these channels are copies")
        if space.uniform and self.values:
            raise PassRefused(f"{self.where}: it is normalised as a whole and grows by copies only; leave values out")

    def _check_copies(self, space: ChannelSpace, units: int) -> None:
        if space.tied:
            raise PassRefused(
                f"{self.where}: one tensor both produces and consumes these channels, so no copy can keep the "
                "function; leave copies out for fresh channels"
            )
        check_copies(self.where, space, self.copies, units)
        if self.shares and len(self.shares) != units:
            raise PassRefused(f"{self.where}: shares must be as many as copies, {units}, but are {len(self.shares)}")
        left = np.ones(space.units)
        np.subtract.at(left, list(self.copies), self.shares or 0.0)
        if left.min() <= 0:
            raise PassRefused(f"{self.where}: the shares of one channel's copies must add up to less than 1")
        if space.uniform and self.shares and self.apart is None:
            unit, share = np.append(np.arange(space.units), self.copies), np.append(left, self.shares)
            order = np.lexsort((share, unit))
            even = (np.diff(unit[order]) == 0) & (np.diff(share[order]) < SAME)
            if even.any():
                raise PassRefused(
                    f"{self.where}: it is normalised as a whole, and two copies that both take the share "
                    f"{share[order][even.argmax()]:.3g} of channel {unit[order][even.argmax()]} would never differ; "
                    "leave shares out, or give apart, which is 1 by default"
                )

    def preserves(self, graph: Graph) -> Preserves:
        space = self.space(graph)
        analysis = self.analysis(graph)
        if reads_given(graph, [each for each in analysis.spaces if each.space in space.growth], self.values):
            return Preserves.NOTHING
        if exceeds(analysis, self.values):
            return Preserves.APPROXIMATE
        return Preserves.EVAL if space.random else Preserves.EXACT

    def resolved(self, graph: Graph) -> Self:
        space = self.space(graph)
        copies, shares = self.copies, self.shares
        if not copies and (space.uniform or space.partial):
            copies = in_turn(space.space, self.by // space.stride * space.growth[space.space])
            if not space.uniform:
                shares = (0.0,) * len(copies)
        if not copies:
            return self
        apart = self.apart
        if apart is None and space.uniform and not shares:
            apart = 1.0
        shares = shares or (equal_parts(copies) if apart else unequal_parts(copies))
        return self.model_copy(update={"copies": copies, "shares": shares, "apart": apart})

    def mergeable(self, graph: Graph) -> bool:
        return self.init == "operator" and super().mergeable(graph)

    def start(self, graph: Graph) -> Start:
        if self.analysis(graph).looked_up(self.space(graph)):
            return Start(made="mean")  # for the reason that `Extend` gives
        return Start(like=True) if self.init == "like" else AS_EVER

    def plan(self, space: ChannelSpace) -> dict[Space, Units]:
        return grown_units(space, self.by // space.stride, self.copies, self.shares, self.apart or 0.0)

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for space in analyse(graph).spaces:
            if not space.pins:
                yield cls(node=space.name, by=space.stride)
                if not (space.uniform or space.tied):
                    units = space.growth[space.space]
                    yield cls(
                        node=space.name,
                        by=space.stride,
                        copies=tuple(-1 - k % space.units + space.units for k in range(units)),
                    )
