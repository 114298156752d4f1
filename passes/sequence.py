"""Sequence: several passes as one rewrite."""

from __future__ import annotations

from collections import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, cast

from numpy.typing import NDArray
from pydantic import (
    Field,
    PlainSerializer,
    SerializeAsAny,
    model_validator,
)

from growir.addresses import by_pass
from growir.edits import Edit, within
from growir.entries import UNCHANGED, Entries
from growir.errors import PassRefused
from growir.graph import MAX_STEPS, Graph, History, Step
from growir.ops.spaces import Space
from growir.passes.registry import check_name, find_pass, pass_from_data, pass_to_data
from growir.passes.resizing import Resizing
from growir.passes.widen import Widen
from growir.resize import Part, resize_together
from growir.rewrite import Change, Pass, Preserves, fresh_blocks, in_order, owned_by_first
from growir.verify import verify

P = TypeVar("P", bound=Pass)
STRENGTH = (Preserves.EXACT, Preserves.EVAL, Preserves.APPROXIMATE, Preserves.NOTHING)


Inner = Annotated[SerializeAsAny[Pass], PlainSerializer(pass_to_data)]


@dataclass(frozen=True, slots=True, eq=False)
class _Done:
    """A sequence carried out on one graph."""

    passes: tuple[Pass, ...]
    graph: Graph
    edits: tuple[Edit, ...]
    created: tuple[str, ...]
    preserves: Preserves
    entries: Entries
    ordered: bool


@dataclass(frozen=True, slots=True)
class _Carry:
    """Carries a sequence out; equal for equal sequences, so that a graph remembers the answer."""

    sequence: Sequence

    def __call__(self, graph: Graph) -> _Done:
        return self.sequence.carried_out(graph)


class Sequence(Pass):
    """Passes one after another as a single rewrite: one step in the history, all or nothing.

    Consecutive passes that resize channel spaces are carried out together, with one analysis and one copy of each
    tensor: passes of different spaces, and such as bring fresh units to a space that an earlier one makes larger. They
    name spaces and channels of the graph before the first of them, and the blocks that they are given have the extents
    of its tensors along axes other than their own: no pass need know what the others do. Where two of their blocks meet
    is a place of the later one, "fc2.weight/out+in", which starts at zero.

    Attributes:
        passes: The passes, or their JSON forms {"pass": name, ...fields, "version": n}. Arrays in `values` belong to
            them; in the sequence's own `values` they are called "k/address", k being the pass's place.
        joined: Which passes are carried out together. "all" that can be; "spaces", which is what histories of version 2
            mean, no two of one space; "unvalued", which those of version 1 mean, of these none with values: such a pass
            is carried out by itself, and its blocks have the extents that the ones before it left.
    """

    name: ClassVar[str] = "sequence"
    version: ClassVar[int] = 3
    later: ClassVar[frozenset[str]] = frozenset({"joined"})

    passes: Annotated[tuple[Inner, ...], Field(min_length=1, max_length=MAX_STEPS)]
    joined: Literal["all", "spaces", "unvalued"] = "all"

    @model_validator(mode="before")
    @classmethod
    def _with_values(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        fields = dict(cast("Mapping[str, Any]", data))
        given = dict(cast("Mapping[str, NDArray[Any]]", fields.get("values") or {}))
        listed = fields.get("passes")
        if not isinstance(listed, (list, tuple)):
            return fields
        found: list[Any] = []
        values: dict[str, NDArray[Any]] = {}
        for k, pass_ in enumerate(cast("abc.Sequence[Any]", listed)):
            mine = {key.partition("/")[2]: given.pop(key) for key in list(given) if key.partition("/")[0] == str(k)}
            inner = _pass(pass_, mine)
            found.append(inner)
            if isinstance(inner, Pass):
                values |= {f"{k}/{key}": array for key, array in inner.values.items()}
        if given:
            raise ValueError(f"values are called 'k/key' after the pass they belong to; {sorted(given)[0]!r} is not")
        return {**fields, "passes": found, "values": values}

    @classmethod
    def upgraded(cls, version: int, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
        found = super().upgraded(cls.version if version in (1, 2) else version, fields)
        if found is not None and version in (1, 2):
            # Version 2 had a field `valued` instead, which said of what came from version 1 that it did.
            known = {name: value for name, value in found.items() if name != "valued"}
            found = {**known, "joined": "unvalued" if version == 1 or "valued" in found else "spaces"}
        listed = None if found is None else found.get("passes")
        if found is None or not isinstance(listed, (list, tuple)):
            return found
        inner = [_upgraded(pass_) for pass_ in cast("abc.Sequence[Any]", listed)]
        return None if None in inner else {**found, "passes": inner}

    def check(self, graph: Graph) -> None:
        self._done(graph)

    def preserves(self, graph: Graph) -> Preserves:
        return self._done(graph).preserves

    def resolved(self, graph: Graph) -> Self:
        return self.model_copy(update={"passes": self._done(graph).passes})

    def change(self, graph: Graph, step: int) -> Change:
        done = self._done(graph)
        graph = done.graph
        return Change(graph.nodes, graph.outputs, done.edits, done.created, graph.inputs, done.entries, done.ordered)

    def blocks(self, grown: Graph, edits: abc.Sequence[Edit]) -> dict[str, tuple[int, ...]]:
        own = {key: array.shape for key, array in self.values.items()}  # each pass has checked its own
        return {**fresh_blocks(grown, edits), **own}

    def _done(self, graph: Graph) -> _Done:
        return graph.recall(_Carry(self))

    def carried_out(self, graph: Graph) -> _Done:
        """All passes applied to a graph, without a history step. Raises PassRefused saying which one does not fit."""
        current, at = graph, 0
        edits: list[Edit] = []
        created: list[str] = []
        entries, ordered = UNCHANGED, False
        resolved: list[Pass] = []
        promises: list[Preserves] = []
        base, earlier = (graph.history.base, graph.history.steps) if graph.history else (graph, ())
        first, places = len(earlier), 0
        while at < len(self.passes):
            group, change = self._next(current, at, first + MAX_STEPS * places)
            promises += [pass_.preserves(current) for pass_ in group]
            nodes, renames = owned_by_first(current, in_order(current, change.nodes, change.ordered))
            done = [*change.edits, *renames]
            created += change.created
            # A history so far, as the steps of their own would have left one: what has been named stays taken.
            so_far = Step.model_validate({"pass": self.name, "created": tuple(created)})
            history = History(base=base, steps=(*earlier, so_far))
            current = current.replace(inputs=change.inputs, nodes=nodes, outputs=change.outputs, history=history)
            current = verify(current)
            entries, ordered = entries.then(change.entries), ordered or change.ordered
            if len(group) == 1:
                group[0].check_values(current, done)
                done = within(done, at)
            else:
                blocks = fresh_blocks(current, done)
                for k, pass_ in enumerate(group, at):
                    pass_.check_blocks(by_pass(blocks, k))
            edits += done
            resolved += group
            at += len(group)
            places += sum(pass_.keyed for pass_ in group)
        promise = max(promises, key=STRENGTH.index)
        return _Done(tuple(resolved), current, tuple(edits), tuple(created), promise, entries, ordered)

    def _next(self, graph: Graph, at: int, step: int) -> tuple[list[Pass], Change]:
        """The next pass, or several that are carried out together, resolved and carried out."""
        first = self._accepted(self.passes[at], at, graph)
        if not (isinstance(first, Resizing) and self._joins(first, graph)):
            return [first], first.change(graph, step)
        group: list[Resizing] = [first]
        space = first.space(graph)
        parts = [Part(first.plan(space), first.values, (at,), space.growth, first.pairs(space))]
        taken = dict(parts[0].plan)
        for k in range(at + 1, len(self.passes)):
            later = self.passes[k]
            if not (isinstance(later, Resizing) and later.seed == first.seed):
                break
            try:
                if not self._joins(later, graph):
                    break
                space = later.space(graph)
            except PassRefused:
                break  # it may name what an earlier pass leaves behind
            again = taken.keys() & {*space.growth, *space.shrink}
            if again and not (self.joined == "all" and _fits(later, graph)):
                break
            accepted = self._accepted(later, k, graph)
            plan = accepted.plan(space)
            if not all(
                each in plan and plan[each].only_fresh(each.size) and taken[each].adds_to(each.size) for each in again
            ):
                break
            parts.append(Part(plan, accepted.values, (k,), space.growth, accepted.pairs(space)))
            taken = plan | taken
            group.append(accepted)
        if len(group) == 1:
            return [first], first.change(graph, step)
        done = resize_together(graph, parts, seed=first.seed, step=step)
        return [*group], Change(done.nodes, graph.outputs, done.edits)

    def _joins(self, pass_: Resizing, graph: Graph) -> bool:
        """Whether a pass is carried out together with others. Raises PassRefused if it does not fit the graph."""
        return pass_.mergeable(graph) and not (pass_.values and self.joined == "unvalued")

    def _accepted(self, pass_: P, at: int, graph: Graph) -> P:
        try:
            pass_.check(graph)
        except PassRefused as error:
            raise PassRefused(f"sequence, passes[{at}]: {error}") from None
        return pass_.resolved(graph)

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        found: list[Widen] = []
        moved: set[Space] = set()
        for widen in Widen.candidates(graph):
            space = widen.space(graph)
            partners = {*space.growth, *space.shrink}
            # Not two that move one another's channels: a name such as conv@2 would then mean another place.
            if not (widen.copies or moved & partners):
                found.append(widen)
                moved |= partners
        if found:
            yield cls(passes=tuple(found))
            yield cls(passes=(found[0], found[0].model_copy(update={"by": 2 * found[0].by})))


def _fits(pass_: Pass, graph: Graph) -> bool:
    """Whether a pass fits this graph; another one of the same space may fit only once an earlier one is done."""
    try:
        pass_.resolved(graph).check(graph)
    except PassRefused:
        return False
    return True


def _upgraded(pass_: Any) -> object:
    """An inner pass's JSON form in this growir's version; None if the pass or its version is unknown here."""
    if not (isinstance(pass_, Mapping) and "version" in pass_):
        return cast("object", pass_)
    fields = dict(cast("Mapping[str, Any]", pass_))
    name, version = fields.pop("pass", None), fields.pop("version")
    kind = find_pass(name) if isinstance(name, str) else None
    found = kind.upgraded(version, fields) if kind is not None and type(version) is int else None
    return None if found is None else {"pass": name, **found}


def _pass(pass_: Any, values: Mapping[str, NDArray[Any]]) -> Any:
    """An inner pass from what was given for it."""
    if isinstance(pass_, Mapping):
        return pass_from_data(cast("Mapping[str, Any]", pass_), values)
    if isinstance(pass_, Pass):
        check_name(type(pass_))
    if isinstance(pass_, Pass) and values:
        return pass_.model_copy(update={"values": values})
    return pass_
