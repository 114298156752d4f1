"""The code of a graph, node by node: what the functions of the table build, and the modules that it lies in."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import fx, nn

from growir.backends.torch_fx.modules import FixedSizes
from growir.backends.torch_fx.parts import Part, parts_of, splits_of
from growir.backends.torch_fx.table import TABLE
from growir.graph import Graph, Node
from growir.lengths import bounds_of
from growir.ops import Shape, Slice
from growir.ops.base import Framed
from growir.params import owners
from growir.shapes import own_tables, shapes_of

NAME = "growir"  # in an fx node's meta: the input or node of the document that it belongs to
PART = "growir_part"  # on a module that is a part of a lowered one, and in its meta: where it lies there

Form = Literal["modules", "function", "nodes"]


def built(graph: Graph, tensors: Mapping[str, torch.Tensor], device: torch.device, form: Form) -> fx.GraphModule:
    """A module that computes the graph with these tensors.

    Args:
        graph: The graph.
        tensors: Its tensors by key.
        device: Where they are.
        form: "modules", for code in which each part of the names (`parts_of`) is a module with a forward; "function",
            for one forward that calls nothing but layers; or "nodes", for one in which each node of the document has
            code of its own besides, as what runs some of them anew needs it.
    """
    return _Lowering(graph, tensors, device, form).run()


class _Scope:
    """The code of one module on its way: of the whole, or of a part.

    Attributes:
        path: Of the module; "" for the whole.
        code: Its code so far.
        values: What computes each value of the document that the code can read.
        part: Which part it is; None for the whole.
        splits: By each slice that is a piece of a split, all pieces of it.
        pieces: What computes all pieces, by the first of them.
        parts: The modules of the parts in it that are done, by their paths in the module.
    """

    def __init__(self, path: str, part: Part | None, splits: Mapping[str, tuple[Node, ...]]) -> None:
        self.path = path
        self.part = part
        self.code = fx.Graph()
        self.values: dict[str, fx.Node] = {}
        self.splits = splits
        self.pieces: dict[str, fx.Node] = {}
        self.parts: dict[str, fx.GraphModule] = {}

    def within(self, name: str) -> str:
        """The name of what lies in the module, as the module's code says it."""
        return name[len(self.path) + 1 :] if self.path else name

    def placeholder(self, name: str, called: str) -> None:
        """Read a value that others compute."""
        value = self.code.placeholder(called.replace(".", "_"))
        value.target = value.name  # which torch made a name that can stand in the code
        value.meta[NAME] = name
        self.values[name] = value


class _Lowering:
    """One graph on its way to a GraphModule; the functions of the table see it as their Builder."""

    def __init__(self, graph: Graph, tensors: Mapping[str, torch.Tensor], device: torch.device, form: Form) -> None:
        self.graph = graph
        self.device = device
        self.root = nn.Module()
        self.hosts = {"": self.root}  # the modules that only hold others, by path
        self.parts = parts_of(graph) if form == "modules" else {}
        self.scopes: dict[str, _Scope] = {}  # by the path of the module that a node lies in
        self.members: dict[str, list[Node]] = {}  # by the path of a part, or "", the nodes of no part within it
        for node in graph.nodes:
            self.members.setdefault(self._inner(node.name), []).append(node)
        self.splitting = form != "nodes"
        self.scope = self._opened("")
        self.node: Node
        self.frames: fx.Node | None = None  # what stands for the first input while its frames are the batch
        self.tensors = tensors

    def run(self) -> fx.GraphModule:
        """Lower every node in document order, a part where its last node stands."""
        whole = self.scope
        for entry in self.graph.inputs:
            value = whole.values[entry.name] = whole.code.placeholder(entry.name)
            value.meta[NAME] = entry.name
        self._check_sizes()
        for node in self.graph.nodes:
            self.node = node
            path = self._inner(node.name)
            self.scope = self.scopes.get(path) or self._opened(path)
            self.scope.values[node.name] = self._piece() if node.name in self.scope.splits else self._any()
            while self.scope.part is not None and self.scope.part.gives == node.name:
                self._close(self.scope.part)
        results = tuple(whole.values[name] for name in self.graph.outputs)
        whole.code.output(results[0] if len(results) == 1 else results)
        return self._module(whole, self.root, self.graph.name)

    def _inner(self, name: str) -> str:
        """The path of the innermost part that a node, or another part, lies in; "" if there is none."""
        path = name.rpartition(".")[0]
        while path and path not in self.parts:
            path = path.rpartition(".")[0]
        return path

    def _opened(self, path: str) -> _Scope:
        """The code of a part, which reads what the part is given."""
        splits: Mapping[str, tuple[Node, ...]] = {}
        if self.splitting:
            splits = splits_of(self.members.get(path, ()), self.graph)
        found = self.scopes[path] = _Scope(path, self.parts.get(path), splits)
        around = f"{self._inner(path)}."
        for name in found.part.given if found.part else ():
            found.placeholder(name, name.removeprefix(around))
        return found

    def _close(self, part: Part) -> None:
        """Make a part a module, and call it in the code around it."""
        inner = self.scope
        inner.code.output(inner.values[part.gives])
        module = self._module(inner, self._host(part.path.split(".")), part.path)
        module.meta[PART] = part.path
        setattr(module, PART, part.path)
        path = self._inner(part.path)
        self.scope = self.scopes.get(path) or self._opened(path)
        given, within = tuple(self.scope.values[name] for name in part.given), self.scope.within(part.path)
        self.scope.parts[within] = module
        self.scope.values[part.gives] = self._named("call_module", within, given, {}, part.path)

    @staticmethod
    def _module(scope: _Scope, root: nn.Module, title: str) -> fx.GraphModule:
        scope.code.lint()
        name = "".join(c if c.isalnum() and c.isascii() else "_" for c in title)
        module = fx.GraphModule(root, scope.code, name if name.isidentifier() else f"Graph_{name}")
        # Only now, for torch compiles the code of all parts again with that of the module they are put in.
        for path, part in scope.parts.items():
            around, _, last = path.rpartition(".")
            module.get_submodule(around).add_module(last, part)
        return module

    def _check_sizes(self) -> None:
        """Let the module refuse the sizes that are wrong for it, before it computes anything."""
        fixed, bounds = self.graph.fixed_sizes, bounds_of(self.graph)
        if not (fixed or bounds):
            return
        values = self.scope.values
        named = {*(rule.input for rule in fixed), *(name for name, _ in bounds)}
        read = [entry for entry in self.graph.inputs if entry.name in named]
        places = {entry.name: k for k, entry in enumerate(read)}
        shapes = {entry.name: Shape(entry.shape) for entry in read}
        rules = tuple(
            (places[rule.input], rule.input, rule.axis, shapes[rule.input].size(rule.axis), rule.why) for rule in fixed
        )
        most = tuple((places[name], name, axis, bound.most, bound.table) for (name, axis), bound in bounds.items())
        taken = {name.split(".")[0] for name in (*self.graph.by_name, *values)}
        name = "fixed_sizes"
        while name in taken:
            name += "_"
        self.root.add_module(name, FixedSizes(rules, most))
        self.scope.code.call_module(name, tuple(values[entry.name] for entry in read))

    def _any(self) -> fx.Node:
        op = self.node.op
        return self._framed(op) if isinstance(op, Framed) and op.frames else self._spelled()

    def _spelled(self) -> fx.Node:
        return TABLE[self.node.op.kind()](self, self.node.op)

    def _framed(self, op: Framed) -> fx.Node:
        """The operator on a batch of frames: (N, T, ...) as (N * T, ...), and back."""
        x = self.inputs[0]
        self.frames = self.call(torch.flatten, x, 0, op.frames)
        each = self._spelled()
        self.frames = None
        sizes = [self.method("size", x, k) for k in range(1, 1 + op.frames)]
        return self.call(torch.unflatten, each, 0, (-1, *sizes))

    def _piece(self) -> fx.Node:
        """A slice as a piece of a split, which stands where the first slice of the document does."""
        group = self.scope.splits[self.node.name]
        first = group[0].name
        if first not in self.scope.pieces:
            self.scope.pieces[first] = self._split(group)
        return self.call(operator.getitem, self.scope.pieces[first], group.index(self.node))

    def _split(self, group: tuple[Node, ...]) -> fx.Node:
        slices = [node.op for node in group if isinstance(node.op, Slice)]
        args = (self.inputs[0], [op.length for op in slices], slices[0].axis)
        return self._named("call_function", torch.split, args, {}, f"{self.node.name}_split")

    # -- the Builder of the table ---------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        floats = (tensor.dtype for tensor in self.tensors.values() if tensor.is_floating_point())
        return next(floats, torch.get_default_dtype())

    @property
    def inputs(self) -> list[fx.Node]:
        given = [self.scope.values[name] for name in self.node.inputs]
        return given if self.frames is None else [self.frames, *given[1:]]

    @property
    def shapes(self) -> list[Shape]:
        shapes = shapes_of(self.graph)
        given = [shapes[name] for name in self.node.inputs]
        op = self.node.op
        return [op.frame(given[0]), *given[1:]] if isinstance(op, Framed) else given

    def _named(
        self, kind: str, target: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
    ) -> fx.Node:
        # Named after the document, so that the generated code reads like it.
        name = self.scope.within(name).replace(".", "_")
        return self._noted(self.scope.code.create_node(kind, target, args, kwargs, name=name))

    def _noted(self, value: fx.Node) -> fx.Node:
        """The same with the document's name on it, since torch changes names that are no identifiers, or come twice."""
        value.meta[NAME] = self.node.name
        return value

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return self._named("call_function", function, args, kwargs, self.node.name)

    def method(self, name: str, *args: Any) -> fx.Node:
        return self._noted(self.scope.code.call_method(name, args))

    def module(self, module: nn.Module) -> fx.Node:
        name = self.node.name
        for parameter in own_tables(self.graph)[name]:
            _attach(module, parameter, self._tensor(parameter))
        self._host(name.split(".")[:-1]).add_module(name.split(".")[-1], module)
        return self._named("call_module", self.scope.within(name), tuple(self.inputs), {}, name)

    def tensor(self, name: str) -> fx.Node:
        _attach(self._host(self.node.name.split(".")), name, self._tensor(name))
        return self._noted(self.scope.code.get_attr(self.scope.within(f"{self.node.name}.{name}")))

    def _tensor(self, parameter: str) -> torch.Tensor:
        return self.tensors[owners(self.graph)[f"{self.node.name}.{parameter}"]]

    def _host(self, path: list[str]) -> nn.Module:
        key = ".".join(path)
        if key not in self.hosts:
            host = nn.Module()
            self._host(path[:-1]).add_module(path[-1], host)
            self.hosts[key] = host
        return self.hosts[key]


def _attach(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    if hasattr(module, name):  # made by the module's constructor, without numbers
        delattr(module, name)
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)
