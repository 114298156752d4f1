"""Calls that the table does not know, written out in calls that it knows, by torch's own definitions of them.

Most of torch's names are compositions: clip is clamp, linalg.norm is linalg_vector_norm, addcmul is a product and a
sum. torch says so itself, in the kernels that it differentiates through and in its table of decompositions. A call is
written out only if all that comes of it is known; otherwise it stays, and the refusal names what the model calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import torch
from torch import fx
from torch._decomp import decomposition_table  # pyright: ignore[reportUnknownVariableType]
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._pytree import tree_flatten, tree_unflatten

from growir.backends.torch_export.calls import full_name, holds_tensor, name_of, overload, tensor_of, writes
from growir.backends.torch_export.causes import cause, draws
from growir.backends.torch_export.exporting import as_exported

# By operator; torch's own is not typed.
_TABLE = cast("dict[OpOverload[..., Any], Callable[..., Any]]", decomposition_table)
Known = Callable[[fx.Node], bool]
_DEPTH = 8  # definitions within definitions; those of torch are half as deep


def decompose(exported: ExportedProgram, known: Known) -> None:
    """Write out, in place, every unknown call of a program that comes from inputs or parameters.

    Args:
        exported: The program.
        known: Whether the table reads a call.
    """
    constant = {
        spec.arg.name
        for spec in exported.graph_signature.input_specs
        if spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    }
    graph = exported.graph
    given = {node for node in graph.nodes if node.op == "placeholder" and node.name not in constant}
    for node in _reached(graph, given):
        if not known(node) and not draws(node) and cause(node) is None:  # such as torch.gru, a chain when written out
            body = _written_out(node, known, _DEPTH)
            if body is not None:
                _put(graph, node, body)
    for node in graph.nodes:
        if overload(node) is not None and name_of(node) in ("cat", "concat", "concatenate"):
            _without_empty(node)
    graph.lint()


def _without_empty(node: fx.Node) -> None:
    """Leave what is empty out of a concatenation, as a slice behind the last channel: a graph has no empty axes."""
    parts = cast("Sequence[fx.Node]", node.args[0])
    full = [part for part in parts if not _is_empty(part)]
    if full and len(full) < len(parts):
        node.update_arg(0, full)


def _is_empty(node: fx.Node) -> bool:
    sizes = cast("Sequence[object]", tensor_of(node).shape)
    return any(isinstance(size, int) and size == 0 for size in sizes)


def _reached(graph: fx.Graph, given: set[fx.Node]) -> list[fx.Node]:
    """The calls of torch's operators that read one of these tensors, directly or not; the others are run, not read."""
    found = set(given)
    calls: list[fx.Node] = []
    for node in graph.nodes:
        if node.op == "call_function" and holds_tensor(node) and not found.isdisjoint(node.all_input_nodes):
            found.add(node)
            if overload(node) is not None:
                calls.append(node)
    return calls


def _written_out(node: fx.Node, known: Known, depth: int) -> fx.Graph | None:
    """A graph of known calls that computes what a call does from the same arguments, or None if there is none."""
    definition = _definition(node)
    body = None if definition is None or not depth else _traced(node, definition)
    if body is None:
        return None
    given = {entry for entry in body.nodes if entry.op == "placeholder"}
    for inner in _reached(body, given):
        if known(inner):
            continue
        if full_name(inner) == full_name(node):
            return None
        deeper = _written_out(inner, known, depth - 1)
        if deeper is None:
            return None
        _put(body, inner, deeper)
    return body


def _definition(node: fx.Node) -> Callable[..., Any] | None:
    """What torch says an operator is, or None: first the code that it differentiates through, then its table."""
    op = overload(node)
    if op is None:
        return None
    if _is_composite(op):
        return op.decompose
    found = _TABLE.get(op)
    if found is not None or not writes(node):
        return found
    # Written in place: the same without that, copied over what is written.
    plain = getattr(getattr(torch.ops.aten, name_of(node), None), op._overloadname, None)  # pyright: ignore[reportPrivateUsage]
    pure = _TABLE.get(cast("OpOverload[..., Any]", plain)) if isinstance(plain, OpOverload) else None
    if pure is None:
        return None

    def over(first: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return torch.ops.aten.copy_.default(first, pure(first, *args, **kwargs))

    return over


def _is_composite(op: OpOverload[..., Any]) -> bool:
    name: str = op.name()  # type: ignore[no-untyped-call]  # torch's own
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key  # pyright: ignore[reportPrivateUsage]
    return has_kernel(name, "CompositeImplicitAutograd")


def _traced(node: fx.Node, definition: Callable[..., Any]) -> fx.Graph | None:
    """The calls of a definition on a call's arguments; its placeholders stand for `node.all_input_nodes`, in order."""
    sources = node.all_input_nodes
    leaves, form = tree_flatten((node.args, node.kwargs))
    values = [source.meta.get("val") for source in sources]
    mode = next((value.fake_mode for value in values if isinstance(value, FakeTensor)), None)
    if mode is None:
        return None

    def run(*given: Any) -> Any:
        put = dict(zip(sources, given, strict=True))
        args, kwargs = tree_unflatten([put[x] if isinstance(x, fx.Node) else x for x in leaves], form)
        return definition(*args, **kwargs)

    trace = make_fx(run, tracing_mode="real")
    try:
        with as_exported(), mode, torch.no_grad(), _sizes_left_open(mode.shape_env):
            made = trace(*values)
    except Exception:  # whatever a definition raises on tensors without numbers: the call then stays as it is
        return None
    if any(entry.op == "get_attr" for entry in made.graph.nodes):
        return None
    return made.graph


class _Fixes(Exception):
    """A definition makes a number of an open size."""


@contextlib.contextmanager
def _sizes_left_open(sizes: ShapeEnv | None) -> Generator[None, None, None]:
    """Let no definition decide about open sizes. Raises _Fixes where it would.

    torch.gru_cell is defined by code that asks whether the batch is that of the state: all tensors of the program
    would be of the example's batch from then on.
    """
    if sizes is None:
        yield
        return

    def refuse(*_: object) -> None:
        raise _Fixes

    sizes._set_replacement = refuse  # type: ignore[method-assign, assignment]  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    finally:
        del sizes._set_replacement  # pyright: ignore[reportPrivateUsage]  # the class has it again


def _put(graph: fx.Graph, node: fx.Node, body: fx.Graph) -> None:
    """Replace a call by a graph of calls; they come from the same line of the model."""
    entries = [entry for entry in body.nodes if entry.op == "placeholder"]
    mapped = dict(zip(entries, node.all_input_nodes, strict=True))
    before = set(graph.nodes)
    with graph.inserting_before(node):
        result = graph.graph_copy(body, mapped)
    for made in graph.nodes:
        if made not in before:
            made.meta.update({key: node.meta[key] for key in ("stack_trace", "nn_module_stack") if key in node.meta})
    if isinstance(result, fx.Node):
        node.replace_all_uses_with(result)
    else:
        for user in list(node.users):  # each takes one of several results
            user.replace_all_uses_with(cast("Any", result)[user.args[1]])
            graph.erase_node(user)
    graph.erase_node(node)
