"""Which optimizer trains: any of torch.optim by name, a class or function by address, or a function of the parameters.

By default AdamW in two groups, "decayed" with the matrices and kernels and "plain" with biases and norms; what growth
creates joins them by its rank (`groups_of`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn

from growir.errors import ModelError, RunError, counted, cut
from growir.growth.muon import MuonByRank
from growir.growth.naming import named
from growir.growth.recipe import Decay, OptimizerConfig
from growir.live.groups import Groups
from growir.live.rows import held_by, row_of, taken_for
from growir.nearest import suggestion

Optimizer = torch.optim.Optimizer
# From a list of parameters to the optimizer that trains them all.
Factory = Callable[[list[nn.Parameter]], Optimizer]
RATE, DECAY = 3e-3, 0.1  # of AdamW, where nobody says
_FUSED = ("cpu", "cuda")  # devices whose AdamW takes one kernel for all parameters


def make(
    parameters: Mapping[str, nn.Parameter],
    how: OptimizerConfig | Factory | None = None,
    *,
    rate: float = RATE,
    weight_decay: float = DECAY,
) -> Optimizer:
    """An optimizer of all parameters that learn.

    Where nothing learns yet it has its groups, and they are empty.

    Args:
        parameters: By key; all that learn.
        how: Settings, or a function that is called with the list of parameters.
        rate: AdamW's learning rate, where the settings say none.
        weight_decay: AdamW's weight decay, where the settings say none.

    Raises:
        RunError: There is no such optimizer, or it takes no such setting, or leaves parameters out, or keeps what
            cannot follow growth.
    """
    how = how or OptimizerConfig()
    if not isinstance(how, OptimizerConfig):
        found = _called(how, _name_of(how), parameters, {})
    else:
        kind, name = _found(how.name)
        settings = _settings(kind, how, rate, weight_decay)
        if inspect.isclass(kind):
            found = _constructed(kind, name, parameters, how, settings)
        else:
            found = _called(kind, name, parameters, settings)
    _check_followed(found)
    return found


def groups_of(optimizer: Optimizer) -> Groups:
    """Where `live.grow` puts parameters that growth creates: by rank where the groups are growir's.

    In an optimizer that a user's function made, they go where their nearest relative is, or into the first group where
    there is none.
    """

    def group_of(key: str, parameter: nn.Parameter) -> int | str | None:
        names = [group.get("name") for group in optimizer.param_groups]
        if "matrices" in names and parameter.ndim == 2:
            return "matrices"
        if "plain" in names and parameter.ndim <= 1:
            return "plain"
        if "decayed" in names:
            return "decayed"
        return None if any(group["params"] for group in optimizer.param_groups) else 0

    return group_of


# -- by name -----------------------------------------------------------------------------------------------------------


def _found(name: str) -> tuple[Any, str]:
    """The class or function of a name, and what messages call it."""
    if ":" in name:
        return _imported(name), name
    kinds = {kind.__name__: kind for kind in vars(torch.optim).values() if _is_optimizer(kind)}
    kinds.pop("Optimizer", None)
    for known, kind in kinds.items():
        if known.lower() == name.lower():
            return kind, known
    near = suggestion(name, kinds)
    raise RunError(
        f"[optimizer] name: torch.optim has no {cut(name)!r}; it has {', '.join(kinds)}.{near} One of your own is "
        'given as "package.module:function"'
    )


def _is_optimizer(kind: object) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Optimizer)


def _imported(address: str) -> object:
    found = named(address, "[optimizer] name")
    if not callable(found):
        raise RunError(f"[optimizer] name: {cut(address)} is of {type(found).__name__}, but a function is needed")
    return found


def _settings(kind: Any, how: OptimizerConfig, rate: float, weight_decay: float) -> dict[str, Any]:
    """What an optimizer is called with beside the parameters. Raises RunError for what it does not take."""
    if "lr" in how.keywords:
        raise RunError("[optimizer] lr: the rate of every optimizer is learning_rate here")
    given = {"lr": how.learning_rate, "weight_decay": how.weight_decay}
    if kind is torch.optim.AdamW:
        defaults = {"lr": rate, "weight_decay": weight_decay}
        given = {key: default if given[key] is None else given[key] for key, default in defaults.items()}
    settings: dict[str, Any] = {key: value for key, value in given.items() if value is not None} | how.keywords
    try:
        parameters = list(inspect.signature(kind).parameters.values())
    except (TypeError, ValueError):  # a callable of C tells nothing, and refuses by itself
        return settings
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return settings
    takes = [_as_written(parameter.name) for parameter in parameters[1:]]
    for key in map(_as_written, settings):
        if key not in takes:
            raise RunError(
                f"[optimizer] {cut(key)}: {_name_of(kind)} takes {', '.join(takes) or 'no settings'}."
                f"{suggestion(key, takes)}"
            )
    return settings


def _as_written(keyword: str) -> str:
    """What a run file calls a keyword of an optimizer."""
    return "learning_rate" if keyword == "lr" else keyword


def _constructed(
    kind: Any, name: str, parameters: Mapping[str, nn.Parameter], how: OptimizerConfig, settings: dict[str, Any]
) -> Optimizer:
    """An optimizer of a class, in groups by rank where only matrices decay."""
    if kind is torch.optim.SparseAdam:
        raise RunError("[optimizer] SparseAdam takes sparse gradients, which no operator gives; take Adam")
    values = list(parameters.values())
    chosen = {"fused", "foreach", "capturable", "differentiable"} & settings.keys()
    # One kernel for all parameters, where there is one: a step takes half as long.
    if kind is torch.optim.AdamW and not chosen and all(p.device.type in _FUSED for p in values):
        settings = {**settings, "fused": True}
    try:
        if kind is torch.optim.Muon:
            return MuonByRank(parameters, decay_all=how.decay == "all", **settings)
        return cast("Optimizer", kind(_groups(kind, values, how.decay), **settings))
    except (TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"[optimizer] {name} refuses its settings: {cut(error, 300)}") from error


def _groups(kind: Any, values: list[nn.Parameter], decay: Decay) -> list[dict[str, object]]:
    """The groups of a class of optimizers: what decays, and what does not."""
    if decay == "all" or "weight_decay" not in inspect.signature(kind).parameters:
        return [{"params": values, "name": "decayed"}]
    return [
        {"params": [p for p in values if p.ndim > 1], "name": "decayed"},
        {"params": [p for p in values if p.ndim <= 1], "name": "plain", "weight_decay": 0.0},
    ]


# -- by a function -----------------------------------------------------------------------------------------------------


def _called(
    function: Callable[..., object], name: str, parameters: Mapping[str, nn.Parameter], settings: Mapping[str, Any]
) -> Optimizer:
    """What a user's function makes of all parameters. Raises RunError if it is no optimizer, or leaves some out."""
    values = list(parameters.values())
    # torch takes no empty list; a stand-in shows where the parameters go, and leaves.
    stand_in = [] if values else [nn.Parameter(torch.zeros(1, 1))]
    found = function(values + stand_in, **settings)
    if not isinstance(found, Optimizer):
        raise RunError(
            f"optimizer {cut(name)}: a torch.optim.Optimizer is needed, but it gives a {cut(type(found).__name__)}; "
            "write lambda parameters: torch.optim.SGD(parameters, lr=0.1)"
        )
    held = {id(parameter) for parameter in _held(found)}
    left_out = [key for key, parameter in parameters.items() if id(parameter) not in held]
    if left_out:
        shown = ", ".join(map(cut, left_out[:5])) + (", ..." if len(left_out) > 5 else "")
        raise RunError(
            f"optimizer {cut(name)}: it leaves out {counted(len(left_out), 'parameter')} of {len(parameters)} "
            f"({shown}); give it all it is called with, and freeze what shall not learn"
        )
    if stand_in:
        for group in found.param_groups:
            group["params"][:] = [p for p in group["params"] if p is not stand_in[0]]
    return found


def _held(optimizer: Optimizer) -> Iterable[torch.Tensor]:
    """The parameters of an optimizer and of those that it holds."""
    for group in optimizer.param_groups:
        yield from group["params"]
    for _, inner in held_by(optimizer):
        yield from _held(inner)


def _check_followed(optimizer: Optimizer) -> None:
    """Raises RunError if what an optimizer keeps cannot follow growth."""
    real = taken_for(optimizer)
    try:
        row_of(real)
    except ModelError as error:
        raise RunError(f"optimizer: {error}") from error
    for _, inner in held_by(real):
        _check_followed(inner)


def _name_of(kind: object) -> str:
    return cut(getattr(kind, "__name__", type(kind).__name__))
