"""Lowering a graph to a torch.fx.GraphModule, and reading trained weights back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from numpy.typing import NDArray
from torch import fx, nn

from growir.backends.torch_arrays import sharing, to_array, to_tensor
from growir.backends.torch_fx.building import PART, Form, built
from growir.document import decode, draft, dumps, function_hash
from growir.errors import ModelError, cut
from growir.graph import Graph
from growir.params import frozen_keys, param_table

DOCUMENT = "growir_document"
VALUES = "growir_values"


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


def lower(
    graph: Graph,
    arrays: Mapping[str, NDArray[Any]],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    values: Mapping[str, NDArray[Any]] | None = None,
    form: Form = "modules",
    shared: bool = False,
) -> fx.GraphModule:
    """A trainable module that computes the graph, with copies of the arrays as parameters and buffers.

    Parameters that the document freezes do not require a gradient.

    The document travels on the module: as an attribute, which pickling keeps, in `meta`, which deep copies keep, and on
    one submodule, which keeps its attributes through both (`document_of` finds it). state_dict keys are the document's;
    a tied tensor appears under each of its names. Every node of the module's code, and of its parts', says in
    `node.meta["growir"]` which input or node of the document it is of; what only checks sizes is of none, nor is the
    output. The last one of a name computes its value, which is also that of a node that hands its input on, and has no
    code. What calls a part is of the node whose value the part gives.

    Args:
        graph: The graph.
        arrays: Its tensors by key.
        device: Where the tensors go; torch's default device if None.
        dtype: Float dtype they are cast to; their own if None.
        values: The arrays that the graph's history recorded, by sha256; they travel as the document does.
        form: How the code follows the names (`building.built`). Growth makes modules of the first form alone.
        shared: Whether parameters may lie in the memory of the arrays, which must be writable: for a module that takes
            no step. Buffers are copied, since train mode writes into them.
    """
    place = torch.get_default_device() if device is None else torch.device(device)
    tensors: dict[str, torch.Tensor] = {}
    for key, param in param_table(graph).items():
        tensor = sharing(arrays[key]) if shared and not param.buffer else to_tensor(arrays[key])
        tensor = tensor.to(device=place, dtype=None if param.dtype == "int64" else dtype)
        trained = key not in frozen_keys(graph)
        tensors[key] = tensor if param.buffer else nn.Parameter(tensor, requires_grad=trained)
    return lower_tensors(graph, tensors, place, values, form)


def lower_tensors(
    graph: Graph,
    tensors: Mapping[str, torch.Tensor],
    device: torch.device | None = None,
    values: Mapping[str, NDArray[Any]] | None = None,
    form: Form = "modules",
) -> fx.GraphModule:
    """A module that computes the graph with these very tensors, by key, on the device they are on.

    What is a torch.nn.Parameter becomes a parameter of the module, anything else a buffer. `device` is for a graph
    without tensors. `values` are the arrays that the graph's history recorded, which travel as the document does.
    """
    first = next(iter(tensors.values()), None)
    place = first.device if first is not None else device or torch.get_default_device()
    module = built(graph, tensors, place, form)
    document = dumps(graph)
    module.meta[DOCUMENT] = document
    leaves = (part for part in module.modules() if _is_plain(part))
    carried = Values(values or {})
    if carried:
        module.meta[VALUES] = carried
    for holder in (module, *itertools.islice(leaves, 1)):
        setattr(holder, DOCUMENT, document)
        if carried:
            setattr(holder, VALUES, carried)
    _MADE[module] = Made(graph, document, calls_of(module))
    return module


def _is_plain(module: nn.Module) -> bool:
    """Whether a module keeps its attributes through a deep copy, which makes GraphModules anew, and holds no others."""
    return not isinstance(module, fx.GraphModule) and next(module.children(), None) is None


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
    """What a module's code, and that of its parts, calls on which earlier values.

    Not with which constants, which pickling spells out.
    """
    found: list[Call] = []
    for path, code in codes_of(module):
        place = {node: k for k, node in enumerate(code.graph.nodes)}
        found += ((node.op, f"{path}{node.target}", tuple(place[i] for i in node.all_input_nodes)) for node in place)
    return tuple(found)


def codes_of(module: fx.GraphModule) -> Iterator[tuple[str, fx.GraphModule]]:
    """The module and its parts, each behind its path and a dot, as far as they lie where they were made."""
    yield "", module
    for path, part in cast("Iterable[tuple[str, nn.Module]]", module.named_modules()):
        if isinstance(part, fx.GraphModule) and path and part_of(part) == path:
            yield f"{path}.", part


def part_of(module: nn.Module) -> str | None:
    """Where a part lies in the module that it was made for; None for what is no part."""
    found = getattr(module, PART, None) or getattr(module, "meta", {}).get(PART)
    return found if isinstance(found, str) else None


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
