"""Stack and Unstack: one block more, or one fewer, in a chain of blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self, cast

import numpy as np
from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
    StrictBool,
    field_serializer,
)

from growir.blocks import Block, block_of, keeps_shape, members, module_of, renamed, shared_outside
from growir.document import to_data
from growir.edits import Copy, Edit
from growir.errors import PassRefused, cut
from growir.graph import MAX_REFERENCE, Graph, Name, Node, Reference
from growir.layers import ranges_of
from growir.nearest import alternatives
from growir.ops import Constant
from growir.params import owners, param_table
from growir.passes.chain import Place
from growir.passes.eliminate_dead import drops
from growir.passes.insert_block import fragment, kept_at_zero
from growir.passes.renumbering import Room, make_room, renamed_key, source_at
from growir.passes.state import ancestors, repoint
from growir.rewrite import Change, Pass, Preserves, check_new_names, create, fresh_name
from growir.shapes import own_tables, shapes_of
from growir.stages import stages_of
from growir.zeroing import Keys, identity_at

MOST_NODES = 10_000
Nodes = Annotated[tuple[Reference, ...], Field(min_length=1, max_length=MOST_NODES)]


def _place(value: object) -> object:
    """A module by its path, or nodes by their names."""
    if isinstance(value, str) and len(value) <= MAX_REFERENCE:
        return value
    if isinstance(value, list | tuple):
        listed = cast("Sequence[object]", value)
        if 1 <= len(listed) <= MOST_NODES and all(
            isinstance(name, str) and len(name) <= MAX_REFERENCE for name in listed
        ):
            return tuple(listed)
    raise ValueError("a block is a module by its path, or a list of the names of its nodes")


def _place_or_document(value: object) -> object:
    """The same, or a graph or its document."""
    if isinstance(value, Graph | Mapping):
        return fragment(cast("object", value))
    try:
        return _place(value)
    except ValueError as error:
        raise ValueError(f"{error}, or a graph document with one input, or two with before") from None


Where = Annotated[Reference | Nodes, BeforeValidator(_place)]


class Stack(Pass):
    """Put one more block behind a value, so that all that read the value read the block's.

    The block is one that stands in the graph, fresh or with its trained weights, or a document. An exact one starts as
    the identity: where it is x + f(x), the last weights of f are zero, those of a layer or of the norm behind it, and
    learn at once; the others do once these have moved.

    A block may read the last two values of its chain, as cells do: then `before` says which the other one is. All that
    read `after` then read the block's value, and all that read `before` read `after`; only what `after` is computed
    from, and what no output depends on, reads what it did.

    Attributes:
        block: A block of the graph, as the module that it stands in or as its nodes; or a document with one input, or
            with two, in order, what lies before and the value itself.
        after: The value that it is put behind, of the shape that it reads. By default what the block itself gives.
        before: The value one step before that, for a block that reads two of its chain. A block of the graph then reads
            one value beside `input`, which is the one before.
        input: Which value the block of the graph reads in its chain, where it reads several. By default one of the
            shape that it gives, of several the last.
        copy_weights: Whether it has the weights and buffers of the block of the graph, and its optimizer state. Else
            weights start from the operators' initialisers, or as given by `values`.
        exact: Whether the function is kept, which needs a residual block; else it changes.
        module: What the new block is called. By default the next number of the module that lists the blocks.
        shift: Whether the blocks of that list from `module` on move up by one number, with all that is filed under
            their names: then a block between others has the number that a deeper class would give it.
        placed: Where its nodes stand in the document: in a run "behind" what they read, as the import of a deeper class
            has them; or each where it is first "read", which histories of version 1 mean.
    """

    name: ClassVar[str] = "stack"
    version: ClassVar[int] = 2
    later: ClassVar[frozenset[str]] = frozenset({"before", "shift", "placed"})

    block: Annotated[Reference | Nodes | InstanceOf[Graph], BeforeValidator(_place_or_document)]
    after: Reference | None = None
    before: Reference | None = None
    input: Reference | None = None
    copy_weights: StrictBool = False
    exact: StrictBool = True
    module: Name | None = None
    shift: StrictBool = False
    placed: Literal["behind", "read"] = "behind"

    @field_serializer("block")
    def _as_data(self, block: str | Nodes | Graph) -> Any:
        return to_data(block) if isinstance(block, Graph) else block

    @classmethod
    def upgraded(cls, version: int, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return {"placed": "read", **fields} if version == 1 else super().upgraded(version, fields)

    def resolved(self, graph: Graph) -> Self:
        host, block = self._found(graph)
        changes: dict[str, Any] = {"after": self._after(graph, block), "module": self._module(graph, block)}
        if host is graph:
            changes |= {"block": block.nodes, "input": block.input}
        return self.model_copy(update=changes)

    def check(self, graph: Graph) -> None:
        if self.shift:
            room, inner = self._with_room(graph)
            inner.check(room.graph)
            self._check_names(graph, room, inner)
            return
        host, block = self._found(graph)
        place = self._place(graph, block)
        after, where = place.after, str(place)
        place.check(graph)
        here, shapes = shapes_of(graph)[after], shapes_of(host)
        if host is not graph and self.copy_weights:
            raise PassRefused(f"{where}: a document has no weights to copy; name a block of the graph instead")
        if host is not graph and self.input is not None:
            raise PassRefused(f"{where}: a document says itself what it reads; leave input out")
        for what, name in (("takes", block.input), ("gives", block.output)):
            if shapes[name] != here:
                raise PassRefused(
                    f"{where}: the value is {here}, but the block {what} {shapes[name]} ({cut(name)}); it must take "
                    "and give the value's shape"
                )
        if self.before is not None:
            there = shapes_of(graph)[self.before]
            for name in block.beside:
                if shapes[name] != there:
                    raise PassRefused(
                        f"{where}: the value before it, {cut(self.before)}, is {there}, but there the block takes "
                        f"{shapes[name]} ({cut(name)}); it must take that value's shape too"
                    )
            place.check_readers(graph)
        elif host is graph:
            early = [name for name in block.beside if after in ancestors(graph, name)]
            if early:
                raise PassRefused(f"{where}: the block reads {cut(early[0])} too, which would then read the block")
        module = self._module(graph, block)
        check_new_names(graph, where, module, self._called(host, block, module).values())
        if self.exact:
            self._zeros(graph, host, block)

    def _with_room(self, graph: Graph) -> tuple[Room, Self]:
        """The graph with room for the block, and this pass as it is said there. Raises PassRefused if there is none."""
        if self.module is None:
            raise PassRefused(
                'stack: shift makes room for a module that has a number; give module, such as "blocks.1" for a block '
                "between blocks.0 and what is blocks.1 now"
            )
        host, block = self._found(graph)
        room = make_room(graph, self.module)
        named = {"after": self._after(graph, block), "before": self.before}
        changes: dict[str, Any] = {}
        if host is graph:
            named["input"] = block.input
            changes["block"] = tuple(room.called.get(name, name) for name in block.nodes)
        changes |= {field: name and room.called.get(name, name) for field, name in named.items()}
        return room, self.model_copy(update={**changes, "shift": False})

    def _check_names(self, graph: Graph, room: Room, inner: Self) -> None:
        """Raise PassRefused if what moves up, or the block, would have a name that something else had once."""
        host, block = inner._found(room.graph)
        new = {*room.called.values(), *inner._called(host, block, inner._module(room.graph, block)).values()}
        if taken := sorted((new - graph.by_name.keys()) & graph.used_names):
            raise PassRefused(
                f"stack: blocks cannot move up from {cut(str(self.module))!r} on, since the name {cut(taken[0])} has "
                "been used; put the block behind the last, without shift"
            )

    def _found(self, graph: Graph) -> tuple[Graph, Block]:
        """The graph that the block stands in, this one or a document, and where. Raises PassRefused if it is none."""
        if isinstance(self.block, Graph):
            return self.block, _whole(self.block, two=self.before is not None)
        block = found(graph, self.block, self.input)
        if self.before is not None and len(block.beside) != 1:
            beside = ", ".join(cut(name) for name in block.beside) or "nothing"
            raise PassRefused(
                f"the block up to {cut(block.output)} reads {beside} beside {cut(block.input)}, but with before it "
                "must read one value beside it, the one that lies before"
            )
        return graph, block

    def _after(self, graph: Graph, block: Block) -> str:
        if self.after is not None:
            return self.after
        if isinstance(self.block, Graph):
            raise PassRefused("stack: a document needs a place; give after, the value that it is put behind")
        return block.output

    def _place(self, graph: Graph, block: Block) -> Place:
        return Place(self._after(graph, block), self.before)

    def _module(self, graph: Graph, block: Block) -> str:
        """What the new block is called: layer1.2 beside layer1.0 and layer1.1, or else block_1."""
        if self.module is not None:
            return self.module
        return fresh_name(graph, "block") if isinstance(self.block, Graph) else next_module(graph, block)

    def _called(self, host: Graph, block: Block, module: str) -> dict[str, str]:
        """The names of the new nodes by those of the old."""
        stem = "" if isinstance(self.block, Graph) else self._stem(block, module)
        return {name: f"{module}.{name[len(stem) + 1 :] if stem else name}" for name in block.nodes}

    def _stem(self, block: Block, module: str) -> str:
        """The path that the new block's stands for: that of the block in its list, though all nodes lie deeper in it.

        The nodes of blocks.0.layer.0 and blocks.0.layer.1 share blocks.0.layer, but beside blocks.2 it is blocks.0.
        """
        stem, parent = module_of(block), module.rpartition(".")[0]
        number = stem.removeprefix(f"{parent}.").partition(".")[0] if parent and stem.startswith(f"{parent}.") else ""
        # Histories of version 1 mean the longer path.
        return f"{parent}.{number}" if self.placed == "behind" and number.isdigit() else stem

    def identity(self, graph: Graph) -> Keys | str:
        """What the new parameters start as that make the block give back what it reads; or why there are none.

        Raises:
            PassRefused: There is no such block.
        """
        host, block = self._found(graph)
        called = self._called(host, block, self._module(graph, block))
        keys = self._keys(graph, host, block)
        return keys if isinstance(keys, str) else {renamed_key(key, called): start for key, start in keys.items()}

    def _keys(self, graph: Graph, host: Graph, block: Block) -> Keys | str:
        """The same by the keys of the block that is repeated."""
        thawed = host is graph and not self.copy_weights
        return identity_at(host, block, ranges_of(graph)[self._after(graph, block)], thawed=thawed)

    def _zeros(self, graph: Graph, host: Graph, block: Block) -> Keys:
        """The same. Raises PassRefused if there are none, or if they do not keep the function."""
        keys, place = self._keys(graph, host, block), self._place(graph, block)
        if isinstance(keys, str):
            raise PassRefused(
                f"{place} cannot start as the identity, as an exact one does: {keys}; with exact=False the function "
                "changes"
            )
        place.check_kept(graph)
        return keys

    def preserves(self, graph: Graph) -> Preserves:
        if not self.exact:
            return Preserves.NOTHING
        if self.shift:
            room, inner = self._with_room(graph)
            return inner.preserves(room.graph)
        host, block = self._found(graph)
        called = self._called(host, block, self._module(graph, block))
        zeros = {renamed_key(key, called): start for key, start in self._zeros(graph, host, block).items()}
        given = any(np.any(self.values.get(key, start) != start) for key, start in zeros.items())
        return Preserves.NOTHING if given else kept_at_zero(host[name] for name in block.nodes)

    def change(self, graph: Graph, step: int) -> Change:
        if self.shift:
            room, inner = self._with_room(graph)
            done = inner.change(room.graph, step)
            created = [node.name for node in done.nodes if node.name not in graph]
            return replace(done, edits=(*room.edits, *done.edits), created=created)
        host, block = self._found(graph)
        place = self._place(graph, block)
        reads = {block.input: place.after}
        if self.before is not None:
            reads |= dict.fromkeys(block.beside, self.before)
        module = self._module(graph, block)
        called = self._called(host, block, module)
        zeros = self._zeros(graph, host, block) if self.exact else dict[str, float]()
        outer = shared_outside(host, block.nodes)
        nodes = [renamed(host[name], called, reads, _shared(host, name, outer)) for name in block.nodes]
        if host is graph:
            stem = self._stem(block, module)
            nodes = [node.model_copy(update={"source": source_at(node.source, stem, module)}) for node in nodes]
        if host is graph and not self.copy_weights:
            nodes = [node.model_copy(update={"frozen": ()}) for node in nodes]
        table, own, edits = param_table(host), owners(host), list[Edit]()
        for key, owner in own.items():
            # What is shared with a node outside of the block is shared with the new one too.
            if owner != key or key in outer or key.rpartition(".")[0] not in called:
                continue
            param, new = table[key], renamed_key(key, called)
            if self.copy_weights and key not in zeros and new not in self.values:
                edits.append(Copy(new, key))
            else:
                start = replace(param, init=Constant(zeros[key])) if key in zeros else param
                edits.append(create(new, start, self.seed, step, self.values))
        old, outputs = place.repointed(graph, called[block.output])
        created = [node.name for node in nodes]
        if self.placed == "read":
            return Change([*old, *nodes], outputs, edits, created)
        outside = {name for node in nodes for name in node.inputs} - set(created)
        behind = 1 + max((k for k, node in enumerate(old) if node.name in outside), default=-1)
        return Change([*old[:behind], *nodes, *old[behind:]], outputs, edits, created, ordered=True)

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for stage in stages_of(graph):
            block = stage.repeated
            if block is None:
                continue
            for copy_weights in (False, True):
                step = cls(block=block.nodes, input=block.input, copy_weights=copy_weights)
                if step.fits(graph) and step.preserves(graph) is not Preserves.NOTHING:
                    yield step


class Unstack(Pass):
    """Take a block out of a chain, so that all that read its output read its input.

    The function is kept where the block gives back what it reads; `measure` says how far the outputs move.

    Attributes:
        block: The block, as the module that it stands in or as its nodes.
        input: Which value it reads in its chain, where it reads several; as for `stack`.
    """

    name: ClassVar[str] = "unstack"

    block: Where
    input: Reference | None = None

    def resolved(self, graph: Graph) -> Self:
        block = found(graph, self.block, self.input)
        return self.model_copy(update={"block": block.nodes, "input": block.input})

    def check(self, graph: Graph) -> None:
        block = found(graph, self.block, self.input)
        if not keeps_shape(graph, block):
            shapes = shapes_of(graph)
            raise PassRefused(
                f"the block up to {cut(block.output)} cannot go: it reads {shapes[block.input]} and gives "
                f"{shapes[block.output]}, and what follows needs that shape"
            )

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.APPROXIMATE  # only measuring can tell that a block gives back what it reads

    def change(self, graph: Graph, step: int) -> Change:
        block = found(graph, self.block, self.input)
        gone = set(block.nodes)
        nodes, outputs = repoint(graph, block.output, block.input)
        kept: list[Node] = [node for node in nodes if node.name not in gone]
        return Change(kept, outputs, drops(graph, {node.name for node in kept}))

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for stage in stages_of(graph):
            if stage.depth > 1:
                yield cls(block=stage.blocks[-1].nodes, input=stage.blocks[-1].input)


def next_module(graph: Graph, block: Block) -> str:
    """What one more block of the kind is called: the next number that the module which lists them never had."""
    parent, _, number = module_of(block).rpartition(".")
    if not parent or not number.isdigit():
        return fresh_name(graph, "block")
    used = (name[len(parent) + 1 :].split(".")[0] for name in graph.used_names if name.startswith(f"{parent}."))
    return f"{parent}.{1 + max(int(one) for one in used if one.isdigit())}"


def found(graph: Graph, where: str | Nodes, entry: str | None) -> Block:
    """A block of a graph. Raises PassRefused, saying why, if there is none."""
    if isinstance(where, str):
        nodes, what = members(graph, where), f"module {cut(where)!r}"
        if not nodes:
            modules = sorted({name.rpartition(".")[0] for name in graph.by_name} - {""})
            raise PassRefused(f"there is no {what} in the graph.{alternatives(where, modules)}")
    else:
        nodes, what = where, f"the nodes {cut(where[0])} to {cut(where[-1])}"
        for name in nodes:
            if name not in graph:
                raise PassRefused(f"block: there is no node {cut(name)!r}.{alternatives(name, graph.by_name)}")
    block = block_of(graph, nodes, entry)
    if isinstance(block, str):
        raise PassRefused(f"{what} is no block: {block}" if isinstance(where, str) else f"{what} are no block: {block}")
    return block


def _whole(document: Graph, *, two: bool) -> Block:
    """A document as a block. Raises PassRefused if it has not one output, or not one input, or two with `before`."""
    inputs = [entry.name for entry in document.inputs]
    for what, many, wanted in (("input", inputs, 2 if two else 1), ("output", document.outputs, 1)):
        if len(many) == wanted:
            continue
        listed = ", ".join(cut(name) for name in many)
        if wanted == 2:
            raise PassRefused(
                "with before a block has two inputs, what lies before and the value itself, but this one has "
                f"{len(many)}: {listed}"
            )
        more = (
            "; give before, the value that the first of them stands for" if what == "input" and len(many) == 2 else ""
        )
        raise PassRefused(f"a block has one {what}, but this one has {len(many)}: {listed}{more}")
    block = block_of(document, [node.name for node in document.nodes], inputs[-1])
    if isinstance(block, str):
        raise PassRefused(f"the document is no block: {block}")
    return block


def _shared(graph: Graph, node: str, outer: Collection[str]) -> dict[str, str]:
    """The owners of a node's tensors that are shared with nodes outside of its block, by parameter."""
    own = owners(graph)
    mine = {parameter: own[f"{node}.{parameter}"] for parameter in own_tables(graph)[node]}
    return {parameter: owner for parameter, owner in mine.items() if owner in outer}
