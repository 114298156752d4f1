"""Lowering a graph to a torch.fx.GraphModule, and reading trained weights back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from numpy.typing import NDArray
from torch import fx, nn

from growir.backends.torch_arrays import to_array, to_tensor
from growir.backends.torch_fx.modules import FixedSizes
from growir.backends.torch_fx.table import TABLE
from growir.document import decode, draft, dumps, function_hash
from growir.errors import ModelError, cut
from growir.graph import Graph, Node
from growir.lengths import bounds_of
from growir.ops import Shape
from growir.ops.base import Framed
from growir.params import frozen_keys, owners, param_table
from growir.shapes import own_tables, shapes_of

DOCUMENT = "growir_document"
VALUES = "growir_values"
NAME = "growir"  # in an fx node's meta: the input or node of the document that it belongs to


Call = tuple[str, str, tuple[int, ...]]


class Values(dict[str, NDArray[Any]]):
    """The arrays that a module's history recorded, by sha256; they never change, so copies of a module share them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Values:
        return self


class Made(NamedTuple):
    """What a module was lowered to.

    Attributes:
        graph: The graph that it computes, with all that has been derived of it.
        document: The text of it that the module carries.
        calls: What its code calls, on which earlier values.
    """

    graph: Graph
    document: str
    calls: tuple[Call, ...]


# By module, what it was lowered from. Copies and pickled modules are not in it until someone has read their documents.
_MADE: WeakKeyDictionary[nn.Module, Made] = WeakKeyDictionary()


class _Lowering:
    """One graph on its way to a GraphModule; the functions of the table see it as their Builder."""

    def __init__(self, graph: Graph, tensors: Mapping[str, torch.Tensor], device: torch.device) -> None:
        self.graph = graph
        self.device = device
        self.root = nn.Module()
        self.hosts = {"": self.root}  # the modules that only hold others, by path
        self.code = fx.Graph()
        self.values: dict[str, fx.Node] = {}
        self.node: Node
        self.frames: fx.Node | None = None  # what stands for the first input while its frames are the batch
        self.tensors = tensors

    def run(self) -> fx.GraphModule:
        """Lower every node in document order."""
        for entry in self.graph.inputs:
            value = self.values[entry.name] = self.code.placeholder(entry.name)
            value.meta[NAME] = entry.name
        self._check_sizes()
        for node in self.graph.nodes:
            self.node = node
            value = self._framed(node.op) if isinstance(node.op, Framed) and node.op.frames else self._spelled()
            self.values[node.name] = value
        results = tuple(self.values[name] for name in self.graph.outputs)
        self.code.output(results[0] if len(results) == 1 else results)
        self.code.lint()
        name = "".join(c if c.isalnum() and c.isascii() else "_" for c in self.graph.name)
        return fx.GraphModule(self.root, self.code, name if name.isidentifier() else f"Graph_{name}")

    def _check_sizes(self) -> None:
        """Let the module refuse the sizes that are wrong for it, before it computes anything."""
        fixed, bounds = self.graph.fixed_sizes, bounds_of(self.graph)
        if not (fixed or bounds):
            return
        named = {*(rule.input for rule in fixed), *(name for name, _ in bounds)}
        read = [entry for entry in self.graph.inputs if entry.name in named]
        places = {entry.name: k for k, entry in enumerate(read)}
        shapes = {entry.name: Shape(entry.shape) for entry in read}
        rules = tuple(
            (places[rule.input], rule.input, rule.axis, shapes[rule.input].size(rule.axis), rule.why) for rule in fixed
        )
        most = tuple((places[name], name, axis, bound.most, bound.table) for (name, axis), bound in bounds.items())
        taken = {name.split(".")[0] for name in (*self.graph.by_name, *self.values)}
        name = "fixed_sizes"
        while name in taken:
            name += "_"
        self.root.add_module(name, FixedSizes(rules, most))
        self.code.call_module(name, tuple(self.values[entry.name] for entry in read))

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

    # -- the Builder of the table ---------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        floats = (tensor.dtype for tensor in self.tensors.values() if tensor.is_floating_point())
        return next(floats, torch.get_default_dtype())

    @property
    def inputs(self) -> list[fx.Node]:
        given = [self.values[name] for name in self.node.inputs]
        return given if self.frames is None else [self.frames, *given[1:]]

    @property
    def shapes(self) -> list[Shape]:
        shapes = shapes_of(self.graph)
        given = [shapes[name] for name in self.node.inputs]
        op = self.node.op
        return [op.frame(given[0]), *given[1:]] if isinstance(op, Framed) else given

    def _value(
        self, kind: str, target: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> fx.Node:
        # Named after the document's node, so that the generated code reads like the document.
        return self._noted(self.code.create_node(kind, target, args, kwargs, name=self.node.name.replace(".", "_")))

    def _noted(self, value: fx.Node) -> fx.Node:
        """The same with the document's name on it, since torch changes names that are no identifiers, or come twice."""
        value.meta[NAME] = self.node.name
        return value

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return self._value("call_function", function, args, kwargs)

    def method(self, name: str, *args: Any) -> fx.Node:
        return self._noted(self.code.call_method(name, args))

    def module(self, module: nn.Module) -> fx.Node:
        for parameter in own_tables(self.graph)[self.node.name]:
            _attach(module, parameter, self._tensor(parameter))
        self._host(self.node.name.split(".")[:-1]).add_module(self.node.name.split(".")[-1], module)
        return self._value("call_module", self.node.name, tuple(self.inputs), {})

    def tensor(self, name: str) -> fx.Node:
        _attach(self._host(self.node.name.split(".")), name, self._tensor(name))
        return self._noted(self.code.get_attr(f"{self.node.name}.{name}"))

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


def lower(
    graph: Graph,
    arrays: Mapping[str, NDArray[Any]],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    values: Mapping[str, NDArray[Any]] | None = None,
) -> fx.GraphModule:
    """A trainable module that computes the graph, with copies of the arrays as parameters and buffers.

    Parameters that the document freezes do not require a gradient.

    The document travels on the module: as an attribute, which pickling keeps, in `meta`, which deep copies keep, and on
    one submodule, which keeps its attributes through both (`document_of` finds it). state_dict keys are the document's;
    a tied tensor appears under each of its names. Every node of the module's code says in `node.meta["growir"]` which
    input or node of the document it is of; what only checks sizes is of none, nor is the output. The last one of a name
    computes its value, which is also that of a node that hands its input on, and has no code.

    Args:
        graph: The graph.
        arrays: Its tensors by key.
        device: Where the tensors go; torch's default device if None.
        dtype: Float dtype they are cast to; their own if None.
        values: The arrays that the graph's history recorded, by sha256; they travel as the document does.
    """
    place = torch.get_default_device() if device is None else torch.device(device)
    tensors: dict[str, torch.Tensor] = {}
    for key, param in param_table(graph).items():
        tensor = to_tensor(arrays[key])
        tensor = tensor.to(device=place, dtype=None if param.dtype == "int64" else dtype)
        trained = key not in frozen_keys(graph)
        tensors[key] = tensor if param.buffer else nn.Parameter(tensor, requires_grad=trained)
    return lower_tensors(graph, tensors, place, values)


def lower_tensors(
    graph: Graph,
    tensors: Mapping[str, torch.Tensor],
    device: torch.device | None = None,
    values: Mapping[str, NDArray[Any]] | None = None,
) -> fx.GraphModule:
    """A module that computes the graph with these very tensors, by key, on the device they are on.

    What is a torch.nn.Parameter becomes a parameter of the module, anything else a buffer. `device` is for a graph
    without tensors. `values` are the arrays that the graph's history recorded, which travel as the document does.
    """
    first = next(iter(tensors.values()), None)
    place = first.device if first is not None else device or torch.get_default_device()
    module = _Lowering(graph, tensors, place).run()
    document = dumps(graph)
    module.meta[DOCUMENT] = document
    leaves = (part for part in module.modules() if part is not module and next(part.children(), None) is None)
    carried = Values(values or {})
    if carried:
        module.meta[VALUES] = carried
    for holder in (module, *itertools.islice(leaves, 1)):
        setattr(holder, DOCUMENT, document)
        if carried:
            setattr(holder, VALUES, carried)
    _MADE[module] = Made(graph, document, calls_of(module))
    return module


def made_of(module: fx.GraphModule) -> Made | None:
    """What a module was lowered to, if that is known and its document still says so; not of copies, at first."""
    known = _MADE.get(module)
    return known if known is not None and known.document == document_of(module) else None


def remember(module: fx.GraphModule, graph: Graph) -> None:
    """Take a module, copied or pickled perhaps, for what `lower_tensors` would make of its document's graph."""
    document = document_of(module)
    assert document is not None
    _MADE[module] = Made(graph, document, calls_of(module))


def calls_of(module: fx.GraphModule) -> tuple[Call, ...]:
    """What a module's code calls on which earlier values; not with which constants, which pickling spells out."""
    place = {node: k for k, node in enumerate(module.graph.nodes)}
    return tuple((node.op, str(node.target), tuple(place[i] for i in node.all_input_nodes)) for node in place)


def values_of(module: nn.Module) -> Mapping[str, NDArray[Any]]:
    """The arrays that a lowered module's history recorded, by sha256, as far as it carries them."""
    found = (getattr(part, VALUES, None) for part in module.modules())
    meta = getattr(module, "meta", {})
    return meta.get(VALUES) or next((each for each in found if isinstance(each, Values)), Values())


def document_of(module: nn.Module) -> str | None:
    """The document a lowered module carries, whatever copying and pickling it went through; None if it has none."""
    found = (getattr(part, DOCUMENT, None) for part in module.modules())
    meta = getattr(module, "meta", {})
    return meta.get(DOCUMENT) or next((text for text in found if isinstance(text, str)), None)


def _unwrapped(module: nn.Module) -> nn.Module:
    """The lowered module within what torch.compile and DistributedDataParallel made of it."""
    inner = module
    while not isinstance(inner, fx.GraphModule):  # which may have a node called `module`
        wrapped = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
        if not isinstance(wrapped, nn.Module):
            break
        inner = wrapped
    return inner


def frozen_in(graph: Graph, module: nn.Module) -> frozenset[str]:
    """The keys of the graph's stored parameters that require no gradient in a module that was made from it."""
    return frozen_among(graph, _unwrapped(module).state_dict(keep_vars=True))


def frozen_among(graph: Graph, tensors: Mapping[str, torch.Tensor]) -> frozenset[str]:
    """The same of the tensors by key. What is no Parameter, put there by hand, is trained as the graph says."""
    known = frozen_keys(graph)
    return frozenset(
        key
        for key, param in param_table(graph).items()
        if not param.buffer
        and (not tensors[key].requires_grad if isinstance(tensors.get(key), nn.Parameter) else key in known)
    )


def read_back(graph: Graph, module: nn.Module) -> dict[str, NDArray[Any]]:
    """The module's tensors as arrays by key.

    Raises:
        ModelError: The module was not made from this graph: its document is another, or a tensor is missing or of
            another shape.
    """
    inner = _unwrapped(module)
    state = inner.state_dict()
    found: dict[str, NDArray[Any]] = {}
    for key, param in param_table(graph).items():
        if key not in state:
            raise ModelError(f"the module has no tensor {cut(key)!r}; it was not made from graph {cut(graph.name)!r}")
        tensor = state[key]
        if tuple(tensor.shape) != param.shape:
            raise ModelError(
                f"{cut(key)}: the module's tensor is {list(tensor.shape)}, the graph's {list(param.shape)}"
            )
        found[key] = to_array(tensor)
    document = document_of(inner)
    if document is not None and document != dumps(graph):
        made = draft(decode(document)).graph
        if function_hash(made) != function_hash(graph):
            raise ModelError(
                f"the module was made from graph {cut(made.name)!r} with hash {made.hash[:12]}, "
                f"this network's is {cut(graph.name)!r} with {graph.hash[:12]}; use the network it was made from"
            )
    return found
