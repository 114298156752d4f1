"""One walk over an exported program that writes down the graph's nodes, and everything that has no place in a graph."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import fx, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from growir.backends.torch_export import aliasing
from growir.backends.torch_export.calls import Call, full_name, holds_tensor, overload, writes
from growir.backends.torch_export.exporting import source_line
from growir.backends.torch_export.preparing import modules_of
from growir.backends.torch_export.values import PLAIN, Batch, Broken, Held, Item, Layout, Unsupported, Value, shape_of
from growir.errors import Problem
from growir.ops import DType, Op, OpError, Parameter, Shape

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
    """What the functions of the table work with: the program on one side, the nodes written so far on the other."""

    def __init__(
        self, exported: ExportedProgram, batch: Batch, twins: Mapping[fx.Node, fx.Node], model: nn.Module
    ) -> None:
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
        self.values: dict[int, Value] = {}  # parameters that are values, by the tensor's id
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
        for node in self.exported.graph.nodes:
            self.call = node
            if node.op == "call_function":
                try:
                    self.env[node] = self.called(node)
                except (Unsupported, OpError, ValidationError) as error:
                    self.problem(full_name(node), error)
                    self.env[node] = Broken()
            elif node.op == "output":
                self._finish(node)

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
        if node.target is operator.getitem:
            source, index = node.args
            found = self.env.get(cast(fx.Node, source))
            return found if isinstance(found, Broken) or found is None else found[index]
        if not holds_tensor(node):
            return None  # arithmetic on sizes; what comes of it is in the sizes of the tensors
        if overload(node) is None:
            raise Unsupported(_opaque(node))
        items = [self.env.get(given) for given in node.all_input_nodes if holds_tensor(given)]
        if any(isinstance(item, Broken) for item in items):
            return Broken()
        if all(isinstance(item, Held) and not item.trained for item in items) and self._fixed(node):
            return self._computed(node)
        return aliasing.read(self, Call(self, node))

    def _fixed(self, node: fx.Node) -> bool:
        """Whether the sizes of a call's result do not depend on the batch."""
        value = node.meta["val"]
        parts = cast("Sequence[object]", value if isinstance(value, (tuple, list)) else (value,))
        return all(self.batch.split(part.shape)[1] == -1 for part in parts if isinstance(part, torch.Tensor))

    def _computed(self, node: fx.Node) -> Any:
        """The result of a call on constants: computed now, once and for all."""
        target = cast("OpOverload[..., Any]", node.target)
        if torch.Tag.nondeterministic_seeded in target.tags:
            raise Unsupported("draws random numbers; a graph draws only in dropout")
        if writes(node):
            written = cast(Held, self.env[node.all_input_nodes[0]])
            if written.keys:
                raise Unsupported(f"writes into {written.keys[0]!r}; a graph changes buffers only in batch norm")

        def real(argument: Any) -> Any:
            if isinstance(argument, fx.Node):
                value = argument.meta.get("val")
                return self.env[argument].tensor if isinstance(value, torch.Tensor) else self.number(value)
            return argument

        args, kwargs = fx.map_arg(node.args, real), fx.map_arg(node.kwargs, real)
        kwargs = {k: torch.device("cpu") if k == "device" else v for k, v in kwargs.items()}
        with torch.no_grad():
            result = target(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            source = next((h for n in node.all_input_nodes if (h := self.env.get(n)) and h.tensor is result), None)
            return source or Held(result)
        return tuple(Held(part) for part in result)

    def _finish(self, node: fx.Node) -> None:
        from torch.utils import _pytree as pytree

        spec = self.exported.call_spec.out_spec
        flat = list(cast("Sequence[Any]", node.args[0]))
        written = len(self.exported.graph_signature.output_specs) - len(self.exported.graph_signature.user_outputs)
        flat = flat[written:]
        if spec is not None and spec.type is dict:
            keys = ", ".join(map(str, spec.context))
            self.notices[f"the model returns a dict; the network returns a tuple in its order: {keys}"] = None
        elif spec is not None and spec.type not in (None, tuple, list) and spec.num_leaves > 1:
            self.notices[f"the model returns a {pytree.treespec_pprint(spec)[:60]}; the network returns a tuple"] = None
        for k, item in enumerate(flat):
            where = f"output {k}" if len(flat) > 1 else "the output"
            self.call = item if isinstance(item, fx.Node) else node
            found = self.env.get(item) if isinstance(item, fx.Node) else None
            if isinstance(found, Broken):
                continue
            try:
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
        for x in inputs:
            if x.shape.dtype != "float32" and not op.integers:
                raise Unsupported(f"takes integers, but {op.kind()} takes floats")
        shape = op.infer(*(x.shape for x in inputs))
        kept = {name: held for name, held in (params or {}).items() if held is not None}
        self.drafts.append(Draft(op, tuple(x.source for x in inputs), kept, self.call, shape))
        return Value(len(self.inputs) + len(self.drafts) - 1, shape, layout)

    def value(self, item: Item) -> Value:
        """The item as a value of the graph; a tensor becomes a `parameter` node the first time."""
        if isinstance(item, Value):
            return item
        if isinstance(item, Broken):
            raise AssertionError("a broken value is looked at before its call is read")
        found = self.values.get(id(item.tensor))
        if found is None:
            found = self._parameter(item)
            self.values[id(item.tensor)] = found
        return found

    def _parameter(self, held: Held) -> Value:
        tensor = held.tensor
        if tensor.dtype == torch.bool:
            raise Unsupported("uses a tensor of truth values as a value; use numbers")
        if not held.trained and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            held = Held(finite(tensor), held.keys)
        shape = tuple(tensor.shape) or (1,)  # one number has no axes in torch; it is broadcast all the same
        dtype: DType = "float32" if tensor.is_floating_point() else "int64"
        return self.emit(Parameter(shape=shape, buffer=not held.trained, dtype=dtype), params={"weight": held})

    def number(self, value: Any) -> Any:
        """A size or number of the program as a plain one. Raises Unsupported if it depends on the batch."""
        if isinstance(value, fx.Node):
            value = value.meta["val"]
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            if free_unbacked_symbols(value):
                raise Unsupported("computes with a number read from a tensor; keep it a tensor")
            if value.node.expr.free_symbols:
                raise Unsupported(f"computes with the batch size ({value}); a graph treats each sample alike")
            return cast("int | float | bool", value.node.hint)
        return value

    @property
    def twin(self) -> fx.Node | None:
        """The same call in train mode, if it was found there."""
        return self.twins.get(self.call)


def finite(tensor: torch.Tensor) -> torch.Tensor:
    """A mask with large numbers for infinite ones: a document holds none, and softmax gives 0 for both."""
    most = min(torch.finfo(tensor.dtype).max, torch.finfo(torch.float32).max) / 4
    return tensor.nan_to_num(posinf=most, neginf=-most) if not bool(tensor.isnan().any()) else tensor


def _opaque(node: fx.Node) -> str:
    name = full_name(node)
    if "set_grad_enabled" in name:
        return "switches gradients off inside the model; freeze those parameters with requires_grad_(False) instead"
    if name in ("cond", "while_loop", "map_impl", "scan"):
        return "is control flow on values, which a graph does not have; decide it by the model's configuration"
    return "is no operator of torch.aten; write it with torch's own functions"
