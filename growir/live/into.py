"""Growth from one module of the user's class into a larger one: the edits on its tensors, written into the other's.

No module of growir's takes part. A plan says which tensor of the small module each document key is, what the edits make
of them, and which tensor of the large module the result is. All of it is worked out before anything is written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from growir.backends.torch_edits import TORCH
from growir.columns import folded
from growir.edits import Copy, Edit, among
from growir.errors import ModelError, cut
from growir.graph import Graph
from growir.live.carrying import edited, heirs_of
from growir.live.normalised import uneven_copies
from growir.live.optimizers import Grown, OptimizerPlan
from growir.live.rows import taken_for
from growir.moments import CopyState, FreshState, carry_moments
from growir.params import param_table
from growir.planning import Plan
from growir.rewrite import Preserves

Tensors = dict[str, torch.Tensor]
Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


@dataclass(frozen=True, slots=True, eq=False)
class Filled:
    """What `grow_into` did.

    Attributes:
        preserves: What the plan promises of the function.
        filled: The keys of the large module's tensors that were written.
        left: Its other tensors, which its graph does not have, and which are as they were.
        stateless: The keys of parameters of the optimizers given that start without state.
        notes: What is left to the caller.
        callers: What callers of the module do now: its inputs or outputs became longer, or a table knows more.
        seconds: How long it took.
    """

    preserves: Preserves
    filled: tuple[str, ...]
    left: tuple[str, ...]
    stateless: tuple[str, ...]
    notes: tuple[str, ...]
    callers: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        lines = [f"{len(self.filled)} tensors filled, preserves {self.preserves}"]
        lines += [f"  as it was: {', '.join(self.left)}"] if self.left else []
        lines += [f"  without optimizer state: {', '.join(self.stateless)}"] if self.stateless else []
        lines += [f"  callers: {text}" for text in self.callers]
        return folded("\n".join([*lines, *(f"  note: {note}" for note in self.notes)]))


def grow_into(
    small: nn.Module,
    large: nn.Module,
    plan: Plan,
    optimizer: Optimizers | None = None,
    into: Optimizers | None = None,
    *,
    fresh: FreshState = "small",
    copies: CopyState = "carried",
) -> Filled:
    """Fill a large module, in place, with what a small one of the same class grows into; optimizer state comes along.

    The parameters and buffers of the large module stay the objects that they are, on their device and in their dtype,
    and so do its optimizers: with their own groups and settings they go on with the state of the small one's, by the
    law of `live.grow`. Accumulated gradients of the small module are carried too. The small module stays as it is.

    Args:
        small: The module that has been trained, or what torch.compile or DistributedDataParallel made of it.
        large: The module that is to go on, likewise.
        plan: What `growir.plan` made of two modules of these sizes.
        optimizer: The optimizer of the small module, or several.
        into: For each of these, the one of the large module that goes on; of the same class.
        fresh: What fresh entries of optimizer state start with, as in `live.grow`.
        copies: What the state of added copies starts with, as in `live.grow`.

    Raises:
        ModelError: A module is not the plan's, or an optimizer none of its module or of another class.
        PassRefused: The plan does not lead where it says.
        GrowirError: An optimizer has state that cannot follow.
    """
    start = time.perf_counter()
    if torch.is_inference_mode_enabled():
        raise ModelError("growth inside torch.inference_mode() gives tensors that cannot be trained; grow outside")
    done = plan.rewrite
    mine, theirs = _named(small, "small"), _named(large, "large")
    before = _tensors(mine, plan.graph, plan.small_keys, "small")
    targets = _tensors(theirs, done.graph, plan.large_keys, "large")
    edits = among(done.edits, before)
    after = _results(before, targets, edits, plan.large_keys)
    grads = _gradients(before, targets, edits)
    heirs = heirs_of(edits, list(before))
    heirs = {old: new for old, new in heirs.items() if new in targets}
    grown = Grown(done.graph, edits, before, targets, heirs, _numbered(before), _numbered(targets), fresh, copies)
    moves = [_Move(a, b, grown, plan.large_keys) for a, b in _pairs(optimizer, into)]
    for move in moves:
        move.commit()
    with torch.no_grad():
        for key, target in targets.items():
            target.copy_(after[key].reshape(target.shape))
            if key in grads:
                target.grad = grads[key]
    written = {id(tensor) for tensor in targets.values()}
    return Filled(
        preserves=done.preserves,
        filled=tuple(plan.large_keys[key] for key in targets),
        left=tuple(key for key, tensor in theirs.items() if id(tensor) not in written),
        stateless=tuple(key for move in moves for key in move.stateless),
        notes=(
            *(note for move in moves for note in move.notes),
            *(uneven_copies(plan.graph, edits) if moves or grads else ()),
        ),
        callers=done.callers,
        seconds=time.perf_counter() - start,
    )


def _named(module: object, what: str) -> Tensors:
    """A module's parameters and buffers under each of their names, out of what wraps it."""
    while isinstance(module, nn.Module):
        inner: object = getattr(module, "_orig_mod", None)  # what torch.compile wraps
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = cast("object", module.module)
        if inner is None:
            break
        module = cast("nn.Module", inner)
    if not isinstance(module, nn.Module):
        raise ModelError(f"the {what} model must be a torch.nn.Module, but is a {type(module).__name__}")
    found: Tensors = dict(module.named_parameters(remove_duplicate=False))
    return {**found, **dict(module.named_buffers(remove_duplicate=False))}


def _tensors(named: Mapping[str, torch.Tensor], graph: Graph, keys: Mapping[str, str], what: str) -> Tensors:
    """The tensors of a module by the document's keys. Raises ModelError if they are not those of the plan."""
    table = param_table(graph)
    found: Tensors = {}
    for key, name in keys.items():
        if key not in table:
            continue
        tensor, shape = named.get(name), table[key].shape
        if tensor is None:
            raise ModelError(f"the {what} model has no {cut(name)}, but that of the plan has; make a plan of this one")
        if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.device.type == "meta":
            raise ModelError(
                f"the {what} model: {cut(name)} is a {type(tensor).__name__} on {tensor.device}; plain tensors with "
                "numbers are needed: fill before sharding"
            )
        if tuple(tensor.shape) not in (shape, ()) or tensor.numel() != table[key].elements:
            raise ModelError(
                f"the {what} model: {cut(name)} has shape {list(tensor.shape)}, but in the plan {list(shape)}; make a "
                "plan of this one"
            )
        found[key] = tensor
    return found


def _results(
    before: Mapping[str, torch.Tensor],
    targets: Mapping[str, torch.Tensor],
    edits: Sequence[Edit],
    keys: Mapping[str, str],
) -> Tensors:
    """What the large module's tensors are to hold."""
    shaped = {
        key: tensor.detach().reshape(1) if tensor.dim() == 0 else tensor.detach() for key, tensor in before.items()
    }
    after = edited(shaped, edits)
    for key, target in targets.items():
        if key not in after:
            raise ModelError(
                f"nothing of the small model leads to {cut(keys[key])} of the large one; it is a constant there"
            )
        if after[key].numel() != target.numel():
            raise ModelError(
                f"the plan gives {cut(keys[key])} the shape {list(after[key].shape)}, but in the large model it has "
                f"{list(target.shape)}; make a plan of these two"
            )
    return after


def _gradients(
    before: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor], edits: Sequence[Edit]
) -> Tensors:
    """The accumulated gradients of the small module, carried; a copied tensor's are not its source's."""
    held = {key: tensor.grad for key, tensor in before.items() if tensor.grad is not None}
    if sparse := [key for key, grad in held.items() if grad.is_sparse]:
        raise ModelError(f"{cut(sparse[0])} has a sparse gradient, which cannot follow; zero the gradients first")
    moved = [edit for edit in edits if not isinstance(edit, Copy)]
    found = carry_moments(moved, held, "gradient", TORCH)
    return {
        key: grad.to(targets[key].device, targets[key].dtype, copy=True)
        for key, grad in found.items()
        if key in targets and targets[key].requires_grad
    }


def _numbered(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    return {key: k for k, key in enumerate(tensors)}


# -- optimizers -------------------------------------------------------------------------------------------------------


def _pairs(optimizer: object, into: object) -> list[tuple[object, object]]:
    """Which optimizer goes on with the state of which."""
    sides = [
        list(cast("Sequence[object]", o)) if isinstance(o, list | tuple) else [] if o is None else [o]
        for o in (optimizer, into)
    ]
    if len(sides[0]) != len(sides[1]):
        raise ModelError(
            f"for each optimizer of the small model, one of the large model goes on: optimizer has {len(sides[0])}, "
            f"into has {len(sides[1])}"
        )
    return list(zip(*sides, strict=True))


class _Move:
    """The state that one optimizer hands to another, worked out.

    Attributes:
        stateless: The keys of the large module's parameters for which there is none.
        notes: What the next step will not be.
    """

    def __init__(self, optimizer: object, into: object, grown: Grown, keys: Mapping[str, str]) -> None:
        plan = OptimizerPlan(optimizer, grown)
        if not isinstance(into, torch.optim.Optimizer):
            raise ModelError(f"into: a torch.optim.Optimizer is needed, but this is a {type(into).__name__}")
        self._into = taken_for(into)
        if type(self._into) is not type(plan.optimizer):
            raise ModelError(
                f"into is {type(self._into).__name__}, but the small model's optimizer "
                f"{type(plan.optimizer).__name__}; state goes from one to another of its class"
            )
        if plan.holds_others:
            raise ModelError(f"{type(plan.optimizer).__name__} holds other optimizers; give those that it holds")
        key_of = {id(tensor): key for key, tensor in grown.after.items()}
        members = [p for group in self._into.param_groups for p in group["params"]]
        own = [key_of[id(p)] for p in members if id(p) in key_of]
        if not own:
            raise ModelError(
                f"into, a {type(self._into).__name__}, holds no parameter of the large model; make it of its "
                "parameters()"
            )
        self.stateless = tuple(keys[key] for key in own if key not in plan.state and plan.state)
        self.notes = plan.notes
        lost = sorted(keys[key] for key in plan.state if key in keys and key not in own)
        if lost:
            self.notes = (
                *self.notes,
                f"into does not hold {', '.join(map(cut, lost[:8]))}: the state of these is left out",
            )
        state: dict[int, Any] = {}
        for k, parameter in enumerate(members):
            key = key_of.get(id(parameter))
            slots = self._into.state.get(parameter) if key is None else plan.state.get(key)
            if slots:
                state[k] = {
                    entry: value.clone() if isinstance(value, torch.Tensor) else value for entry, value in slots.items()
                }
        self._state = {"state": state, "param_groups": self._into.state_dict()["param_groups"]}

    def commit(self) -> None:
        """Let the large module's optimizer go on with the state, with its own groups and settings."""
        self._into.load_state_dict(self._state)
