"""An optimizer's whole state by parameter name, exact to the bit: tensors apart, and the rest as JSON.

tensors   {"momentum_buffer:a.weight": ...}
rest      {"class": "SGD", "groups": [{"params": ["a.weight"], "settings": {"lr": 0.1, ...}}], "scalars": {}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from growir.errors import RunError, counted, cut
from growir.growth.rates import FROM
from growir.live.rows import held_by

_HELD = "/"  # between where an optimizer holds another and what that one keeps


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerState:
    """What an optimizer keeps.

    Attributes:
        tensors: "entry:parameter" to a copy on the CPU.
        rest: Everything else, fit for JSON: the class, the groups with their settings and members, and scalars.
    """

    tensors: dict[str, torch.Tensor]
    rest: dict[str, Any]


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.Tensor]) -> OptimizerState:
    """Everything that an optimizer and those that it holds keep.

    Args:
        optimizer: It.
        parameters: The network's by key; others are filed by their place in the groups.
    """
    names = _names(optimizer, parameters)
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, object]] = {}
    for parameter, slots in cast("dict[torch.Tensor, dict[str, Any]]", optimizer.state).items():
        name = names.get(id(parameter))
        if name is None:
            continue  # of a parameter that no group trains any more
        for entry, value in slots.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{entry}:{name}"] = value.detach().cpu().clone()
            elif _is_json(value):
                scalars.setdefault(name, {})[entry] = value
    groups = [
        {
            "params": [names[id(parameter)] for parameter in group["params"]],
            "settings": {key: _plain(value) for key, value in group.items() if key != "params" and _is_json(value)},
        }
        for group in optimizer.param_groups
    ]
    rest: dict[str, Any] = {"class": type(optimizer).__name__, "groups": groups, "scalars": scalars}
    for where, inner in _held(optimizer):
        state = optimizer_state(inner, parameters)
        tensors |= {f"{where}{_HELD}{name}": tensor for name, tensor in state.tensors.items()}
        rest.setdefault("held", {})[where] = state.rest
    return OptimizerState(tensors, rest)


def restore_optimizer(
    optimizer: torch.optim.Optimizer, state: OptimizerState, parameters: Mapping[str, torch.Tensor]
) -> None:
    """Give an optimizer that was made for the same network what another one kept, groups included.

    Raises:
        RunError: The state is of another class of optimizer, or of other parameters.
    """
    rest, mine = state.rest, type(optimizer).__name__
    if rest["class"] != mine:
        raise RunError(
            f"the state was kept by {cut(rest['class'])}, but the optimizer is {mine}; go on with the one that the run "
            "started with"
        )
    names = _names(optimizer, parameters)
    by_name = {names[id(p)]: cast("torch.Tensor", p) for group in optimizer.param_groups for p in group["params"]}
    kept = {name for group in rest["groups"] for name in group["params"]}
    if kept != by_name.keys():
        other = sorted(kept ^ by_name.keys())
        raise RunError(
            f"the state of {mine} is of other parameters than the network's: {counted(len(other), 'parameter')} "
            f"({', '.join(map(cut, other[:3]))}) in one of them only; go on with the network of then"
        )
    _restore_groups(optimizer, rest["groups"], by_name)
    slots: dict[str, dict[str, Any]] = {name: dict(found) for name, found in rest["scalars"].items()}
    held = [where + _HELD for where, _ in _held(optimizer)]
    for label, tensor in state.tensors.items():
        if not label.startswith(tuple(held)):
            entry, _, name = label.partition(":")
            slots.setdefault(name, {})[entry] = tensor
    of = {name: group for group in optimizer.param_groups for name in (names[id(p)] for p in group["params"])}
    optimizer.state.clear()
    for name, found in slots.items():
        parameter = by_name[name]
        optimizer.state[parameter] = {entry: _placed(entry, v, parameter, of[name]) for entry, v in found.items()}
    for where, inner in _held(optimizer):
        tensors = {k.removeprefix(where + _HELD): v for k, v in state.tensors.items() if k.startswith(where + _HELD)}
        restore_optimizer(inner, OptimizerState(tensors, rest.get("held", {})[where]), parameters)


def _held(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.optim.Optimizer]]:
    """The optimizers inside one that keep a state of their own."""
    for where, inner in held_by(optimizer):
        if inner.state is not optimizer.state:
            yield where, inner


def _names(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.Tensor]) -> dict[int, str]:
    """What each parameter of an optimizer is called."""
    keys = {id(parameter): key for key, parameter in parameters.items()}
    return {
        id(parameter): keys.get(id(parameter), f"#{number}.{place}")
        for number, group in enumerate(optimizer.param_groups)
        for place, parameter in enumerate(group["params"])
    }


def _restore_groups(
    optimizer: torch.optim.Optimizer, kept: list[dict[str, Any]], by_name: Mapping[str, torch.Tensor]
) -> None:
    """The groups as they were, those of parameters that were set apart included; callables stay as they were made."""
    for number, saved in enumerate(kept):
        settings: dict[str, Any] = saved["settings"]
        if number == len(optimizer.param_groups):
            home = cast("dict[str, Any]", optimizer.param_groups[settings.get(FROM, 0)])
            optimizer.param_groups.append({**home, "params": []})
        group: dict[str, Any] = optimizer.param_groups[number]
        group["params"][:] = [by_name[name] for name in saved["params"]]
        for key in [key for key, value in group.items() if key not in settings and key != "params" and _is_json(value)]:
            del group[key]
        for key, value in settings.items():
            given = group.get(key)
            if isinstance(given, torch.Tensor):
                given.fill_(float(value))
            else:
                group[key] = _shaped(value)
    del optimizer.param_groups[len(kept) :]


def _placed(entry: str, value: object, parameter: torch.Tensor, group: Mapping[str, Any]) -> object:
    """A value of the state where torch would keep it: the number of steps on the CPU, unless a kernel reads it."""
    if not isinstance(value, torch.Tensor):
        return value
    on_cpu = entry == "step" and not (group.get("capturable") or group.get("fused"))
    return value.clone() if on_cpu else value.to(parameter.device, copy=True)


def _is_json(value: object) -> bool:
    """Whether a value can be kept as JSON; a tensor of one number, such as a rate, can."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    if isinstance(value, list | tuple):
        return all(map(_is_json, cast("list[object]", value)))
    if isinstance(value, dict):
        return all(map(_is_json, cast("dict[object, object]", value).values()))
    return value is None or isinstance(value, bool | int | float | str)


def _plain(value: Any) -> Any:
    """The same in JSON's types, but tuples as {"tuple": ...}: torch compares betas with tuples."""
    if isinstance(value, torch.Tensor):
        return float(value)
    if isinstance(value, tuple):
        return {"tuple": [_plain(each) for each in cast("tuple[object, ...]", value)]}
    if isinstance(value, list):
        return [_plain(each) for each in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in cast("dict[str, object]", value).items()}
    return value


def _shaped(value: Any) -> Any:
    """What `_plain` was given."""
    if isinstance(value, list):
        return [_shaped(each) for each in cast("list[object]", value)]
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        if found.keys() == {"tuple"}:
            return tuple(_shaped(found["tuple"]))
        return {key: _shaped(each) for key, each in found.items()}
    return value
