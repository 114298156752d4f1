"""What a program computes from sizes and constants alone: run once, before the graph is written.

Masks, positions and tables of sines depend on nothing but the sizes of the inputs. The calls that make them are run as
they are, integers and truth values included, for two batch sizes. What comes out has to be the same for every sample;
one row of it becomes a constant of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx
from torch._C._functorch import (  # pyright: ignore[reportMissingModuleSource]
    _vmap_decrement_nesting,  # pyright: ignore[reportPrivateUsage]
    is_functorch_wrapped_tensor,
)
from torch.export import ExportedProgram

from growir.backends.torch_export.calls import bound, name_of, overload, tensor_of, writes
from growir.backends.torch_export.causes import drawing, draws
from growir.backends.torch_export.values import Batch, Constant, Held, Layout, Spread, Varied

# Arguments of which only sizes and dtype matter.
_LIKE = {
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "empty_like"), "self"),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), "self"),
    **dict.fromkeys(("expand_as", "view_as", "reshape_as", "type_as"), "other"),
}
_UNWRITTEN = frozenset({"empty", "empty_like", "new_empty", "empty_permuted", "empty_strided", "new_empty_strided"})
_VMAP = "torch._functorch.predispatch"  # the calls that torch.vmap is made of; they keep count of its nesting


@dataclass(slots=True)
class Folded:
    """What was computed.

    Attributes:
        items: Each call that was run and is read by one that was not: its constant, or a tuple of them.
        changes: After a call that writes into a constant: the constants as they are from then on.
        refused: Calls on constants that a graph cannot have, and why.
        unread: Calls that were run and are read by nothing else.
        numbers: Calls that give a plain number, the same for every batch size.
    """

    items: dict[fx.Node, Any] = field(default_factory=dict[fx.Node, Any])
    changes: dict[fx.Node, dict[fx.Node, Any]] = field(default_factory=dict[fx.Node, dict[fx.Node, Any]])
    refused: dict[fx.Node, str] = field(default_factory=dict[fx.Node, str])
    unread: set[fx.Node] = field(default_factory=set[fx.Node])
    numbers: dict[fx.Node, int | float | bool] = field(default_factory=dict[fx.Node, int | float | bool])

    def forget(self, node: fx.Node) -> None:
        """Let a call be read that was run: what it shows is no constant any more."""
        self.items.pop(node, None)
        self.unread.discard(node)


def fold(exported: ExportedProgram, batch: Batch, given: Mapping[fx.Node, Held]) -> Folded:
    """Run every call that needs no value of an input and no parameter.

    Args:
        exported: The program.
        batch: How to tell the batch size; one that is not open is the only one that is run.
        given: The buffers and constants by their placeholders.
    """
    sizes = [batch.size, 2 * batch.size + 1] if batch.symbolic else [batch.size]
    runs = [_Run(exported, size, given) for size in sizes]
    for run in runs:
        with torch.no_grad():
            run.all()
    first = runs[0]
    found = Folded(refused=first.refused)
    settled: dict[fx.Node, Any] = {}
    for node, value in first.kept.items():
        values = [run.kept.get(node) for run in runs]
        if isinstance(value, (int, float)) and all(other == value for other in values):
            found.numbers[node] = value
        elif any(user not in first.kept for user in node.users):
            same = first.same.get(node, node)
            settled[node] = given[same] if same in given else _settled(values, sizes, batch)
    ran = first.live.keys() - given.keys()
    found.unread = {node for node in ran if node.op == "call_function" and node not in settled}
    found.items = {node: item for node, item in settled.items() if item is not None}
    for writer, changed in first.changes.items():
        others = [run.changes[writer] for run in runs]
        found.changes[writer] = {node: _settled([other[node] for other in others], sizes, batch) for node in changed}
    return found


class _Run:
    """One run of the program's constant part, with one batch size."""

    def __init__(self, exported: ExportedProgram, size: int, given: Mapping[fx.Node, Held]) -> None:
        self.program = exported
        self.size = size
        # Buffers of the model are not written into; constants of its code are its own at each run.
        self.live: dict[fx.Node, Any] = {n: h.tensor if h.keys else h.tensor.clone() for n, h in given.items()}
        self.kept: dict[fx.Node, Any] = {}  # the values as they were made, whatever was written since
        self.same: dict[fx.Node, fx.Node] = {}  # calls that give back the very tensor they were given
        self.changes: dict[fx.Node, dict[fx.Node, Any]] = {}
        self.refused: dict[fx.Node, str] = {}
        self.owned = {_memory(held.tensor): held.keys[0] for held in given.values() if held.keys}
        self.nesting = 0

    def all(self) -> None:
        """Run the calls in order."""
        try:
            for node in self.program.graph.nodes:
                if node.op == "get_attr":
                    self.live[node] = getattr(self.program.graph_module, str(node.target))
                elif node.op == "call_function":
                    self._one(node)
        finally:
            for _ in range(self.nesting):  # a call inside torch.vmap failed
                _vmap_decrement_nesting()

    def _one(self, node: fx.Node) -> None:
        if overload(node) is not None and not node.users and not writes(node):
            if self._known(node):
                self.live[node] = None  # an assertion, or code that nothing comes of
            return
        if not self._known(node):
            number = self._at_size(node.meta.get("val"))
            if number is not None:
                self.live[node] = self.kept[node] = number
            elif writes(node):
                self._lose(cast(fx.Node, node.args[0]))
            return
        if draws(node):
            self.refused[node] = drawing(node)
            return
        if writes(node):
            owner = self.owned.get(_memory(self.live[cast(fx.Node, node.args[0])]))
            if owner is not None:
                self.refused[node] = f"writes into {owner!r}; a graph changes buffers only in batch norm"
                return
            self._before_writing(node)
        try:
            result = self._called(node)
        except Exception as error:  # whatever the called function raises
            self.refused[node] = f"fails: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
            return
        self.live[node] = result
        if result is not None and not _wrapped(result):
            self.kept[node] = result
            whose = next((n for n in node.all_input_nodes if self.live.get(n) is result), None)
            if whose is not None:
                self.same[node] = self.same.get(whose, whose)
        if writes(node):
            sharing = self._sharing(cast(fx.Node, node.args[0]))
            self.changes[node] = {other: self.live[other].clone() for other in sharing}

    def _called(self, node: fx.Node) -> Any:
        like = _LIKE.get(name_of(node), "") if overload(node) is not None else ""
        unknown = [n for n in node.all_input_nodes if n not in self.live]
        stand_ins = {n: self._stand_in(n) for n in unknown if bound(node).get(like) is n}
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: stand_ins[n] if n in stand_ins else self.live[n])
        kwargs = {key: torch.device("cpu") if key == "device" else value for key, value in kwargs.items()}
        result = cast(Any, node.target)(*args, **kwargs)
        if overload(node) is not None and name_of(node) in _UNWRITTEN:
            result.zero_()  # whatever was in the memory would be a constant that differs from run to run
        if getattr(node.target, "__module__", "") == _VMAP:
            name = getattr(node.target, "__name__", "")
            self.nesting += (name == "_vmap_increment_nesting") - (name == "_vmap_decrement_nesting")
        return result

    def _known(self, node: fx.Node) -> bool:
        """Whether all that the call needs is there.

        Of x.view_as(y) the numbers are those of x, and y may be any input. It counts which argument is unknown, not
        which tensor: in y.view_as(y) it is both.
        """
        unknown = [n for n in node.all_input_nodes if n not in self.live]
        if not unknown or overload(node) is None:
            return not unknown
        like = _LIKE.get(name_of(node))
        needed: list[fx.Node] = []
        fx.map_arg([value for name, value in bound(node).items() if name != like], needed.append)
        return like is not None and all(n in self.live for n in needed)

    def _stand_in(self, node: fx.Node) -> torch.Tensor:
        """A tensor of the right size and dtype, and no memory to speak of."""
        value = tensor_of(node)
        sizes = [self._at_size(size) for size in value.shape]
        return torch.zeros((), dtype=value.dtype).expand(cast("list[int]", sizes))

    def _at_size(self, value: object) -> int | float | bool | None:
        """A size of the program for this run's batch size; None if it is no number or depends on more than that."""
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            expression = cast(Any, value.node.expr)
            free = cast("set[Any]", expression.free_symbols)
            if len(free) > 1 or not all(str(symbol).startswith("s") for symbol in free):
                return None
            kind = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}[type(value)]
            found: int | float | bool = kind(expression.subs(dict.fromkeys(free, self.size)))
            return found
        return value if isinstance(value, (int, float)) else None

    def _sharing(self, node: fx.Node) -> list[fx.Node]:
        """Every call whose result lies in the same memory."""
        memory = _memory(self.live[node])
        return [n for n, value in self.live.items() if memory is not None and _memory(value) == memory]

    def _before_writing(self, node: fx.Node) -> None:
        for other in self._sharing(cast(fx.Node, node.args[0])):
            if other in self.kept and self.kept[other] is self.live[other]:
                self.kept[other] = self.live[other].clone()
            self.same.pop(other, None)

    def _lose(self, written: fx.Node) -> None:
        """A call on inputs writes into a constant: from then on it is none."""
        for other in self._sharing(written) if written in self.live else ():
            del self.live[other]


def _wrapped(value: object) -> bool:
    """Whether a tensor is one of those that stand for a slice inside torch.vmap."""
    return isinstance(value, torch.Tensor) and is_functorch_wrapped_tensor(value)


def _memory(value: object) -> int | None:
    if not isinstance(value, torch.Tensor) or _wrapped(value) or value.numel() == 0:
        return None
    return value.untyped_storage().data_ptr()


def _settled(values: Sequence[Any], sizes: Sequence[int], batch: Batch) -> Any:
    """What the runs gave, as one item that holds for every batch size; None for what is no tensor."""
    if isinstance(values[0], (tuple, list)):
        return tuple(_settled(parts, sizes, batch) for parts in zip(*values, strict=True))
    if not all(isinstance(value, torch.Tensor) for value in values):
        return None
    return _common(cast("Sequence[torch.Tensor]", values), sizes, batch)


def _common(values: Sequence[torch.Tensor], sizes: Sequence[int], batch: Batch) -> Constant:
    first, last = values[0], values[-1]
    if batch.symbolic:
        places = [k for k, (a, b) in enumerate(zip(first.shape, last.shape, strict=True)) if a != b]
    else:
        places = [k for k, size in enumerate(first.shape) if batch.factor(size) is not None]
    if not places:
        if all(_equal(value, first) for value in values):
            return Held(first)
        return Varied("depends on the batch size; a graph treats each sample alike")
    place = places[0]
    factors = {divmod(value.shape[place], size) for value, size in zip(values, sizes, strict=True)}
    if len(places) > 1 or len(factors) > 1 or any(rest for _, rest in factors):
        return Varied(f"makes a tensor of the sizes {list(first.shape)} of the batch size; a graph has it in one axis")
    ((factor, _),) = factors
    # The axis is (batch, factor) or (factor, batch).
    for outer in (False, True) if factor > 1 else (False,):
        rows: list[torch.Tensor] = []
        for value, size in zip(values, sizes, strict=True):
            front = value.movedim(place, 0)
            split = front.reshape(*((factor, size) if outer else (size, factor)), *front.shape[1:])
            rows.append(split.transpose(0, 1) if outer else split)
        row = rows[0][:1]
        if all(_equal(found, row.expand_as(found)) for found in rows):
            return Spread(row if factor > 1 else row.squeeze(1), Layout(place, outer, factor > 1 and not outer))
    moved = [value.movedim(place, -1) for value in values]
    numbered = all(_equal(rows, torch.arange(rows.shape[-1]).expand_as(rows)) for rows in moved)
    why = "makes a tensor that differs from sample to sample by its place in the batch"
    return Varied(why, place if numbered else -1)


def _equal(one: torch.Tensor, two: torch.Tensor) -> bool:
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    alike = one == two
    return bool((alike | ((one != one) & (two != two))).all())
