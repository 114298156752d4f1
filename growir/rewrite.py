"""What every growth morphism is: a frozen pass that turns a graph into a new graph and the edits its tensors need."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from growir.collecting import uncollected
from growir.edits import Create, Edit, Fresh, Remap, Rename
from growir.entries import UNCHANGED, Entries, for_callers
from growir.errors import GrowirError, PassRefused, Problem, cut
from growir.fields import Record
from growir.graph import MAX_STEPS, Graph, History, Input, Node, Step, Ties, graph_of
from growir.names import allot, fault
from growir.nearest import alternatives
from growir.ops import Param
from growir.params import FLOATS, array_digest, frozen, frozen_keys, param_table
from growir.verify import verify

MAX_SEED = 2**64 - 1


class Preserves(StrEnum):
    """What a rewrite guarantees about the network's function.

    Of a rewrite that lengthens inputs or outputs, it is guaranteed at the entries that were there before
    (`Rewrite.entries`).
    """

    EXACT = "exact"  # the same up to rounding, in train and eval mode
    EVAL = "eval"  # the same in eval mode
    APPROXIMATE = "approximate"  # close, with a measured bound
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, eq=False)
class Rewrite:
    """A rewrite carried out: the new graph with its history, the edits, and the names that came into being.

    Attributes:
        entries: Where the old entries of inputs and outputs lie now, if some became longer: what is preserved is
            preserved there.
        callers: What it asks of those who call the network, a sentence for each input, output or table that grew.
    """

    graph: Graph
    edits: tuple[Edit, ...]
    created: tuple[str, ...]
    preserves: Preserves
    entries: Entries = UNCHANGED
    callers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a pass's own code returns: nodes and outputs after it, edits, and names that came into being.

    Where inputs or outputs become longer, it also gives the new inputs and says where the old entries went. New nodes
    are put right before what first reads them, unless the nodes are `ordered` as they are to stand in the document.
    """

    nodes: Sequence[Node]
    outputs: Sequence[str]
    edits: Sequence[Edit]
    created: Sequence[str] = ()
    inputs: Sequence[Input] | None = None
    entries: Entries = UNCHANGED
    ordered: bool = False


class Pass(Record):
    """A growth morphism; its fields are its arguments.

    Subclasses set `name` (in JSON and on the command line) and write `check`, `preserves`, `candidates` and `change`.

    Attributes:
        seed: Keys fresh numbers, together with the position in the history and the parameter's key.
        values: Numbers for fresh blocks, by address (`growir.addresses`): the parameter's key, with the axis behind it
            where several grow. Their shapes are those of the blocks, not of whole tensors; along axes other than its
            own a block has the extents of the tensor before the rewrite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    # Fields that came later: a step in which they have their defaults is recorded without them.
    later: ClassVar[frozenset[str]] = frozenset()
    # Whether its place in a sequence keys fresh numbers. A pass that draws none takes no place, so that a sequence of
    # it and another pass draws what the other one draws alone.
    keyed: ClassVar[bool] = True
    aside: ClassVar[frozenset[str]] = frozenset({"seed", "values"})

    seed: int = Field(default=0, strict=True, ge=0, le=MAX_SEED)
    values: Mapping[str, NDArray[Any]] = Field(default_factory=dict, exclude=True, repr=False)

    @field_validator("values", mode="before")
    @classmethod
    def _fixed_values(cls, values: object) -> Mapping[str, NDArray[Any]]:
        if not isinstance(values, Mapping):
            raise ValueError("values map parameter keys to arrays")
        found: dict[str, NDArray[Any]] = {}
        for key, value in cast("Mapping[str, Any]", values).items():
            array = np.asarray(value)
            if array.dtype.kind in "biu":
                array = array.astype(np.float64)
            if array.dtype.name not in FLOATS:
                raise ValueError(f"the block for {cut(key)} is of {array.dtype}, but real numbers are needed")
            if not np.isfinite(array).all():
                raise ValueError(f"the block for {cut(key)} holds NaN or infinite numbers")
            found[key] = frozen(array)
        return found

    @classmethod
    def record_title(cls) -> str:
        return cls.name

    @classmethod
    def refusal(cls, fields: Mapping[str, Any], problems: list[Problem]) -> GrowirError:
        return PassRefused(f"{cls.name}: {'; '.join(problem.text for problem in problems)}")

    def _identity(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        return (
            self.name,
            self.model_dump_json(),
            tuple(sorted((key, array_digest(array)) for key, array in self.values.items())),
        )

    def __eq__(self, other: object) -> bool:
        # Not pydantic's, which would compare arrays entry by entry and find no single answer.
        return isinstance(other, Pass) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    @classmethod
    @abstractmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        """Where this pass could be applied, smallest growth first where there is a choice."""

    @abstractmethod
    def check(self, graph: Graph) -> None:
        """Raise PassRefused, saying why and what would work, if this cannot be applied."""

    @abstractmethod
    def preserves(self, graph: Graph) -> Preserves:
        """What this instance guarantees on this graph."""

    @abstractmethod
    def change(self, graph: Graph, step: int) -> Change:
        """Carry the rewrite out on a graph that `check` has accepted; `step` keys fresh numbers."""

    @model_serializer(mode="wrap")
    def _as_recorded(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Growth keys its random numbers by this text, so a step reads as it did before these fields were there.
        data: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {name: value for name, value in data.items() if name not in self.later or value != fields[name].default}

    def fits(self, graph: Graph) -> bool:
        """Whether `check` has nothing against this graph."""
        try:
            self.check(graph)
        except PassRefused:
            return False
        return True

    @classmethod
    def upgraded(cls, version: int, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The fields of a step that some version recorded, as this one spells them; None if it cannot tell."""
        return fields if version == cls.version else None

    @uncollected()
    def rewrite(self, graph: Graph, *, recorded: Step | None = None) -> Rewrite:
        """Apply to a graph: the new graph, the edits, the names created.

        Args:
            graph: The graph.
            recorded: In a replay, the step that goes into the history in place of this pass's own.

        Raises:
            PassRefused: The pass does not fit this graph; nothing has changed.
        """
        graph = graph_of(graph)
        self.check(graph)
        return self.resolved(graph)._rewrite(graph, recorded)

    def creates(self, graph: Graph) -> tuple[str, ...]:
        """The names of the nodes that this would add to a graph, for a later pass of a sequence to name.

        No tensor is made. For the names that a third pass meets, ask on `rewrite(graph).graph`.

        Raises:
            PassRefused: The pass does not fit this graph.
        """
        return self.rewrite(graph).created

    def resolved(self, graph: Graph) -> Self:
        """The same pass with every choice filled in that it leaves to its defaults, for a history to record."""
        return self

    def _rewrite(self, graph: Graph, recorded: Step | None) -> Rewrite:
        step = len(graph.history.steps) if graph.history else 0
        if step >= MAX_STEPS:
            raise PassRefused(
                f"the history already has {MAX_STEPS} steps; `growir validate --drop-history` starts anew"
            )
        change = self.change(graph, step)
        base = graph.history.base if graph.history else graph.replace(history=None)
        earlier = graph.history.steps if graph.history else ()
        history = History(base=base, steps=(*earlier, recorded or self.recorded(change.created)))
        nodes, renames = owned_by_first(graph, in_order(graph, change.nodes, change.ordered))
        edits = (*change.edits, *renames)
        grown = verify(graph.replace(inputs=change.inputs, nodes=nodes, outputs=change.outputs, history=history))
        self.check_values(grown, edits)
        promise = self.preserves(graph)
        if promise is Preserves.EXACT and _draws(grown) != _draws(graph):
            promise = Preserves.EVAL  # in train mode the same random numbers would go to other dropouts
        callers = for_callers(graph, grown)
        return Rewrite(grown, edits, tuple(change.created), promise, change.entries, callers)

    def recorded(self, created: Sequence[str]) -> Step:
        """This pass as a step of a history; arrays are recorded by sha256."""
        # Defaults too: a history must mean the same when they change.
        fields = self.model_dump(mode="json")
        digests = {key: array_digest(array) for key, array in self.values.items()}
        return Step.model_validate(
            {"pass": self.name, "version": self.version, **fields, "created": created, "values": digests}
        )

    def blocks(self, grown: Graph, edits: Sequence[Edit]) -> Mapping[str, tuple[int, ...]]:
        """The shape of each block that `values` could fill, by address."""
        return fresh_blocks(grown, edits)

    def check_values(self, grown: Graph, edits: Sequence[Edit]) -> None:
        """Raise PassRefused unless `values` fill fresh blocks of these edits, in their shapes."""
        if self.values:
            self.check_blocks(self.blocks(grown, edits))

    def check_blocks(self, blocks: Mapping[str, tuple[int, ...]]) -> None:
        """Raise PassRefused unless `values` fill some of these blocks, in their shapes."""
        for address, array in self.values.items():
            if address not in blocks:
                near = alternatives(address, blocks)
                raise PassRefused(f"{self.name}: {cut(address)} has no fresh block that values could fill.{near}")
            if array.shape != blocks[address]:
                raise PassRefused(
                    f"{self.name}: the fresh block of {cut(address)} has shape {blocks[address]}, but values give "
                    f"{array.shape}"
                )

    def __str__(self) -> str:
        shown = json.dumps(self.model_dump(mode="json", exclude_defaults=True))
        return f"{self.name} {cut(shown)}"


def _draws(graph: Graph) -> list[str]:
    """The nodes that draw random numbers in train mode, in the order they do."""
    return [node.name for node in graph.nodes if node.op.draws]


def fresh_blocks(grown: Graph, edits: Sequence[Edit]) -> dict[str, tuple[int, ...]]:
    """The shape of each fresh block of a rewrite, by address (`growir.addresses`)."""
    table = param_table(grown)
    names = {edit.old: edit.new for edit in edits if isinstance(edit, Rename)}
    blocks: dict[str, tuple[int, ...]] = {}
    for edit in edits:
        if isinstance(edit, Create):
            blocks[edit.address] = edit.param.shape
        elif isinstance(edit, Remap):
            # Of a tensor that is gone again only places in what is said of it are known.
            name = names.get(edit.key, edit.key)
            shape = table[name].shape if name in table else ()
            blocks |= {place.address: place.shape for place in edit.places_in(shape)}
    return blocks


def create(key: str, param: Param, seed: int, step: int, values: Mapping[str, NDArray[Any]]) -> Create:
    """The edit that brings a parameter into being, with given numbers if there are any."""
    return Create(key, param, Fresh(param.init, seed, step, values.get(key)))


def fresh_name(graph: Graph, stem: str, also: Iterable[str] = ()) -> str:
    """A name that neither the graph nor its history has ever used; dotted names count by their first segment."""
    return allot(stem, [name.split(".")[0] for name in (*graph.used_names, *also)])


def check_new_names(graph: Graph, where: str, module: str, names: Iterable[str]) -> None:
    """Raise PassRefused unless a module may be called so, and the new nodes in it by these names.

    Args:
        graph: The graph that they are to stand in.
        where: How the message begins.
        module: The path of the module; no node may have it, nor that of a module around it.
        names: The nodes' whole names.
    """
    parts = module.split(".")
    taken = next((path for k in range(len(parts)) if (path := ".".join(parts[: k + 1])) in graph), None)
    if taken is not None:
        raise PassRefused(f"{where}: module {cut(module)!r} cannot be one, since {cut(taken)!r} is a node")
    for name in names:
        if wrong := fault(name):
            raise PassRefused(f"{where}: a node would be called {cut(name)}: {wrong}")
        if name in graph.used_names:
            raise PassRefused(f"{where}: the name {cut(name)} has been used; give another module")


def owned_by_first(graph: Graph, nodes: Sequence[Node]) -> tuple[list[Node], list[Rename]]:
    """The nodes with every tied tensor owned by the first that uses it, and the renames of tensors that thereby move.

    Owners move when they are removed, or when a rewrite puts another user before them. Whether a tensor is frozen is
    said at its owner, and moves along.

    Args:
        graph: The graph before the rewrite.
        nodes: The nodes after it, in topological order.
    """
    heirs: dict[str, str] = {}
    seen: set[str] = set()
    for node in nodes:
        for name, owner in node.tied.items():
            if owner.rpartition(".")[0] not in seen:
                heirs.setdefault(owner, f"{node.name}.{name}")
        seen.add(node.name)
    if not heirs:
        return list(nodes), []
    # An owner that is still there, later, now uses its heir's tensor.
    late = _by_host((owner, heir) for owner, heir in heirs.items())
    held = _by_host((heir, heir) for owner, heir in heirs.items() if owner in frozen_keys(graph))
    found: list[Node] = []
    for node in nodes:
        lost, kept = late.get(node.name, {}), held.get(node.name, {})
        tied = {name: heirs.get(owner, owner) for name, owner in node.tied.items()} | lost
        tied = {name: owner for name, owner in tied.items() if owner != f"{node.name}.{name}"}
        frozen = tuple(sorted({*node.frozen, *kept} - lost.keys()))
        same = tied == node.tied and frozen == node.frozen
        found.append(node if same else node.model_copy(update={"tied": Ties(tied), "frozen": frozen}))
    return found, [Rename(owner, heir) for owner, heir in heirs.items()]


def _by_host(keys: Iterable[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Pairs of a key "node.parameter" and something about it, by node and parameter."""
    found: dict[str, dict[str, str]] = {}
    for key, value in keys:
        host, _, name = key.rpartition(".")
        found.setdefault(host, {})[name] = value
    return found


def in_order(graph: Graph, nodes: Sequence[Node], ordered: bool = False) -> list[Node]:
    """The nodes in topological order, new ones right before their first consumer, the rest as they stand.

    Args:
        graph: The graph before the rewrite.
        nodes: The nodes after it.
        ordered: Whether new ones, too, stay where they stand, unless what they read stands later.

    Raises:
        PassRefused: They form a cycle.
    """
    pending = {node.name: node for node in nodes}
    known = graph.by_name
    old = [node for node in nodes if ordered or node.name in known]
    new = [node for node in nodes if not (ordered or node.name in known)]
    found: list[Node] = []
    done: set[str] = {entry.name for entry in graph.inputs}
    for root in (*old, *new):
        if root.name not in done and done.issuperset(root.inputs):
            found.append(root)
            done.add(root.name)
            continue
        stack = [root.name]
        open_: set[str] = set()
        while stack:
            name = stack[-1]
            if name in done:
                stack.pop()
                continue
            waiting = [i for i in pending[name].inputs if i not in done]
            if not waiting:
                found.append(pending[name])
                done.add(name)
                stack.pop()
            elif name in open_:
                raise PassRefused(f"this would make a cycle through {cut(name)}")
            else:
                open_.add(name)
                stack.extend(reversed(waiting))
    return found
