"""Split: a channel becomes two that share its outgoing weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from growir.channels import ChannelSpace, analyse
from growir.edits import Edit, Shift
from growir.errors import PassRefused
from growir.graph import Graph
from growir.ops import Normal
from growir.ops.base import MAX_REAL, NonNegativeInt
from growir.ops.spaces import Axis, Space, as_axis
from growir.params import draw, param_table
from growir.passes.resizing import MAX_UNITS, Resizing, check_strides, copied_units, in_turn, unit_size
from growir.resize import Plan, Units, new_length
from growir.rewrite import Preserves

Share = Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]


class Split(Resizing):
    """Replace channels by pairs: incoming weights w - theta and w + theta, and a share of the outgoing weight each.

    With theta = 0 the function is kept; unequal shares then let the two learn different things. With a theta and equal
    shares this is the split of splitting steepest descent (Wu et al. 2019) and Firefly (Wu et al. 2020, eq. 5). A space
    that several layers share is split in all of them at once.

    Attributes:
        node: Names the space: a node whose value holds only that space, or the name `channel_spaces` gives.
        channels: The units of the space to split, each once; every one where the space is normalised as a whole.
        shares: What the new channel of each pair takes of the outgoing weight; by default 1/3, or 1/2 with a theta.
        theta: Standard deviation of normal perturbations of the incoming weights of convolutions and linear layers. In
            their place `values` gives perturbations by parameter key, with as many entries as the pairs have.
    """

    name: ClassVar[str] = "split"

    channels: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=MAX_UNITS)]
    shares: Annotated[tuple[Share, ...], Field(max_length=MAX_UNITS)] = ()
    theta: Annotated[float, Field(strict=True, ge=0, le=MAX_REAL, allow_inf_nan=False)] = 0.0

    def check(self, graph: Graph) -> None:
        space = self.free_space(graph)
        if space.tied:
            raise PassRefused(
                f"{self.where}: one tensor both produces and consumes these channels, so no copy can keep the "
                "function; widen it by fresh channels instead"
            )
        if max(self.channels) >= space.units or len(set(self.channels)) < len(self.channels):
            raise PassRefused(f"{self.where}: channels must be different numbers below {space.units}{unit_size(space)}")
        if self.shares and len(self.shares) != len(self.channels):
            raise PassRefused(
                f"{self.where}: shares must be as many as channels, {len(self.channels)}, but are {len(self.shares)}"
            )
        if space.uniform and len(self.channels) < space.units:
            raise PassRefused(
                f"{self.where}: it is normalised as a whole, so every one of its {space.units} channels must be split"
            )
        check_strides(self.where, space, len(self.channels), space.growth[space.space], "it splits")
        if self.values and self.theta:
            raise PassRefused(f"{self.where}: values are given in place of theta; leave one of the two out")
        made = {slot.parameter for slot in space.producers}
        for key in self.values:
            if key not in made:
                raise PassRefused(f"{self.where}: {key} does not produce these channels; {', '.join(sorted(made))} do")

    def mergeable(self, graph: Graph) -> bool:
        return not self.values and not self.theta

    def preserves(self, graph: Graph) -> Preserves:
        if self.theta or any(np.any(block) for block in self.values.values()):
            return Preserves.APPROXIMATE
        return Preserves.EVAL if self.space(graph).random else Preserves.EXACT

    def resolved(self, graph: Graph) -> Self:
        if self.shares:
            return self
        share = 0.5 if self.theta or self.values else 1 / 3
        return self.model_copy(update={"shares": (share,) * len(self.channels)})

    def plan(self, space: ChannelSpace) -> dict[Space, Units]:
        strides = len(self.channels) // space.growth[space.space]
        found: dict[Space, Units] = {}
        for other, units in space.growth.items():
            if other is space.space:
                found[other] = copied_units(other, self.channels, self.shares)
            else:
                found[other] = copied_units(
                    other, in_turn(other, strides * units), (self.shares[0],) * (strides * units)
                )
        return found

    def more(self, graph: Graph, space: ChannelSpace, step: int) -> Iterable[Edit]:
        plan = self.plan(space)
        table = param_table(graph)
        analysis = analyse(graph)
        for slot in space.producers:
            key, param, use = slot.parameter, table[slot.parameter], analysis.params[slot.parameter]
            given = self.values.get(key)
            if given is None and not (self.theta and use.consumes and not param.buffer):
                continue
            shape = [new_length(axis, plan) for axis in use.axes]
            old, new = self._pairs(use.axes[slot.axis], plan, space.space)
            block = [*shape]
            block[slot.axis] = len(new)
            if given is None:
                given = draw(Normal(self.theta), tuple(block), seed=self.seed, step=step, key=key)
            elif given.shape != tuple(block):
                raise PassRefused(
                    f"{self.where}: theta of {key} has shape {tuple(block)}, but values give {given.shape}"
                )
            by = np.zeros(shape)
            np.moveaxis(by, slot.axis, 0)[new] += np.moveaxis(given, slot.axis, 0)
            np.moveaxis(by, slot.axis, 0)[old] -= np.moveaxis(given, slot.axis, 0)
            yield Shift(key, by)

    def _pairs(self, axis: Axis, plan: Plan, split: Space) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the two of each pair lie on an axis after the split; copies lie behind a space's old units."""
        stays: list[NDArray[np.int64]] = []
        copies: list[NDArray[np.int64]] = []
        units = np.array(self.channels)

        def visit(axis: Axis, start: int) -> None:
            for space, block in axis:
                size = new_length(as_axis(block), plan)
                if space is split:
                    inner = start + np.arange(size)
                    stays.append((units[:, None] * size + inner).ravel())
                    copies.append(((split.size + np.arange(len(units)))[:, None] * size + inner).ravel())
                whole = new_length(((space, block),), plan)
                if not isinstance(block, int):
                    for at in range(start, start + whole, size):
                        visit(block, at)
                start += whole

        visit(axis, 0)
        return np.concatenate(stays), np.concatenate(copies)

    def blocks(self, grown: Graph, edits: Sequence[Edit]) -> dict[str, tuple[int, ...]]:
        # Values are shifts here, whose shapes are checked where they are made.
        return {key: block.shape for key, block in self.values.items()}

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for space in analyse(graph).spaces:
            if not (space.pins or space.tied):
                units = space.units if space.uniform else space.growth[space.space]
                if units <= space.units:
                    yield cls(node=space.name, channels=tuple(range(units)))
