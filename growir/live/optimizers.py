"""Optimizers that grow along: first a plan, which may fail, then a change in place, which may not.

Each class is carried by its row (`growir.live.rows`), and what it holds by theirs. Param groups keep their order, their
settings and, by name, their members, so that whatever holds the optimizer (a learning rate scheduler, a GradScaler)
stays valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from growir.backends.torch_edits import TORCH
from growir.edits import Copy, Derive, Drop, Edit, Pack, Rename
from growir.errors import GrowirError, ModelError, cut
from growir.graph import Graph
from growir.live.groups import Groups, asked, weakness
from growir.live.relatives import nearest
from growir.live.report import Place
from growir.live.rows import held_by, row_of, taken_for
from growir.moments import CopyState, FreshState, carry_optimizer
from growir.params import param_table

Slots = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Grown:
    """The tensors before and after a rewrite.

    Attributes:
        graph: The grown graph.
        edits: What was done.
        before: Tensors by their old keys.
        after: Tensors by their new keys.
        heirs: The new key of every old key that is still there.
        old_order: Where each parameter stood among the old module's.
        order: Where each parameter stands among the new module's.
        fresh: What fresh entries of optimizer state start with.
        copies: What the state of added copies starts with.
    """

    graph: Graph
    edits: Sequence[Edit]
    before: Mapping[str, torch.Tensor]
    after: Mapping[str, torch.Tensor]
    heirs: Mapping[str, str]
    old_order: Mapping[str, int]
    order: Mapping[str, int]
    fresh: FreshState = "small"
    copies: CopyState = "carried"


@dataclass(slots=True, eq=False)
class _Member:
    """One place of a param group: a parameter, the name the optimizer has for it, and its key if the module has it."""

    parameter: torch.Tensor
    name: str | None
    key: str | None


class OptimizerPlan:
    """What an optimizer will be after growth, and what those will be that it holds.

    Attributes:
        optimizer: The optimizer.
        groups: The members of each of its groups.
        notes: What the next step will not be.
    """

    def __init__(self, optimizer: object, grown: Grown, *, held: bool = False) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ModelError(
                f"a torch.optim.Optimizer is needed, but this is a {type(optimizer).__name__}; "
                "give the optimizer inside it, which is often its attribute `optimizer`"
            )
        self.optimizer = taken_for(optimizer)
        self._row = row_of(self.optimizer)
        self._inner = [OptimizerPlan(other, grown, held=True) for _, other in held_by(self.optimizer)]
        self._grown = grown
        keys = {id(tensor): key for key, tensor in grown.before.items()}
        self.groups = [self._members(group, keys) for group in self.optimizer.param_groups]
        keys_held = {member.key for group in self.groups for member in group if member.key is not None}
        # One whose groups are all empty waits for what growth creates, if nothing of the module is trained yet.
        waits = not any(self.groups) and not any(p.requires_grad for p in grown.before.values())
        if not (keys_held or held or waits):
            raise ModelError(
                f"the {type(optimizer).__name__} holds no parameter of this module; was it made for another, or for "
                "the module as it was before an earlier growth?"
            )
        self._state = self._carried(keys_held)
        self.notes: tuple[str, ...] = (*self._own_notes(keys_held), *(n for plan in self._inner for n in plan.notes))
        self._in_order = [self._is_in_order(group) for group in self.groups]
        self.groups = [self._followed(group) for group in self.groups]

    def _members(self, group: Mapping[str, Any], keys: Mapping[int, str]) -> list[_Member]:
        names = group.get("param_names") or [None] * len(group["params"])
        return [_Member(p, name, keys.get(id(p))) for p, name in zip(group["params"], names, strict=True)]

    def _own_notes(self, held: set[str]) -> list[str]:
        if self._row.coordinatewise or all(self._stays(key) for key in held):
            return []
        name = type(self.optimizer).__name__
        return [
            f"{name} steps by whole tensors: what it keeps is carried exactly, but the next step of the tensors that "
            "changed is another one on old coordinates too (docs/live.md, Optimizers)"
        ]

    def _stays(self, key: str) -> bool:
        """Whether a parameter is the same object before and after."""
        heir = self._grown.heirs.get(key)
        return heir is not None and self._grown.after[heir] is self._grown.before[key]

    def _carried(self, held: set[str]) -> dict[str, Slots]:
        """The state of the module's parameters by new key; what is no tensor goes along as it is."""
        old = {key: self._slots(key) for key in held if self._grown.before[key] in self.optimizer.state}
        if self._row.entries is None:
            return {self._grown.heirs[key]: slots for key, slots in old.items() if self._stays(key)}
        tensors = {k: {e: v for e, v in s.items() if isinstance(v, torch.Tensor)} for k, s in old.items()}
        fresh, copies = self._grown.fresh, self._grown.copies
        grown = carry_optimizer(self._grown.edits, tensors, TORCH, self._row.entries, fresh, copies)
        carried: dict[str, Slots] = {key: dict(slots) for key, slots in grown.items()}
        rest = {k: {e: v for e, v in s.items() if not isinstance(v, torch.Tensor)} for k, s in old.items()}
        for edit in self._grown.edits:
            match edit:
                case Drop(key) | Derive(key):
                    rest.pop(key, None)
                case Rename(before, after) if before in rest:
                    rest[after] = rest.pop(before)
                case Copy(key, source) if source in rest and copies == "carried":
                    rest[key] = dict(rest[source])
                case Pack(key, sources):
                    parts = [rest.pop(source) for source in sources if source in rest]
                    if len(parts) == len(sources):
                        rest[key] = parts[0]
                case _:
                    pass
        for key, slots in rest.items():
            carried.setdefault(key, {}).update(slots)
        return carried

    def _slots(self, key: str) -> Slots:
        tensor = self._grown.before[key]
        slots: Slots = self.optimizer.state[tensor]
        if self._row.entries is None or self._stays(key) or key not in self._grown.heirs:
            return slots
        what = f"{type(self.optimizer).__name__}'s state"
        for entry, value in slots.items():
            if not (value is None or isinstance(value, (int, float, torch.Tensor))):
                raise GrowirError(
                    f"{what} {entry!r} of {cut(key)} is a {type(value).__name__}, and how it follows growth is "
                    "unknown; make a new optimizer after growing"
                )
            if entry not in self._row.entries or not isinstance(value, torch.Tensor):
                continue
            if value.shape != tensor.shape:
                raise GrowirError(
                    f"{what} {entry!r} of {cut(key)} has shape {list(value.shape)}, but the parameter "
                    f"{list(tensor.shape)}; how it follows growth is unknown: make a new optimizer after growing"
                )
            if not value.is_floating_point():
                raise GrowirError(
                    f"{what} {entry!r} of {cut(key)} is {str(value.dtype).removeprefix('torch.')}, a code that cannot "
                    "be scaled; make a new optimizer after growing, or let what changes start anew: "
                    f"live.register({type(self.optimizer).__name__}, None)"
                )
        return slots

    # -- groups -----------------------------------------------------------------------------------------------------

    def _followed(self, group: list[_Member]) -> list[_Member]:
        """The members that are still there, under their new names."""
        kept: list[_Member] = []
        for member in group:
            if member.key is None:
                kept.append(member)
            elif member.key in self._grown.heirs:
                heir = self._grown.heirs[member.key]
                name = member.name
                if name is not None and heir != member.key:
                    name = name.removesuffix(member.key) + heir
                kept.append(_Member(self._grown.after[heir], name, heir))
        return kept

    def _is_in_order(self, group: list[_Member]) -> bool:
        ranks = [self._grown.old_order[member.key] for member in group if member.key is not None]
        return ranks == sorted(ranks)

    @property
    def places(self) -> dict[str, int]:
        """The group of every parameter of the module that this optimizer trains."""
        return {m.key: k for k, group in enumerate(self.groups) for m in group if m.key is not None}

    def take(self, key: str, number: int) -> None:
        """Put a new parameter into a group, behind the last that precedes it in the new module."""
        given, order = self.optimizer.param_groups[number], self._grown.order
        for plan in self._inner:
            for k, theirs in enumerate(plan.optimizer.param_groups):
                if theirs is given or {m.key for m in plan.groups[k]} & {m.key for m in self.groups[number]} - {None}:
                    plan.take(key, k)
                    break
        group = self.groups[number]
        named = self._prefix() + key if "param_names" in given else None
        ours = [k for k, member in enumerate(group) if member.key is not None]
        earlier = [k for k in ours if order[group[k].key or ""] < order[key]]
        at = earlier[-1] + 1 if earlier else ours[0] if ours else len(group)
        group.insert(at, _Member(self._grown.after[key], named, key))

    def _prefix(self) -> str:
        """What stands before the keys in the names that the optimizer has for this module's parameters."""
        named = (member for group in self.groups for member in group if member.name is not None and member.key)
        return next(((member.name or "").removesuffix(member.key or "") for member in named), "")

    def arrange(self) -> None:
        """Put groups that were in the order of the module's parameters into that of the new module's.

        A saved optimizer counts parameters, and one that is made anew to load it has them in the module's order.
        """
        for plan in self._inner:
            plan.arrange()
        for group, in_order in zip(self.groups, self._in_order, strict=True):
            slots = [k for k, member in enumerate(group) if in_order and member.key is not None]
            ours = sorted((group[k] for k in slots), key=lambda member: self._grown.order[member.key or ""])
            for k, member in zip(slots, ours, strict=True):
                group[k] = member

    @property
    def state(self) -> Mapping[str, Slots]:
        """What it keeps of each of the module's parameters after growth, by new key."""
        return self._state

    @property
    def holds_others(self) -> bool:
        """Whether it holds other optimizers, which have state of their own."""
        return bool(self._inner)

    # -- the change -------------------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Change the optimizer and those it holds, in place."""
        for plan in self._inner:
            plan.commit()
        state = self.optimizer.state
        kept = {id(tensor) for tensor in self._grown.after.values()}
        for tensor in self._grown.before.values():
            if id(tensor) not in kept:
                state.pop(tensor, None)
        trained = self.places  # a copy of a parameter may be trained by another optimizer than its source
        for key, slots in self._state.items():
            tensor = self._grown.after[key]
            if tensor not in state and key in trained:
                state[tensor] = slots
        for group, members in zip(self.optimizer.param_groups, self.groups, strict=True):
            # The list itself stays: some hold on to it.
            group["params"][:] = [member.parameter for member in members]
            if "param_names" in group:
                group["param_names"][:] = [member.name for member in members]


def plan_optimizers(
    optimizers: Sequence[object], grown: Grown, groups: Groups | None = None
) -> tuple[list[OptimizerPlan], list[str]]:
    """What each optimizer will be, with the parameters that come into being, and notes on those it is unsure of.

    One goes where `groups` says. Without that, one that is worked out from others joins the first of them, a copy its
    source, and any other its nearest relative.

    Raises:
        GrowirError: An optimizer is none of this module, or has state that cannot follow; or there is no such group.
    """
    plans = [OptimizerPlan(optimizer, grown) for optimizer in optimizers]
    notes: list[str] = []
    if not plans:
        return plans, notes
    given = [plan.optimizer.param_groups for plan in plans]
    sources = {edit.key: edit.sources for edit in grown.edits if isinstance(edit, Derive)}
    sources |= {edit.key: (edit.source,) for edit in grown.edits if isinstance(edit, Copy)}
    old = set(grown.heirs.values())
    table = param_table(grown.graph)
    # A parameter that no output depends on has no place in the graph, and so is nobody's relative.
    settled = {key: place for key, place in places_of(plans).items() if key in table}
    for key, tensor in grown.after.items():
        if key in old or not isinstance(tensor, nn.Parameter) or not tensor.requires_grad:
            continue
        place = None if groups is None else asked(groups, key, tensor, given)
        parents = [grown.heirs[s] for s in sources.get(key, ()) if grown.heirs.get(s) in settled]
        if place is None and parents:
            place = settled[parents[0]]
        elif place is None and (relative := nearest(grown.graph, key, settled)) is not None:
            place = settled[relative.key]
            weak = weakness(grown.graph, key, relative, settled)
            notes += [weak] if weak else []
        elif place is None and sum(map(len, given)) == 1:
            place = Place(next(k for k, each in enumerate(given) if each), 0)  # nothing is trained yet: no choice
        if place is not None:
            plans[place.optimizer].take(key, place.group)
    for plan in plans:
        plan.arrange()
    return plans, notes


def places_of(plans: Sequence[OptimizerPlan]) -> dict[str, Place]:
    """Where each parameter is trained; the first optimizer counts if several train it."""
    return {key: Place(k, group) for k, plan in reversed(list(enumerate(plans))) for key, group in plan.places.items()}
