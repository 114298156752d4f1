"""A state_dict and a saved optimizer of the small model of a plan, and those of the large model that they grow into."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from growir.errors import ModelError, cut
from growir.live.numbers import Shape, prefix_of
from growir.live.optimizers import Grown
from growir.live.parts import Path, spelled
from growir.live.planned import Side, Tensors, Worked, grown_by, worked_out
from growir.moments import CopyState, FreshState
from growir.planning import Plan, Saved

Kind = type[torch.optim.Optimizer]


class StateDict:
    """A state_dict of the small model, and what it grows into.

    Attributes:
        path: Where it is.
        small: The small model's tensors, under each of their names the same object.
        large: The large model's.
        work: What was worked out.
    """

    def __init__(self, path: Path, part: Mapping[Any, Any], prefix: str, plan: Plan) -> None:
        self.path, self._part, self._prefix, self._plan = path, part, prefix, plan
        named = {name: part[prefix + name] for name in plan.small_saved if prefix + name in part}
        self._aliases = len(named) == len(plan.small_saved)
        self.small = Side("checkpoint", _shared(named, plan.small_saved), _among(plan.small_keys, plan.small_saved))
        shapes = {name: torch.empty(entry.shape, device="meta") for name, entry in plan.large_saved.items()}
        wanted = Side("large model", _shared(shapes, plan.large_saved), _among(plan.large_keys, plan.large_saved))
        self.work: Worked = worked_out(plan, self.small, wanted)
        self.large = Side(wanted.what, self._filled(wanted), wanted.keys)

    def _filled(self, wanted: Side) -> Tensors:
        """The large model's tensors by name."""
        key_of = {id(target): key for key, target in self.work.targets.items()}
        made: Tensors = {}
        for name, target in wanted.named.items():
            entry = self._plan.large_saved[name]
            if id(target) in key_of:
                value = self.work.after[key_of[id(target)]].reshape(entry.shape)
            elif name in self.work.outside:
                value = self.small.named[name]
            else:
                raise ModelError(
                    f"{cut(name)} of the large model follows from nothing: no output depends on it, and the small "
                    "model has none of that name and shape; fill the large model itself, with live.grow_into"
                )
            learns = entry.trained and value.is_floating_point()
            made[name] = value if entry.parameter is None else nn.Parameter(value.detach(), requires_grad=learns)
        return _shared(made, self._plan.large_saved)

    def grown(self, fresh: FreshState, copies: CopyState) -> Grown:
        """The tensors before and after, for optimizers to follow."""
        targets = {key: self.large.named[self._plan.large_keys[key]] for key in self.work.targets}
        return grown_by(self.work, self.small, self.large, targets, fresh, copies)

    def written(self) -> dict[str, Any]:
        """The large model's state_dict, tied tensors under as many names as in the small one's."""
        plain = {id(tensor): tensor.detach() for tensor in self.large.named.values()}
        found: dict[str, Any] = OrderedDict() if isinstance(self._part, OrderedDict) else {}
        seen = set[int]()
        for name, tensor in self.large.named.items():
            if self._aliases or id(tensor) not in seen:
                found[self._prefix + name] = plain[id(tensor)]
            seen.add(id(tensor))
        old = {self._prefix + name for name in self._plan.small_saved}
        found.update({key: value for key, value in self._part.items() if key not in old})
        return found


def _among(keys: Mapping[str, str], saved: Mapping[str, Saved]) -> dict[str, str]:
    """The keys of what is saved; what the model makes anew in its constructor is not."""
    return {key: name for key, name in keys.items() if name in saved}


def _shared(named: Mapping[str, torch.Tensor], saved: Mapping[str, Saved]) -> Tensors:
    """The tensors under all names of the model, tied ones the same object. Raises ModelError if they differ."""
    owners: dict[int, str] = {}
    for name, entry in saved.items():
        if entry.parameter is not None and name in named:
            owner = owners.setdefault(entry.parameter, name)
            one, other = named[owner], named[name]
            if owner != name and one.device.type != "meta" and one is not other and not _equal(one, other):
                raise ModelError(
                    f"{cut(owner)} and {cut(name)} are one tensor in the plan, but differ in the checkpoint; it is "
                    "of a model that does not tie them"
                )
    return {name: named[name if entry.parameter is None else owners[entry.parameter]] for name, entry in saved.items()}


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


@dataclass(frozen=True, slots=True, eq=False)
class SavedOptimizer:
    """An optimizer's state_dict.

    Attributes:
        path: Where it is.
        part: It.
        saved: What the small model saves.
    """

    path: Path
    part: Mapping[Any, Any]
    saved: Mapping[str, Saved]

    def __post_init__(self) -> None:
        groups, state = self.part["param_groups"], self.part["state"]
        if not isinstance(state, Mapping) or not all(
            isinstance(group, Mapping) and isinstance(cast("Mapping[str, Any]", group).get("params"), list | tuple)
            for group in cast("list[object]", groups)
        ):
            raise ModelError(f"{cut(spelled(self.path))} is no optimizer's state_dict as torch writes it")

    @property
    def groups(self) -> Sequence[Mapping[str, Any]]:
        """Its groups, in which parameters are numbers or names."""
        return cast("Sequence[Mapping[str, Any]]", self.part["param_groups"])

    def slots(self, number: object) -> Mapping[str, Any]:
        """What it keeps of a parameter."""
        found: object = self.part["state"].get(number, {})
        if not isinstance(found, Mapping):
            raise ModelError(
                f"{cut(spelled(self.path))} keeps a {type(found).__name__} of parameter {cut(number)}; how that "
                "follows growth is unknown"
            )
        return cast("Mapping[str, Any]", found)

    def entries(self) -> set[str]:
        """What it keeps of a parameter in more than one number."""
        slots = [self.slots(number) for group in self.groups for number in group["params"]]
        return {
            entry for each in slots for entry, value in each.items() if isinstance(value, torch.Tensor) and value.ndim
        }

    def shapes(self, entries: Mapping[str, Any] | None) -> list[list[Shape | None]]:
        """For each parameter of each group the shape of its state, where it has some."""

        def shape(number: object) -> Shape | None:
            kept = (value for entry, value in self.slots(number).items() if entry in (entries or ()))
            return next((tuple(value.shape) for value in kept if isinstance(value, torch.Tensor)), None)

        return [[shape(number) for number in group["params"]] for group in self.groups]

    def names(self) -> list[list[str]] | None:
        """The names of the parameters in each group, where it has them."""
        given = [self._named(group) for group in self.groups]
        if any(names is None for names in given):
            return None
        listed = [list(map(str, names or ())) for names in given]
        prefix = prefix_of([name for names in listed for name in names], self.saved) or ""
        return [[name.removeprefix(prefix) for name in names] for names in listed]

    def prefix(self) -> str:
        """What stands before the model's names in its own."""
        names = [str(name) for group in self.groups for name in self._named(group) or ()]
        return prefix_of(names, self.saved) or ""

    def _named(self, group: Mapping[str, Any]) -> Sequence[object] | None:
        named = all(isinstance(number, str) for number in group["params"])
        return cast("Sequence[object] | None", group["params"] if named else group.get("param_names"))

    def live(self, kind: Kind, names: Sequence[Sequence[str]], small: Side) -> torch.optim.Optimizer:
        """An optimizer of this class that holds the small model's tensors, to be grown as live ones are."""
        groups = [
            {**group, "params": [small.named[name] for name in own]}
            for group, own in zip(self.groups, names, strict=True)
        ]
        for group in groups:
            group.pop("param_names", None)
        found = of_kind(kind, groups)
        for given, group in zip(self.groups, groups, strict=True):
            for number, parameter in zip(given["params"], cast("list[torch.Tensor]", group["params"]), strict=True):
                if slots := self.slots(number):
                    found.state[parameter] = dict(slots)
        return found

    def written(self, live: torch.optim.Optimizer, large: Side) -> dict[str, Any]:
        """The grown optimizer's state_dict."""
        names: dict[int, str] = {}
        for name, tensor in large.named.items():
            names.setdefault(id(tensor), name)
        prefix, state, groups, count = self.prefix(), dict[Any, Any](), list[dict[str, Any]](), 0
        for given, group in zip(self.groups, live.param_groups, strict=True):
            strange = [p for p in group["params"] if id(p) not in names]
            if strange:
                raise ModelError(
                    f"{cut(spelled(self.path))} trains a parameter of shape {list(strange[0].shape)} that the large "
                    "model has not; leave it out of the optimizer, or use live.grow_into"
                )
            own = [prefix + names[id(p)] for p in group["params"]]
            by_name = all(isinstance(number, str) for number in given["params"]) and bool(given["params"])
            numbers: list[Any] = own if by_name else list(range(count, count + len(own)))
            count += len(own)
            state |= {
                number: live.state[p] for number, p in zip(numbers, group["params"], strict=True) if p in live.state
            }
            named = {"param_names": own} if "param_names" in given else {}
            groups.append({**given, **named, "params": numbers})
        return {**self.part, "state": state, "param_groups": groups}


def of_kind(kind: Kind, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
    """An optimizer of a class that has groups and nothing else, for growth to carry and never to step."""
    # Not by the class's own constructor, which is free to ask for anything.
    found = kind.__new__(kind)
    torch.optim.Optimizer.__init__(found, [dict(group) for group in groups], {})
    return found
