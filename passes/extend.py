"""Extend: more entries where callers hold them: classes, tokens, positions, features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from growir.addresses import Address
from growir.errors import PassRefused, cut
from growir.graph import Graph, Reference
from growir.ops import Parameter
from growir.ops.base import Int, NonNegativeInt, PositiveInt
from growir.ops.ranges import zero_at_zero
from growir.passes.held import Held, all_held, check_constants, held
from growir.passes.resizing import (
    MAX_UNITS,
    check_copies,
    check_growth,
    exceeds,
    grown_units,
    in_turn,
    reads_given,
    unequal_parts,
)
from growir.resize import Start, resize
from growir.rewrite import Change, Pass, Preserves


class Extend(Pass):
    """Lengthen an axis of the graph's inputs and outputs, or what an embedding knows, wherever it appears.

    New entries come behind the old ones. The function is kept at the old entries: an input that holds the old numbers
    at their old places gives the old outputs at theirs, whatever the new places hold. `Rewrite.entries` says where that
    is, and `Rewrite.callers` what those who call the network do now.

    - Classes: `node` is an output, or the layer that makes it. Its bias, norms and whatever reads the same channels
      come along. What mixes all classes (a softmax inside the graph) has no old entries that stay, and is refused.
    - Tokens: `node` is an embedding, or a head that shares its weight. Tied tensors grow once, a bias with them.
    - Positions: `node` is an input, its axis the tokens. Tokens that attend only to earlier ones keep what they see;
      a learned row for each position gets new rows. Where all tokens see each other it is refused.
    - Features: `node` is an input; what reads the new ones starts at zero.

    Attributes:
        node: An input; an embedding, for the integers it knows; or a node whose value holds what is to become longer.
        axis: The axis of that value; the only one that can become longer if None, and None for an embedding's integers.
        by: How many entries more; a multiple of the axis's stride.
        copies: The old entry each new one is a copy of; empty for fresh ones, as new features are.
        fresh: How fresh entries start. What makes them: "drawn" by its initialiser, as the "mean" of the old ones, or
            at "zero". What reads new features: at "zero", or "drawn", which keeps the function only while new features
            are 0. By default tokens start as the mean, since their logits then move the others' shares least (Hewitt
            2021); features at zero; all else drawn.
    """

    name: ClassVar[str] = "extend"

    node: Reference
    axis: Int | None = None
    by: PositiveInt
    copies: Annotated[tuple[NonNegativeInt, ...], Field(max_length=MAX_UNITS)] = ()
    fresh: Literal["drawn", "mean", "zero"] | None = None

    def held(self, graph: Graph) -> Held:
        """The entries that are meant. Raises PassRefused if they cannot become more."""
        return held(graph, self.node, self.axis, self.where)

    @property
    def where(self) -> str:
        """How messages begin."""
        return f"{self.name} {cut(self.node)}"

    def check(self, graph: Graph) -> None:
        found = self.held(graph)
        strides = check_growth(self.where, found.space, self.by, found.stride)
        if self.copies and _is_read(found):
            raise PassRefused(
                f"{self.where}: a new feature has numbers of its own, whatever a copy held; leave copies out, and give "
                "values for statistics that are known"
            )
        if self.copies:
            check_copies(self.where, found.space, self.copies, strides * found.space.growth[found.space.space])
        if self.fresh == "mean" and _is_read(found):
            raise PassRefused(f'{self.where}: what reads new features starts at "zero", or "drawn", not as the mean')
        if not (self.copies or _copies_needed(found)):
            check_constants(graph, found.analysis, found.space, self.values, self.where)
        self._check_tables(graph, found)

    def _check_tables(self, graph: Graph, found: Held) -> None:
        """Raise PassRefused if rows for new positions would lie between rows that a longer input has already."""
        if found.kind != "input":
            return
        for key, use in found.analysis.params.items():
            host = key.rpartition(".")[0]
            for axis in use.axes if isinstance(graph[host].op, Parameter) else ():
                at = [k for k, (space, _) in enumerate(axis) if space is found.space.space]
                if at and at[-1] < len(axis) - 1:
                    raise PassRefused(
                        f"{self.where}: {cut(host)} has more rows than the {found.size} that this axis uses, so longer "
                        "inputs need no new ones; import the model with an example as long as these rows first"
                    )

    def preserves(self, graph: Graph) -> Preserves:
        found = self.held(graph)
        if self._reads_fresh(graph, found) and not self._needs_zero(graph):
            return Preserves.NOTHING
        if exceeds(found.analysis, self.values):
            return Preserves.APPROXIMATE
        return Preserves.EVAL if found.space.random else Preserves.EXACT

    def _reads_fresh(self, graph: Graph, found: Held) -> bool:
        """Whether new entries are read with other weights than zero."""
        spaces = [each for each in found.analysis.spaces if each.space in found.space.growth]
        return reads_given(graph, spaces, self.values) or (self.fresh == "drawn" and _is_read(found))

    def _needs_zero(self, graph: Graph) -> bool:
        """Whether the old entries are kept as long as the new ones of inputs are zero, and only then."""
        found = self.held(graph)
        if found.kind != "input" or not self._reads_fresh(graph, found):
            return False
        made = {slot.parameter for slot in found.space.producers}
        inside = {*found.space.nodes, *(entry.name for entry in graph.inputs)}
        return not made & {Address(address).key for address in self.values} and all(
            zero_at_zero(graph[name].op) and inside.issuperset(graph[name].inputs)
            for name in found.space.nodes
            if name in graph
        )

    def resolved(self, graph: Graph) -> Self:
        found = self.held(graph)
        space, copies = found.space, self.copies
        if not copies and _copies_needed(found):
            copies = in_turn(space.space, self.by // found.stride * space.growth[space.space])
        fresh = self.fresh or ("zero" if _is_read(found) else "mean" if found.kind == "table" else "drawn")
        return self.model_copy(update={"axis": found.axis, "copies": copies, "fresh": fresh})

    def change(self, graph: Graph, step: int) -> Change:
        found = self.held(graph)
        # A copy takes no share of what reads its entry inside the graph, so the old entry goes on as before; only what
        # is normalised as a whole, where every entry is copied, needs shares to part the copies later.
        shares = unequal_parts(self.copies) if found.space.uniform else (0.0,) * len(self.copies)
        done = resize(
            graph,
            grown_units(found.space, self.by // found.stride, self.copies, shares),
            seed=self.seed,
            step=step,
            values=self.values,
            analysis=found.analysis,
            start=self._start(found),
            stride=found.space.growth,
        )
        entries = replace(done.entries, zero=self._needs_zero(graph))
        return Change(done.nodes, graph.outputs, done.edits, inputs=done.inputs, entries=entries)

    def _start(self, found: Held) -> Start:
        if _is_read(found):
            return Start(read="drawn" if self.fresh == "drawn" else "zero")
        return Start(made=self.fresh or "drawn")

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for name, found in all_held(graph):
            longer = cls(node=name, axis=found.axis, by=found.stride)
            try:
                longer.check(graph)
            except PassRefused:
                continue
            yield longer
            if not (found.space.uniform or found.space.tied or _is_read(found)):
                units = found.space.growth[found.space.space]
                yield longer.model_copy(update={"copies": in_turn(found.space.space, units)})


def _copies_needed(found: Held) -> bool:
    """Whether fresh entries could not be kept apart, or would not be finite: they begin as copies.

    New positions of an input are what callers make them, whatever rows they are added to.
    """
    return found.space.uniform or (found.space.partial and found.kind != "input")


def _is_read(found: Held) -> bool:
    """Whether an input's entries are features, which weights read, and not positions, which none does."""
    return found.kind == "input" and bool(found.space.consumers)
