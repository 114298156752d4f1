"""What train mode does otherwise than eval mode: dropout, batch statistics, buffers, code that asks `self.training`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from growir.backends.torch_export.aliasing import storage
from growir.backends.torch_export.calls import holds_tensor, name_of, overload, writes
from growir.backends.torch_export.exporting import source_line

MAX_LINES = 8
_DROPS = ("dropout", "feature_dropout")
_CASTS = ("to", "_to_copy", "float", "double", "type_as")
_COPIES = ("contiguous", "clone", "alias", "lift_fresh_copy")


@dataclass(frozen=True, slots=True)
class Written:
    """A call that changes a buffer or parameter in train mode, from which the model computes its outputs.

    Attributes:
        call: The call, or the one that computed what is written, which has the line.
        name: The tensor's name in the model.
    """

    call: fx.Node
    name: str


@dataclass(frozen=True, slots=True)
class Match:
    """The two modes of a model, call by call.

    Attributes:
        pairs: The train-mode call for each eval-mode call.
        strange: The calls of either that the other has not.
        settled: Whether all of those compute with no input, or only drop: what they give is the same in eval mode if
            the numbers are, which running them shows.
        drops: Whether there is a dropout among them, which the network then has to have.
        written: What train mode writes down for later.
        calls: The eval-mode calls in order, by name.
    """

    pairs: dict[fx.Node, fx.Node]
    strange: Sequence[fx.Node] = ()
    settled: bool = True
    drops: bool = False
    written: Sequence[Written] = ()
    calls: Sequence[tuple[str, fx.Node]] = ()

    def carried(self, exported: ExportedProgram) -> dict[fx.Node, fx.Node] | None:
        """The pairs of the same model's export with another example; None if its calls are others."""
        calls = _Program(exported).calls()
        if [name_of(node) for node in calls] != [name for name, _ in self.calls]:
            return None
        old = (node for _, node in self.calls)
        return {new: self.pairs[node] for node, new in zip(old, calls, strict=True) if node in self.pairs}


def matched(exported: ExportedProgram, training: ExportedProgram) -> Match:
    """Set the programs of the two modes side by side.

    Calls without an effect count for nothing: copies, casts to the same dtype, and all whose result no output needs.
    """
    one, two = _Program(exported), _Program(training)
    calls = one.calls(), two.calls()
    names = [name_of(node) for node in calls[0]], [name_of(node) for node in calls[1]]
    written = list(_read_again(two, one))
    pairs: dict[fx.Node, fx.Node] = {}
    strange: list[fx.Node] = []
    settled = True
    for tag, a, b, c, d in SequenceMatcher(None, *names, autojunk=False).get_opcodes():
        if tag == "equal":
            pairs.update(zip(calls[0][a:b], calls[1][c:d], strict=True))
            continue
        strange += [*calls[0][a:b], *calls[1][c:d]]
        settled = settled and all(
            name_of(node) in _DROPS or (node not in program.varying and not _draws(node))
            for program, nodes in ((one, calls[0][a:b]), (two, calls[1][c:d]))
            for node in nodes
        )
    drops = any(name_of(node) in _DROPS for node in strange)
    return Match(pairs, strange, settled, drops, written, tuple(zip(names[0], calls[0], strict=True)))


class _Program:
    """A program with what its calls depend on.

    Attributes:
        live: Everything that an output needs.
        varying: What depends on an input, or on a tensor that is written in train mode.
        learned: What depends on an input or a parameter, so that a gradient goes through it.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.nodes = list(program.graph.nodes)
        kinds = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        self.names = {n: kinds[n.name].target or "" for n in self.nodes if n.op == "placeholder"}
        self.writes = [n for n in self.nodes if n.op == "call_function" and overload(n) is not None and writes(n)]
        placed = {storage(n): n for n in self.names if kinds[n.name].kind != InputKind.USER_INPUT}
        placed.pop(None, None)
        memory = {n: storage(n.all_input_nodes[0]) for n in self.writes}
        self.lasting = {n: placed[where] for n, where in memory.items() if where in placed}
        self.live = self._live()
        given = [n for n in self.names if kinds[n.name].kind == InputKind.USER_INPUT]
        parameters = [n for n in self.names if kinds[n.name].kind == InputKind.PARAMETER]
        self.varying = self._reached([*given, *self.lasting.values()])
        self.learned = self._reached([*given, *parameters])

    def _live(self) -> set[fx.Node]:
        """What the outputs are computed from. A write is needed if what it writes into is read later."""
        live: set[fx.Node] = set()
        writing = set(self.writes)
        read: set[int | None] = set()  # the memory that what is known to be needed reads
        for node in reversed(self.nodes):
            written = storage(node.all_input_nodes[0]) if node in writing else None
            if node.op == "output" or node in live or written in read:
                live.add(node)
                live.update(node.all_input_nodes)
                read.update(storage(given) for given in node.all_input_nodes)
                read.discard(None)
        return live

    def _reached(self, starts: Sequence[fx.Node]) -> set[fx.Node]:
        found = set(starts)
        for node in self.nodes:
            if not found.isdisjoint(node.all_input_nodes):
                found.add(node)
        return found

    def calls(self) -> list[fx.Node]:
        """The calls that make the result, in order; writes into buffers and what changes nothing are none."""
        return [
            node
            for node in self.nodes
            if node.op == "call_function"
            and overload(node) is not None
            and holds_tensor(node)
            and node in self.live
            and node not in self.lasting
            and not self._without_effect(node)
        ]

    def _without_effect(self, node: fx.Node) -> bool:
        name = name_of(node)
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if name == "detach":
            return source not in self.learned
        if name in _CASTS and source is not None:
            return _dtype(source) == _dtype(node)
        return name in _COPIES

    def reads(self, name: str) -> bool:
        """Whether an output is computed from a parameter or buffer, other than by a norm that keeps count."""
        memory = {storage(n) for n, known in self.names.items() if known == name} - {None}
        return any(
            storage(given) in memory for node in self.live if node not in self.lasting for given in node.all_input_nodes
        )


def _read_again(training: _Program, exported: _Program) -> Iterator[Written]:
    """The writes of train mode into what an output of either mode is computed from."""
    for call, placed in training.lasting.items():
        name = training.names[placed]
        if training.reads(name) or exported.reads(name):
            value = call.args[1] if len(call.args) > 1 and isinstance(call.args[1], fx.Node) else None
            # An assignment, self.t = self.t + 1, is written down at the end, without a line of its own.
            traced = call if call.meta.get("stack_trace") or value is None else value
            yield Written(traced, name)


def _dtype(node: fx.Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _draws(node: fx.Node) -> bool:
    op = overload(node)
    return op is not None and torch.Tag.nondeterministic_seeded in op.tags


def notice_of(strange: Sequence[fx.Node], written: Sequence[Written]) -> str:
    """One warning for all the lines of the model that these calls come from."""
    lines = list(dict.fromkeys([*(source_line(node) for node in strange), *(text_of(w) for w in written)]))
    return shown("the model does something else in train mode, which the network does not have", lines)


def text_of(written: Written, *, folders: bool = True) -> str:
    """The line of a write and what it means."""
    line = source_line(written.call, folders=folders)
    return f"{line}: changes {written.name!r}, which the outputs are computed from"


def shown(what: str, lines: Sequence[str]) -> str:
    """A warning with its lines, at most eight of them."""
    listed = "".join(f"\n  {line}" for line in lines[:MAX_LINES])
    more = f"\n  ... and {len(lines) - MAX_LINES} more" if len(lines) > MAX_LINES else ""
    return f"{what}:{listed}{more}"
