"""Where a network can become wider or narrower: its free channel spaces, and what is learnable in each.

found = sites(graph)
found.sites                  # each with the parameters that make, carry and read its units
found.skipped                # {"head": "its width 10 is pinned by ..."}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from growir.channels import ChannelSpace, Slot, analyse
from growir.graph import Graph, per_graph
from growir.growth.budget import Cost
from growir.params import frozen_keys, param_table
from growir.passes import Widen


def free_spaces(graph: Graph) -> list[ChannelSpace]:
    """The channel spaces that nothing pins, in document order."""
    return [space for space in analyse(graph).spaces if not space.pins]


def pinned_spaces(graph: Graph) -> dict[str, str]:
    """Why the other spaces cannot change their width, by name."""
    return {space.name: _pinned(space) for space in analyse(graph).spaces if space.pins}


def wider(space: ChannelSpace, share: float, seed: int = 0) -> Widen:
    """The widening of a space by a share of its width: a whole number of its strides, one at least."""
    strides = max(1, round(share * space.width / space.stride))
    return Widen(node=space.name, by=strides * space.stride, seed=seed)


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A free channel space with what is learnable there.

    In conv -> batch norm -> relu -> conv, the first kernel makes the units, its bias and the norm's scale and shift
    carry them, and the second kernel reads them. Of a residual stream all that write to the sum make its units.

    Attributes:
        space: The channel space.
        makes: Where mixing parameters (kernels, matrices) make its units: their incoming weights.
        carries: Where other learned parameters and statistics have an entry for each unit.
        reads: Where parameters are summed over its units: their outgoing weights.
    """

    space: ChannelSpace
    makes: tuple[Slot, ...]
    carries: tuple[Slot, ...]
    reads: tuple[Slot, ...]

    @property
    def name(self) -> str:
        """What passes take as `node`."""
        return self.space.name

    @property
    def count(self) -> int:
        """The smallest growths that its units are: most spaces change by single units."""
        return self.space.units // self.space.growth[self.space.space]

    def within(self, keys: Collection[str]) -> bool:
        """Whether these are all the parameters that know of its units."""
        return all(slot.parameter in keys for slot in (*self.makes, *self.carries, *self.reads))

    def cost(self, graph: Graph) -> Cost:
        """What one more of its smallest growths would cost, of this graph as it is."""
        grown = Widen(node=self.name, by=self.space.stride).rewrite(graph).graph
        return Cost.of(grown, units=True) - Cost.of(graph, units=True)


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """The sites of a graph.

    Attributes:
        sites: In document order.
        skipped: Why the other spaces are none, by name.
    """

    sites: tuple[Site, ...]
    skipped: Mapping[str, str]


@per_graph
def sites(graph: Graph) -> Sites:
    """Every site of a graph, and why its other channel spaces are none."""
    analysis, table, frozen = analyse(graph), param_table(graph), frozen_keys(graph)
    found: list[Site] = []
    skipped: dict[str, str] = {}
    for space in analysis.spaces:
        mixes = [slot for slot in space.producers if _mixes(analysis.params[slot.parameter].consumes, slot)]
        makes = tuple(slot for slot in mixes if not table[slot.parameter].buffer)
        carries = tuple(slot for slot in space.producers if slot not in makes)
        held = [slot.parameter for slot in (*makes, *space.consumers) if slot.parameter in frozen]
        why = _refused(space, held, bool(makes), bool(space.consumers))
        if why is not None:
            skipped[space.name] = why
        else:
            found.append(Site(space, makes, carries, space.consumers))
    # What is new in a unit that is new itself has no place of its own, so of two such spaces the outer one is a site.
    nested = analysis.nested()
    for inner in list(found):
        outer = next((other for other in found if (other.space.space, inner.space.space) in nested), None)
        if outer is not None:
            found.remove(inner)
            skipped[inner.name] = f"its units lie within those of {outer.name}, which is a site"
    return Sites(tuple(found), skipped)


def _pinned(space: ChannelSpace) -> str:
    return f"its width {space.width} is pinned by {'; '.join(map(str, space.pins))}"


def _mixes(consumes: frozenset[int], slot: Slot) -> bool:
    """Whether the parameter is summed over another of its axes, as a kernel is and a norm's scale is not."""
    return any(axis != slot.axis for axis in consumes)


def _refused(space: ChannelSpace, held: list[str], made: bool, read: bool) -> str | None:
    """Why single units of a space can neither come nor be split; None where they can."""
    if space.pins:
        return _pinned(space)
    if not space.nodes:
        return "its units lie inside one operator, where no value shows what they give"
    if space.uniform:
        return "it is normalised as a whole, so only copies of every unit keep the function"
    if space.tied:
        return "one tensor both makes and reads its units, so no split keeps the function"
    if space.partial:
        return "it passes through a function that is not finite everywhere, so fresh units are copies"
    if held:
        return f"{held[0]} is frozen, so new units of it would never learn"
    if not made:
        return "no learned kernel or matrix makes its units"
    if not read:
        return "no learned kernel or matrix reads its units"
    return None
