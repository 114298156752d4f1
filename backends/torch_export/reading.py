"""One walk over an exported program that writes down the graph's nodes, and everything that has no place in a graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._pytree import TreeSpec

from growir.backends.torch_arrays import to_array
from growir.backends.torch_export import aliasing
from growir.backends.torch_export.arguments import agrees, looked_through
from growir.backends.torch_export.calls import Call, full_name, holds_tensor, name_of, writes
from growir.backends.torch_export.causes import cause, drawing, draws
from growir.backends.torch_export.exporting import source_line
from growir.backends.torch_export.folding import Folded, fold
from growir.backends.torch_export.preparing import modules_of
from growir.backends.torch_export.values import (
    PLAIN,
    Batch,
    Broken,
    Held,
    Item,
    Layout,
    Spread,
    Unsupported,
    Value,
    Varied,
    shape_of,
)
from growir.errors import GraphError, Problem
from growir.ops import Cast, DType, Expand, Op, OpError, Parameter, Shape

_BY_SAMPLE = ("index",)  # calls that may be given the numbers of the samples, to take something of each
Env = dict[fx.Node, Any]  # an Item, or a tuple of them for calls that return several


@dataclass(slots=True)
class Draft:
    """A node without a name yet.

    Attributes:
        op: Its operator.
        inputs: The sources of its inputs: the graph's inputs counted first, then its nodes.
        params: Its tensors by the operator's own names.
        call: The call of the program it comes from.
        shape: The shape of its value.
    """

    op: Op
    inputs: tuple[int, ...]
    params: Mapping[str, Held]
    call: fx.Node
    shape: Shape


class Reader:
    """What the functions of the table work with: the program on one side, the nodes written so far on the other.

    It is given the table, since those functions are written in terms of it.
    """

    def __init__(
        self,
        exported: ExportedProgram,
        batch: Batch,
        twins: Mapping[fx.Node, fx.Node],
        model: nn.Module,
        table: Mapping[str, Callable[[Reader, Call], Any]],
    ) -> None:
        self.table = table
        self.exported = exported
        self.batch = batch
        self.twins = twins
        self.env: Env = {}
        self.inputs: list[tuple[str, Shape]] = []
        self.drafts: list[Draft] = []
        self.outputs: list[int] = []
        self.problems: dict[Problem, None] = {}
        self.notices: dict[str, None] = {}
        self.modules = dict(modules_of(model))
        self.buffers: dict[str, Held] = {}
        self.stays: list[fx.Node] = []  # batch norms that use their kept statistics in train mode too
        self.constants: dict[object, Held] = {}  # those of the model's code, by their numbers
        self.values: dict[int, Value] = {}  # parameters that are values, by the tensor's id
        self.floated: dict[int, Value] = {}  # whole numbers as floats, by their source
        self.folded = Folded()
        self.dtype = _common_dtype(exported)
        self.dtypes = {self.dtype}  # and whatever else the model computes in
        self.cast: dict[int, torch.Tensor] = {}  # tensors of other dtypes as the network holds them, by their id
        self.pieces: dict[fx.Node, aliasing.Pieces] = {}  # tensors of which slices were written
        self.call: fx.Node
        self.first_input: fx.Node  # the one that tells the batch size
        self.order = {node: k for k, node in enumerate(exported.graph.nodes)}
        self.sharing: dict[int | None, list[fx.Node]] = {}
        for node in exported.graph.nodes:
            self.sharing.setdefault(aliasing.storage(node), []).append(node)

    # -- the walk -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Read the whole program; what could not be read is in `problems`."""
        self._placeholders()
        constants = {n: item for n, item in self.env.items() if isinstance(item, Held) and not item.trained}
        self.folded = fold(self.exported, self.batch, constants)
        needed = self._needed()
        for node in self.exported.graph.nodes:
            self.call = node
            if node.op == "call_function" and node in needed:
                try:
                    self.env[node] = self.called(node)
                    if isinstance(self.env[node], Value):
                        self.computes_in(node.meta["val"].dtype)
                except (Unsupported, OpError, GraphError, ValidationError) as error:
                    self.problem(full_name(node), error)
                    self.env[node] = Broken()
            elif node.op == "output":
                self._finish(node)

    def _needed(self) -> set[fx.Node]:
        """The calls that the outputs come from, and those that write, whose results have other names."""
        todo = [n for n in self.exported.graph.nodes if n.op == "output" or (n.op == "call_function" and writes(n))]
        found: set[fx.Node] = set()
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                todo += node.all_input_nodes
        return found

    def problem(self, what: str, error: Exception) -> None:
        """Note what has no place in a graph, with the model's line."""
        text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        self.problems[Problem(source_line(self.call), f"{what} {text}")] = None

    def _placeholders(self) -> None:
        signature = self.exported.graph_signature
        kinds = {spec.arg.name: spec for spec in signature.input_specs}
        names: dict[int, list[str]] = {}
        state = cast("dict[str, torch.Tensor]", {**self.exported.constants, **self.exported.state_dict})
        for key, tensor in state.items():
            names.setdefault(id(tensor), []).append(key)
        for node in self.exported.graph.nodes:
            if node.op != "placeholder":
                continue
            self.call = node
            spec = kinds[node.name]
            if spec.kind == InputKind.USER_INPUT:
                if isinstance(node.meta.get("val"), torch.Tensor):
                    self.env[node] = self._input(node)
                continue
            tensor = state[spec.target or ""]
            keys = () if spec.kind == InputKind.CONSTANT_TENSOR else tuple(names[id(tensor)])
            held = Held(tensor, keys, trained=spec.kind == InputKind.PARAMETER)
            self.env[node] = held
            self.buffers.update((key, held) for key in keys)

    def _input(self, node: fx.Node) -> Value:
        sizes, _, _ = self.batch.split(node.meta["val"].shape)
        shape = shape_of(sizes, batched=True, integer=not node.meta["val"].is_floating_point())
        if not self.inputs:
            self.first_input = node
        self.inputs.append((node.name, shape))
        return Value(len(self.inputs) - 1, shape)

    def called(self, node: fx.Node) -> Any:
        """What one call gives: an item, or a tuple of them."""
        if node in self.folded.refused:
            raise Unsupported(self.folded.refused[node])
        self.env.update(self.folded.changes.get(node, {}))
        if node in self.folded.items:
            return self.folded.items[node]
        if node in self.folded.unread:
            return None
        if node.target is operator.getitem:
            source, index = node.args
            found = self.env.get(cast(fx.Node, source))
            return found if isinstance(found, Broken) or found is None else found[index]
        if not holds_tensor(node):
            return None  # arithmetic on sizes; what comes of it is in the sizes of the tensors
        items = [self.env.get(given) for given in node.all_input_nodes if holds_tensor(given)]
        if any(isinstance(item, Broken) for item in items):
            return Broken()
        why = cause(node)
        if why is not None:
            raise Unsupported(why)
        if draws(node) and not self.trains:
            raise Unsupported(drawing(node))
        for item in items:
            if isinstance(item, Varied) and (item.numbers < 0 or name_of(node) not in _BY_SAMPLE):
                raise Unsupported(f"reads what {item.why}")
        call = Call(self, node)
        found = aliasing.read(self, call)
        looked_through(call)
        if isinstance(found, Value):
            self._count(node, found)
        agrees(call, found)
        return found

    def _count(self, node: fx.Node, found: Value) -> None:
        """Settle sizes that export left open and that the graph knows: how many channels a constant mask chooses."""
        for k, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt) and not found.is_batch(k):
                self.batch.count(size, found.size(k))

    def _finish(self, node: fx.Node) -> None:
        spec = self.exported.call_spec.out_spec
        flat = list(cast("Sequence[Any]", node.args[0]))
        written = len(self.exported.graph_signature.output_specs) - len(self.exported.graph_signature.user_outputs)
        flat = flat[written:]
        names = _names_of(spec) if spec is not None else []
        if (
            spec is not None
            and names
            and spec.type is not None
            and spec.type not in (tuple, list)
            and (len(names) > 1 or spec.type is dict)
        ):
            kind = "dict" if spec.type is dict else str(spec.type.__name__)
            given = ", ".join(name for name, item in zip(names, flat, strict=True) if item is not None)
            self.notices[f"the model returns a {kind}; the network returns a tuple in its order: {given}"] = None
        for k, item in enumerate(flat):
            where = f"output {k}" if len(flat) > 1 else "the output"
            self.call = item if isinstance(item, fx.Node) else node
            found = self.env.get(item) if isinstance(item, fx.Node) else None
            if isinstance(found, Broken):
                continue
            try:
                if isinstance(found, Varied):
                    raise Unsupported(found.why)
                if isinstance(found, Spread):
                    found = self.value(found)
                if item is None and len(flat) > 1:
                    self.notices[f"{where} of the model is None and is left out"] = None
                elif isinstance(found, Value) and found.batched and found.layout.plain:
                    self.outputs.append(found.source)
                elif isinstance(found, Value) and found.batched:
                    raise Unsupported("has its batch elsewhere; a graph's outputs have the batch as their first axis")
                elif isinstance(found, (Held, Value)):
                    raise Unsupported("does not depend on the inputs; a graph's outputs have a batch axis")
                else:
                    raise Unsupported(f"is of type {type(item).__name__}; a graph's outputs are tensors")
            except Unsupported as error:
                self.problem(where, error)

    # -- what the table's functions call --------------------------------------------------------------------------

    def emit(
        self, op: Op, *inputs: Value, layout: Layout = PLAIN, params: Mapping[str, Held | None] | None = None
    ) -> Value:
        """Write a node; of its tensors by name, those that are None are left out. Raises OpError if it does not fit."""
        if not op.integers:
            inputs = tuple([self.floats(x) for x in inputs])
        shape = op.infer(*(x.shape for x in inputs))
        kept = {name: self._in_one_dtype(held) for name, held in (params or {}).items() if held is not None}
        self.drafts.append(Draft(op, tuple(x.source for x in inputs), kept, self.call, shape))
        return Value(len(self.inputs) + len(self.drafts) - 1, shape, layout)

    def floats(self, x: Value) -> Value:
        """Whole numbers as floats, which a graph computes with; the first time they become a node."""
        if x.shape.dtype == "float32":
            return x
        if x.source not in self.floated:
            self.floated[x.source] = self.emit(Cast(), x)
        return self.floated[x.source].at(x.layout)

    def constant(self, number: float) -> Value:
        """A number of the model's code as a value."""
        return self.value(Held(finite(torch.tensor([number], dtype=self.dtype))))

    def value(self, item: Item) -> Value:
        """The item as a value of the graph; a tensor becomes a `parameter` node the first time."""
        if isinstance(item, Value):
            return item
        if isinstance(item, (Broken, Varied)):
            raise AssertionError("a broken value is looked at before its call is read")
        if isinstance(item, Spread):
            row = self.row(item)
            return self.emit(Expand(shape=(-1,) * (row.rank - 1)), row, self.value(self.env[self.first_input])).at(
                item.layout
            )
        found = self.values.get(id(item.tensor))
        if found is None:
            item = self._constant(item)
            found = self.values[id(item.tensor)] if id(item.tensor) in self.values else self._parameter(item)
            self.values[id(item.tensor)] = found
        return found

    def row(self, item: Spread) -> Value:
        """What is the same for every sample, (1, sizes merged with the batch, the other axes), without a batch."""
        return self.value(Held(item.tensor))

    def _constant(self, held: Held) -> Held:
        """One tensor for all constants of the model's code that hold the same numbers."""
        if held.trained or held.keys:
            return held
        key = (held.tensor.dtype, tuple(held.tensor.shape), to_array(held.tensor).tobytes())
        return self.constants.setdefault(key, held)

    def _parameter(self, held: Held) -> Value:
        tensor = held.tensor
        if tensor.dtype == torch.bool:
            raise Unsupported("uses a tensor of truth values as a value; use numbers")
        if not held.trained and tensor.is_floating_point():
            held = Held(finite(tensor), held.keys)
        shape = tuple(tensor.shape) or (1,)  # one number has no axes in torch; it is broadcast all the same
        if tensor.is_complex():
            raise Unsupported("uses complex numbers; write the real and the imaginary parts")
        dtype: DType = "float32" if tensor.is_floating_point() else "int64"
        return self.emit(Parameter(shape=shape, buffer=not held.trained, dtype=dtype), params={"weight": held})

    def _in_one_dtype(self, held: Held) -> Held:
        """A tensor as the network holds it: all of its floats are of one dtype, the widest of weights and inputs."""
        tensor = held.tensor
        if not tensor.is_floating_point() or tensor.dtype == self.dtype:
            return held
        if id(tensor) not in self.cast:
            self.cast[id(tensor)] = tensor.detach().to(self.dtype).requires_grad_(tensor.requires_grad)
        return replace(held, tensor=self.cast[id(tensor)])

    def number(self, value: Any) -> Any:
        """A size or number of the program as a plain one. Raises Unsupported if it depends on the batch."""
        if isinstance(value, fx.Node):
            value = self.folded.numbers.get(value, value.meta["val"])
        if isinstance(value, torch.SymInt):
            value = self.batch.settled(value)
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            if free_unbacked_symbols(value):
                raise Unsupported("computes with a number read from a tensor; keep it a tensor")
            if value.node.expr.free_symbols:
                raise Unsupported(f"computes with the batch size ({value}); a graph treats each sample alike")
            return cast("int | float | bool", value.node.hint)
        return value

    def computes_in(self, dtype: torch.dtype) -> None:
        """Note that the model turns numbers of the inputs into this dtype, on the way or at the end."""
        if dtype.is_floating_point and dtype not in self.dtypes:
            self.notices[f"the model computes a part in {dtype}; the network computes it in one dtype"] = None
            self.dtypes.add(dtype)

    @property
    def trains(self) -> bool:
        """Whether it is a program in train mode that is read."""
        return self.twin is self.call

    @property
    def twin(self) -> fx.Node | None:
        """The same call in train mode, if it was found there."""
        return self.twins.get(self.call)


def _names_of(spec: TreeSpec, before: str = "") -> list[str]:
    """What a model calls its outputs, one name for each: the keys of dicts and dataclasses, the places in tuples."""
    # torch before 2.9 has only the attribute, which later ones warn of.
    listed = getattr(spec, "children", None)
    children = cast("list[TreeSpec]", listed() if callable(listed) else getattr(spec, "children_specs"))  # noqa: B009
    if not children:
        return [before] if spec.is_leaf() else []
    context = cast(object, spec.context)
    keys = cast("Sequence[object]", context) if isinstance(context, (list, tuple)) else ()
    if len(keys) != len(children):
        keys = range(len(children))
    return [
        name
        for key, child in zip(keys, children, strict=True)
        for name in _names_of(child, f"{before}.{key}" if before else str(key))
    ]


def _common_dtype(exported: ExportedProgram) -> torch.dtype:
    """The dtype of a network: the widest of the model's weights and inputs, else of its buffers."""
    kinds = {spec.arg.name: spec.kind for spec in exported.graph_signature.input_specs}
    found: dict[bool, list[torch.dtype]] = {True: [], False: []}
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, torch.Tensor) and value.is_floating_point():
            found[kinds[node.name] in (InputKind.PARAMETER, InputKind.USER_INPUT)].append(value.dtype)
    return reduce(torch.promote_types, found[True] or found[False] or [torch.get_default_dtype()])


def finite(tensor: torch.Tensor) -> torch.Tensor:
    """A mask with large numbers for infinite ones: a document holds none, and softmax gives 0 for both.

    Numbers that only float64 has are infinite ones in the float32 that the network may be run in. The large ones leave
    room for sums over them, since a new layer that reads a mask with zero weights must give 0, not infinity times 0.
    """
    beyond = tensor.abs() > min(torch.finfo(tensor.dtype).max, torch.finfo(torch.float32).max)
    if not bool(beyond.any()):
        return tensor
    most = min(torch.finfo(tensor.dtype).max / 4, 1e30)
    return torch.where(beyond, tensor.sign() * most, tensor)
