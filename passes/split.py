"""Split: a channel becomes two that share its outgoing weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from growir.addresses import Address
from growir.channels import ChannelSpace, analyse
from growir.edits import Edit, Shift
from growir.errors import PassRefused
from growir.graph import Graph
from growir.ops import Normal
from growir.ops.base import MAX_REAL, NonNegativeInt
from growir.ops.spaces import Space
from growir.pairs import pair_places, pair_positions
from growir.params import draw, param_table
from growir.passes.resizing import MAX_UNITS, Resizing, check_strides, copied_units, in_turn, unit_size
from growir.resize import Units, new_length
from growir.rewrite import Preserves, fresh_blocks

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
            their place `values` gives perturbations by address, of anything that makes the channels: in the extents of
            the tensor before the split, with one position for each that is split along the axis of the channels.
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
            if Address(key).key not in made:
                raise PassRefused(f"{self.where}: {key} does not produce these channels; {', '.join(sorted(made))} do")

    def mergeable(self, graph: Graph) -> bool:
        return not self.theta and self._placed(graph, self.space(graph))

    def pairs(self, space: ChannelSpace) -> tuple[Space, Sequence[int]]:
        return space.space, self.channels

    def given(self, graph: Graph, space: ChannelSpace) -> Mapping[str, NDArray[Any]]:
        return self.values if self._placed(graph, space) else {}

    def _gains(self, space: ChannelSpace) -> dict[Space, int]:
        strides = len(self.channels) // space.growth[space.space]
        return {other: strides * units for other, units in space.growth.items()}

    def _placed(self, graph: Graph, space: ChannelSpace) -> bool:
        """Whether every perturbation is given for a place of the pairs, in whose shape it is.

        It is not where the split changes the tensor along other axes too, and the numbers are of the extents that it
        then has, as they were to be before there were places.
        """
        places: Mapping[str, tuple[int, ...]] = self._places(graph, space) if self.values else {}
        return all(places.get(key) == block.shape for key, block in self.values.items())

    def _places(self, graph: Graph, space: ChannelSpace) -> Mapping[str, tuple[int, ...]]:
        analysis, table = analyse(graph), param_table(graph)
        found: dict[str, tuple[int, ...]] = {}
        for key in {slot.parameter for slot in space.producers}:
            use = analysis.params[key]
            plain = [axis for axis in range(len(use.axes)) if axis != 1 or not use.rows]
            places = pair_places(key, table[key], use, plain, self._gains(space), self.pairs(space), 1)
            found |= {place.address: place.shape for place in places}
        return found

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
        if self.values and self._placed(graph, space):
            return
        plan = self.plan(space)
        gains = self._gains(space)
        table = param_table(graph)
        analysis = analyse(graph)
        for slot in space.producers:
            key, param, use = slot.parameter, table[slot.parameter], analysis.params[slot.parameter]
            given = self.values.get(key)
            if given is None and not (self.theta and use.consumes and not param.buffer):
                continue
            shape = [new_length(axis, plan) for axis in use.axes]
            old, new = pair_positions(use.axes[slot.axis], gains, space.space, self.channels)
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

    def blocks(self, grown: Graph, edits: Sequence[Edit]) -> dict[str, tuple[int, ...]]:
        # Those that no place takes are shifts, whose shapes are checked where they are made.
        shifted = {edit.key for edit in edits if isinstance(edit, Shift)}
        return fresh_blocks(grown, edits) | {key: a.shape for key, a in self.values.items() if key in shifted}

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for space in analyse(graph).spaces:
            if not (space.pins or space.tied):
                units = space.units if space.uniform else space.growth[space.space]
                if units <= space.units:
                    yield cls(node=space.name, channels=tuple(range(units)))
