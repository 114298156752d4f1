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
from growir.edits import Copy, Edit
from growir.errors import ModelError, cut
from growir.live.groups import Groups
from growir.live.normalised import uneven_copies
from growir.live.optimizers import Grown, OptimizerPlan, plan_optimizers
from growir.live.planned import Side, Tensors, check_numbers, grown_by, worked_out
from growir.live.rows import taken_for
from growir.moments import CopyState, FreshState, carry_moments
from growir.planning import Plan
from growir.rewrite import Preserves

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


@dataclass(frozen=True, slots=True, eq=False)
class Filled:
    """What `grow_into` or `grow_checkpoint` did.

    Attributes:
        preserves: What the plan promises of the function.
        filled: The keys of the large module's tensors that were written.
        left: Its other tensors, which its graph does not have, and which are as they were.
        stateless: The keys of parameters of the optimizers given that start without state.
        notes: What is left to the caller.
        callers: What callers of the module do now: its inputs or outputs became longer, or a table knows more.
        seconds: How long it took.
        carried: Where a checkpoint has parts that are in the large model's as they were.
    """

    preserves: Preserves
    filled: tuple[str, ...]
    left: tuple[str, ...]
    stateless: tuple[str, ...]
    notes: tuple[str, ...]
    callers: tuple[str, ...]
    seconds: float
    carried: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.filled)} tensors filled, preserves {self.preserves}"]
        lines += [f"  as it was: {', '.join(self.left)}"] if self.left else []
        lines += [f"  without optimizer state: {', '.join(self.stateless)}"] if self.stateless else []
        lines += [f"  carried unchanged: {', '.join(self.carried)}"] if self.carried else []
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
    groups: Groups | None = None,
) -> Filled:
    """Fill a large module, in place, with what a small one of the same class grows into; optimizer state comes along.

    The parameters and buffers of the large module stay the objects that they are, on their device and in their dtype.
    Optimizer state follows by the law of `live.grow`: into the large module's own optimizers, with their own groups and
    settings, or else the small module's optimizers go on in place, as in `live.grow`, and hold the large one's
    parameters from then on. Accumulated gradients of the small module are carried too; its tensors stay as they are.

    Args:
        small: The module that has been trained, or what torch.compile or DistributedDataParallel made of it.
        large: The module that is to go on, likewise.
        plan: What `growir.plan` made of two modules of these sizes.
        optimizer: The optimizer of the small module, or several.
        into: For each of these, the one of the large module that goes on, of the same class. None: `optimizer` itself
            goes on, changed in place, so that schedulers and scalers which hold it stay valid.
        fresh: What fresh entries of optimizer state start with, as in `live.grow`.
        copies: What the state of added copies starts with, as in `live.grow`.
        groups: Where created parameters are trained by an optimizer that goes on in place, as in `live.grow`, by the
            keys of the plan's document. None: a copy in the group of its source, any other in its nearest relative's.

    Raises:
        ModelError: A module is not the plan's, or an optimizer none of its module or of another class.
        PassRefused: The plan does not lead where it says.
        GrowirError: An optimizer has state that cannot follow.
    """
    start = time.perf_counter()
    if torch.is_inference_mode_enabled():
        raise ModelError("growth inside torch.inference_mode() gives tensors that cannot be trained; grow outside")
    if groups is not None and into is not None:
        raise ModelError("groups= says where an optimizer that goes on in place trains what is new; into has its own")
    mine, theirs = side_of(small, "small model", plan.small_keys), side_of(large, "large model", plan.large_keys)
    work = worked_out(plan, mine, theirs)
    targets = work.targets
    check_numbers(theirs, targets)
    grads = _gradients(work.before, targets, work.edits)
    grown = grown_by(work, mine, theirs, targets, fresh, copies)
    moves = _moves(optimizer, into, grown, plan.large_keys, groups)
    moves.commit()
    with torch.no_grad():
        for key, target in targets.items():
            target.copy_(work.after[key].reshape(target.shape))
            if key in grads:
                target.grad = grads[key]
    written = {id(tensor) for tensor in targets.values()}
    return Filled(
        preserves=work.done.preserves,
        filled=tuple(plan.large_keys[key] for key in targets),
        left=tuple(key for key, tensor in theirs.named.items() if id(tensor) not in written),
        stateless=moves.stateless,
        notes=(*moves.notes, *(uneven_copies(plan.graph, work.edits) if moves.plans or grads else ())),
        callers=work.done.callers,
        seconds=time.perf_counter() - start,
    )


def side_of(module: object, what: str, keys: Mapping[str, str]) -> Side:
    """A module's parameters and buffers under each of their names, out of what wraps it."""
    while isinstance(module, nn.Module):
        inner: object = getattr(module, "_orig_mod", None)  # what torch.compile wraps
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = cast("object", module.module)
        if inner is None:
            break
        module = cast("nn.Module", inner)
    if not isinstance(module, nn.Module):
        raise ModelError(f"the {what} must be a torch.nn.Module, but is a {type(module).__name__}")
    found: Tensors = dict(module.named_parameters(remove_duplicate=False))
    return Side(what, {**found, **dict(module.named_buffers(remove_duplicate=False))}, keys)


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


# -- optimizers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Moves:
    """What becomes of the optimizers, worked out.

    Attributes:
        plans: The small model's, each with the state that goes on.
        into: For each of these the one that goes on, with its state as it loads it; none where all go on in place.
        stateless: The names of the large module's parameters for which there is none.
        notes: What the next step will not be.
    """

    plans: Sequence[OptimizerPlan]
    into: Sequence[tuple[torch.optim.Optimizer, Mapping[str, Any]]]
    stateless: tuple[str, ...]
    notes: tuple[str, ...]

    def commit(self) -> None:
        """Let the optimizers go on with the state."""
        if self.into:
            for optimizer, state in self.into:
                optimizer.load_state_dict(dict(state))
            return
        for plan in self.plans:
            plan.commit()


def _moves(optimizer: object, into: object, grown: Grown, keys: Mapping[str, str], groups: Groups | None) -> _Moves:
    """What becomes of each optimizer.

    Args:
        optimizer: The small module's, or several.
        into: As many of the large module; None where they go on in place.
        grown: The tensors before and after.
        keys: What the large model calls each tensor, by key.
        groups: Where created parameters are trained in place.
    """
    given, others = (
        list(cast("Sequence[object]", o)) if isinstance(o, list | tuple) else [] if o is None else [o]
        for o in (optimizer, into)
    )
    if into is None:
        return moved_in_place(given, grown, keys, groups)
    if len(given) != len(others):
        raise ModelError(
            f"for each optimizer of the small model, one of the large model goes on: optimizer has {len(given)}, "
            f"into has {len(others)}"
        )
    moves = [_Move(a, b, grown, keys) for a, b in zip(given, others, strict=True)]
    return _Moves(
        [move.plan for move in moves],
        [(move.into, move.state) for move in moves],
        tuple(key for move in moves for key in move.stateless),
        tuple(note for move in moves for note in move.notes),
    )


def moved_in_place(
    optimizers: Sequence[object], grown: Grown, keys: Mapping[str, str], groups: Groups | None
) -> _Moves:
    """What becomes of optimizers that go on in place.

    Raises:
        GrowirError: One is none of the small module or has state that cannot follow, a group is unknown, or the large
            module has another dtype or device, which state in place cannot follow.
    """
    plans, unsure = plan_optimizers(optimizers, grown, groups)
    for old, new in grown.heirs.items() if plans else ():
        before, after = grown.before[old], grown.after[new]
        if (before.dtype, before.device) != (after.dtype, after.device):
            raise ModelError(
                f"{cut(keys.get(new, new))} is {after.dtype} on {after.device} in the large model, and was "
                f"{before.dtype} on {before.device}; an optimizer goes on in place only where these stay: give the "
                "large model's own as `into`"
            )
    stateless = [keys.get(key, key) for plan in plans for key in plan.places if plan.state and key not in plan.state]
    return _Moves(plans, (), tuple(stateless), (*unsure, *(note for plan in plans for note in plan.notes)))


class _Move:
    """The state that one optimizer hands to another, worked out.

    Attributes:
        plan: The one that hands it on.
        into: The one that goes on, with its own groups and settings.
        state: What it is to load.
        stateless: The names of the large module's parameters for which there is none.
        notes: What the next step will not be.
    """

    def __init__(self, optimizer: object, into: object, grown: Grown, keys: Mapping[str, str]) -> None:
        self.plan = plan = OptimizerPlan(optimizer, grown)
        if not isinstance(into, torch.optim.Optimizer):
            raise ModelError(f"into: a torch.optim.Optimizer is needed, but this is a {type(into).__name__}")
        self.into = taken_for(into)
        if type(self.into) is not type(plan.optimizer):
            raise ModelError(
                f"into is {type(self.into).__name__}, but the small model's optimizer "
                f"{type(plan.optimizer).__name__}; state goes from one to another of its class"
            )
        if plan.holds_others:
            raise ModelError(f"{type(plan.optimizer).__name__} holds other optimizers; give those that it holds")
        key_of = {id(tensor): key for key, tensor in grown.after.items()}
        members = [p for group in self.into.param_groups for p in group["params"]]
        own = [key_of[id(p)] for p in members if id(p) in key_of]
        if not own:
            raise ModelError(
                f"into, a {type(self.into).__name__}, holds no parameter of the large model; make it of its "
                "parameters()"
            )
        self.stateless = tuple(keys.get(key, key) for key in own if key not in plan.state and plan.state)
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
            slots = self.into.state.get(parameter) if key is None else plan.state.get(key)
            if slots:
                state[k] = {
                    entry: value.clone() if isinstance(value, torch.Tensor) else value for entry, value in slots.items()
                }
        self.state = {"state": state, "param_groups": self.into.state_dict()["param_groups"]}
