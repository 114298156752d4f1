"""Code that computes without gradients, brought into the one form that a graph has for it: `detach`.

    with torch.no_grad():        h = net(x)
        h = net(x)               h = h.detach()
    y = head(h)                  y = head(h)

Both give the same numbers and the same gradients. Export keeps a `no_grad` block as a program of its own; it is put
back in its place, and what leaves it is detached. Of `inference_mode` and `.data` export keeps nothing, or fails; they
are traced as `no_grad` and `detach`.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import torch
from torch import fx
from torch.autograd.grad_mode import inference_mode
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode


class _DataIsDetached(TorchFunctionMode):
    """x.data as x.detach(): the same numbers in the same memory, and no gradient either."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func == torch.Tensor.data.__get__:  # type: ignore[attr-defined]  # a getter of C
            return args[0].detach()
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def followed() -> Generator[None, None, None]:
    """Let export see what it does not: `inference_mode` as `no_grad`, `.data` as `detach`."""
    with without_inference(), _DataIsDetached():
        yield


@contextlib.contextmanager
def without_inference() -> Generator[None, None, None]:
    """`inference_mode` as `no_grad`: its tensors may then be used where gradients are asked for later."""
    before = inference_mode.__enter__, inference_mode.__exit__
    modes: list[bool] = []

    def enter(block: inference_mode) -> None:
        modes.append(torch.is_grad_enabled())
        if block.mode:
            torch.set_grad_enabled(False)

    def leave(block: inference_mode, *error: object) -> None:
        torch.set_grad_enabled(modes.pop())

    inference_mode.__enter__, inference_mode.__exit__ = enter, leave  # type: ignore[method-assign]
    try:
        yield
    finally:
        inference_mode.__enter__, inference_mode.__exit__ = before  # type: ignore[method-assign]


def inline(program: ExportedProgram) -> None:
    """Put the blocks without gradients back in their places, and detach what leaves them."""
    module = program.graph_module
    for node in list(module.graph.nodes):
        if node.op == "call_function" and getattr(node.target, "__name__", "") == "wrap_with_set_grad_enabled":
            enabled, block, *given = cast("tuple[bool, fx.Node, fx.Node]", node.args)
            _inline_one(module, node, cast(fx.GraphModule, getattr(module, str(block.target))), given, not enabled)
            if not block.users:
                module.graph.erase_node(block)


def _inline_one(
    module: fx.GraphModule, call: fx.Node, block: fx.GraphModule, given: Sequence[fx.Node], detached: bool
) -> None:
    known: dict[fx.Node, fx.Node] = {}
    leaving: list[fx.Node] = []
    arguments = iter(given)
    with module.graph.inserting_before(call):
        for inner in block.graph.nodes:
            if inner.op == "placeholder":
                known[inner] = next(arguments)
            elif inner.op == "output":
                results = cast("Sequence[fx.Node]", inner.args[0])
                leaving += [_detached(module.graph, known[result], detached) for result in results]
            else:
                known[inner] = module.graph.node_copy(inner, known.__getitem__)
                if inner.op == "get_attr":  # a block inside this one: the whole knows it by another name
                    name = f"{call.name}_{inner.target}"
                    module.add_submodule(name, getattr(block, str(inner.target)))
                    known[inner].target = name
    for user in list(call.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(leaving[cast(int, user.args[1])])
            module.graph.erase_node(user)
    module.graph.erase_node(call)


def _detached(graph: fx.Graph, node: fx.Node, detached: bool) -> fx.Node:
    value = node.meta.get("val")
    if not detached or not isinstance(value, torch.Tensor):
        return node
    found = graph.call_function(torch.ops.aten.detach.default, (node,))
    found.meta = dict(node.meta)
    return found
