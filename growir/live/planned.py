"""The tensors of a model by the keys of a plan, and what the plan makes of them, be they a module's or saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from growir.edits import Edit, among
from growir.errors import ModelError, cut
from growir.graph import Graph
from growir.live.carrying import edited, heirs_of
from growir.live.optimizers import Grown
from growir.moments import CopyState, FreshState
from growir.params import param_table
from growir.planning import Plan
from growir.rewrite import Rewrite

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of the two models of a plan.

    Attributes:
        what: What messages call it.
        named: Its tensors by each of their names, in the order in which the model has them.
        keys: The name of each document key.
    """

    what: str
    named: Mapping[str, torch.Tensor]
    keys: Mapping[str, str]

    def tensors(self, graph: Graph) -> Tensors:
        """The tensors by the document's keys. Raises ModelError if they are not those of the plan."""
        table = param_table(graph)
        found: Tensors = {}
        for key, name in self.keys.items():
            if key not in table:
                continue
            tensor, shape = self.named.get(name), table[key].shape
            if tensor is None:
                raise ModelError(
                    f"the {self.what} has no {cut(name)}, but that of the plan has; make a plan of this one"
                )
            if type(tensor) not in (torch.Tensor, nn.Parameter):
                raise ModelError(
                    f"the {self.what}: {cut(name)} is a {type(tensor).__name__} on {tensor.device}; plain tensors with "
                    "numbers are needed: fill before sharding"
                )
            if tuple(tensor.shape) not in (shape, ()) or tensor.numel() != table[key].elements:
                raise ModelError(
                    f"the {self.what}: {cut(name)} has shape {list(tensor.shape)}, but in the plan {list(shape)}; make "
                    "a plan of this one"
                )
            found[key] = tensor
        return found

    def order(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
        """Where each tensor stands in the model, by key."""
        position: dict[int, int] = {}
        for tensor in self.named.values():
            position.setdefault(id(tensor), len(position))
        return {key: position[id(tensor)] for key, tensor in tensors.items()}


def check_numbers(side: Side, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ModelError if a tensor is on the meta device, where there are no numbers."""
    for key, tensor in tensors.items():
        if tensor.device.type == "meta":
            raise ModelError(
                f"the {side.what}: {cut(side.keys[key])} is on the meta device; plain tensors with numbers are needed: "
                "give it memory first (`to_empty`)"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Worked:
    """A plan worked out on the tensors of a small model.

    Attributes:
        done: The rewrite.
        edits: What was done to those tensors that are at hand.
        before: The small model's tensors, by key.
        targets: Those of the large model, by key.
        after: What the large model's tensors are to hold, by key.
        outside: Names of tensors that both models have, with equal shapes, and that no output depends on.
    """

    done: Rewrite
    edits: Sequence[Edit]
    before: Tensors
    targets: Tensors
    after: Tensors
    outside: Sequence[str]


def worked_out(plan: Plan, small: Side, large: Side) -> Worked:
    """What a plan makes of a small model.

    Args:
        plan: The plan.
        small: The small model, with its numbers.
        large: The large one, of which only the shapes count.

    Raises:
        ModelError: A model is not the plan's.
        PassRefused: The plan does not lead where it says.
    """
    done = plan.rewrite
    before, targets = small.tensors(plan.graph), large.tensors(done.graph)
    check_numbers(small, before)
    edits = among(done.edits, before)
    shaped = {
        key: tensor.detach().reshape(1) if tensor.dim() == 0 else tensor.detach() for key, tensor in before.items()
    }
    after = edited(shaped, edits)
    for key, target in targets.items():
        if key not in after:
            raise ModelError(
                f"nothing of the {small.what} leads to {cut(large.keys[key])} of the {large.what}; it is a constant "
                "there"
            )
        if after[key].numel() != target.numel():
            raise ModelError(
                f"the plan gives {cut(large.keys[key])} the shape {list(after[key].shape)}, but in the {large.what} it "
                f"has {list(target.shape)}; make a plan of these two"
            )
    inside = {id(tensor) for tensors in (before, targets) for tensor in tensors.values()}
    outside = [
        name
        for name, tensor in small.named.items()
        if name in large.named
        and not inside & {id(tensor), id(large.named[name])}
        and tensor.shape == large.named[name].shape
        and name not in before
        and name not in targets
    ]
    return Worked(done, edits, before, targets, after, outside)


def grown_by(
    work: Worked, small: Side, large: Side, targets: Mapping[str, torch.Tensor], fresh: FreshState, copies: CopyState
) -> Grown:
    """The tensors before and after, for optimizers to follow: those of the plan, and those that no output depends on.

    Args:
        work: What was worked out.
        small: The small model.
        large: The large one.
        targets: The tensors of the large one that optimizers are to hold, by key.
        fresh: What fresh entries of optimizer state start with.
        copies: What the state of added copies starts with.
    """
    heirs = {old: new for old, new in heirs_of(work.edits, list(work.before)).items() if new in targets}
    outside = {name: name for name in work.outside}
    before = {**work.before, **{name: small.named[name] for name in outside}}
    after = {**targets, **{name: large.named[name] for name in outside}}
    orders = small.order(before), large.order(after)
    return Grown(work.done.graph, work.edits, before, after, {**heirs, **outside}, *orders, fresh, copies)
