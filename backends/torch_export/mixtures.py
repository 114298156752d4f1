"""Mixtures of experts with stacked weights, as the transformers package keeps them, as one call.

Their own code loops over the experts that some token chose, or sorts tokens by expert; neither says in a graph what it
means. While a model is exported, such a module is one call of an operator that is defined here:

    experts(x, index, weights)     (tokens, k): which experts each token goes through, and how they count

Behind the export, the calls that made index and weights of a router's scores (softmax, topk, a division by the sum) are
taken for what they mean, and the call reads the scores:

    routed_experts(x, scores)
"""

from __future__ import annotations

import inspect
import operator
import types
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.export import ExportedProgram

from growir.backends.torch_export.calls import bound, name_of
from growir.backends.torch_fx.experts import activated
from growir.ops.experts import ACTIVATION

_TAKES = ["hidden_states", "top_k_index", "top_k_weights"]
_AGREES = 1e-4  # of the largest number, in float32


def _mixed(
    x: torch.Tensor,
    index: torch.Tensor,
    weights: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    activation: str,
    gated: bool,
) -> torch.Tensor:
    """Every token through every expert, weighted by what it chose."""
    inner = x @ up.transpose(1, 2)
    if gated:
        gate, inner = inner.chunk(2, -1)
        hidden = activated(activation, gate) * inner
    else:
        hidden = activated(activation, inner)
    shares = torch.zeros(x.size(0), up.size(0), dtype=weights.dtype, device=x.device).scatter(1, index, weights)
    return ((hidden @ down.transpose(1, 2)) * shares.t().unsqueeze(-1)).sum(0).to(x.dtype)


@torch.library.custom_op("growir::experts", mutates_args=())
def experts(
    x: torch.Tensor,
    index: torch.Tensor,
    weights: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    activation: str,
    gated: bool,
) -> torch.Tensor:
    """Each token through its experts: (tokens, features) to (tokens, outputs)."""
    return _mixed(x, index, weights, up, down, activation, gated)


@experts.register_fake
def _(
    x: torch.Tensor,
    index: torch.Tensor,
    weights: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    activation: str,
    gated: bool,
) -> torch.Tensor:
    return x.new_empty(x.size(0), down.size(1))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.rest = inputs[5:]


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, index, *rest = ctx.saved_tensors
    learned = [tensor.detach().requires_grad_() for tensor in (x, *rest)]
    with torch.enable_grad():
        found = _mixed(learned[0], index, *learned[1:], *ctx.rest)
    first, *others = torch.autograd.grad(found, learned, grad)
    return (first, None, *others, None, None)


experts.register_autograd(_backward, setup_context=_keep)


@torch.library.custom_op("growir::routed_experts", mutates_args=())
def routed_experts(
    x: torch.Tensor,
    scores: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    activation: str,
    gated: bool,
    top_k: int,
    chosen: bool,
    scale: float,
) -> torch.Tensor:
    """The same by a router's scores: what the operator `experts` computes, times a number."""
    best, index = scores.topk(top_k, -1)
    weights = F.softmax(best, -1) if chosen else F.softmax(scores, -1).gather(-1, index)
    return _mixed(x, index, weights, up, down, activation, gated) * scale


# -- before the export ------------------------------------------------------------------------------------------------


def stand_in(model: nn.Module) -> None:
    """Let each module of stacked experts, in a copy of a model, compute by one call; others stay as they are."""
    for part in model.modules():
        found = _experts_of(part)
        if found is not None:
            up, activation = found
            part.__dict__["forward"] = types.MethodType(_forward(up, activation), part)


def _forward(up: str, activation: str) -> Any:
    def forward(
        self: nn.Module, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        inward, down = self.get_parameter(up), self.get_parameter("down_proj")
        found: torch.Tensor = experts(
            hidden_states, top_k_index, top_k_weights, inward, down, activation, up == "gate_up_proj"
        )
        return found

    return forward


def _experts_of(part: nn.Module) -> tuple[str, str] | None:
    """What the stacked weights are called that read the tokens, and the activation, if a module is such a mixture.

    It is told by its parameters and what it takes, and by its numbers: it is tried on tokens of its own.
    """
    stacked = dict(part.named_parameters())
    up = next((name for name in ("gate_up_proj", "up_proj") if stacked.keys() == {name, "down_proj"}), None)
    if up is None or list(inspect.signature(part.forward).parameters) != _TAKES:
        return None
    inward, down = stacked[up], stacked["down_proj"]
    hidden = inward.shape[1] // (2 if up == "gate_up_proj" else 1)
    if inward.ndim != 3 or down.shape[:1] != inward.shape[:1] or down.shape[2:] != (hidden,):
        return None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        x = torch.randn(5, inward.shape[2], generator=generator).to(inward.dtype)
        index = torch.rand(5, inward.shape[0], generator=generator).topk(min(2, inward.shape[0])).indices
        weights = torch.rand(index.shape, generator=generator).to(inward.dtype)
        wanted: torch.Tensor = part(x, index, weights)
        for kind in ACTIVATION:
            found = _mixed(x, index, weights, inward, down, kind, up == "gate_up_proj")
            if found.shape == wanted.shape and torch.allclose(
                found.float(), wanted.float(), rtol=0, atol=_AGREES * float(wanted.abs().max())
            ):
                return up, kind
    return None


# -- behind the export ------------------------------------------------------------------------------------------------


def route(program: ExportedProgram) -> None:
    """Let every call of experts read its router's scores, where the calls between say how many are chosen."""
    for node in list(program.graph.nodes):
        if node.op != "call_function" or name_of(node) != "growir.experts":
            continue
        found = _scores(node)
        if found is None:
            continue
        scores, top_k, chosen, scale = found
        given = bound(node)
        between = _between(node, scores)
        node.target = torch.ops.growir.routed_experts.default
        node.args = (given["x"], scores, given["up"], given["down"], given["activation"], given["gated"])
        node.args = (*node.args, top_k, chosen, scale)
        node.kwargs = {}
        for each in between:
            if not each.users:
                program.graph.erase_node(each)
    program.graph_module.recompile()


def _between(node: fx.Node, scores: fx.Node) -> list[fx.Node]:
    """All calls behind the scores that lead to the experts, the last ones first."""
    order = {each: k for k, each in enumerate(node.graph.nodes)}
    found: set[fx.Node] = set()
    todo = [scores]
    while todo:
        for user in todo.pop().users:
            if user not in found and order[user] < order[node]:
                found.add(user)
                todo.append(user)
    return sorted(found, key=order.__getitem__, reverse=True)


def _scores(node: fx.Node) -> tuple[fx.Node, int, bool, float] | None:
    """What the experts of a call are chosen by: the scores, how many, whether the weights sum to one, and their scale.

    softmax, topk, and perhaps a division by the sum; or topk and then softmax.
    """
    given = bound(node)
    place, index = _plain(given["index"]), 1.0
    weight, scale = _scaled(given["weights"])
    if not _is_part(place, 1) or index != 1.0:
        return None
    top = cast(fx.Node, place.args[0])
    said = bound(top)
    if not said["largest"] or said["dim"] not in (-1, 1) or not isinstance(said["k"], int):
        return None
    before = _plain(said["self"])
    if name_of(weight) == "softmax" and _is_part(_plain(weight.args[0]), 0, top):
        return before, said["k"], True, scale
    if name_of(before) != "softmax":
        return None
    scores = _plain(before.args[0])
    if name_of(weight) == "div":
        values, total = (_plain(each) for each in weight.args[:2])
        if not (name_of(total) == "sum" and _is_part(values, 0, top) and _is_part(_plain(total.args[0]), 0, top)):
            return None
        return scores, said["k"], True, scale
    return (scores, said["k"], False, scale) if _is_part(weight, 0, top) else None


def _plain(node: Any) -> fx.Node:
    """A value before calls that change no number of it: other dtypes, and other views."""
    while node.op == "call_function" and name_of(node) in (
        "to",
        "_to_copy",
        "reshape",
        "view",
        "type_as",
        "contiguous",
    ):
        node = node.args[0]
    return cast(fx.Node, node)


def _scaled(node: Any) -> tuple[fx.Node, float]:
    """The same, and before it was multiplied by a number."""
    scale = 1.0
    node = _plain(node)
    while name_of(node) == "mul" and isinstance(node.args[1], (int, float)):
        scale *= node.args[1]
        node = _plain(node.args[0])
    return node, scale


def _is_part(node: fx.Node, which: int, top: fx.Node | None = None) -> bool:
    """Whether a value is the numbers (0) or the places (1) of a topk."""
    if node.target is not operator.getitem or node.args[1] != which:
        return False
    source = cast(fx.Node, node.args[0])
    return name_of(source) == "topk" and top in (None, source)
