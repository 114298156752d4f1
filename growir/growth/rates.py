"""Learning rates: functions of the number of steps that are done, so that one goes on anywhere as if never stopped.

A schedule spans some number of steps, of one phase of training or of a whole run with growth in between; its peak is
the rate with which the optimizer was made. `schedule` sets an optimizer to any step of it.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Callable, Collection
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from growir.errors import RunError
from growir.growth.recipe import RateConfig

# Where a group keeps the rate and the momentum that it was made with, and the step at which what it trains came to be.
# What schedules write over is found there again by the next one.
OWN, BORN, FROM = "own", "born", "taken_from"
_WRITTEN = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")


def schedule(
    optimizer: torch.optim.Optimizer,
    rate: RateConfig,
    total: int | None,
    *,
    step: int = 0,
    grown: int | None = None,
) -> LRScheduler | None:
    """Set an optimizer to a step of a schedule; what comes back is to step once behind each step of the optimizer.

    Args:
        optimizer: As it was made, or as an earlier schedule left it.
        rate: The schedule.
        total: The steps that it spans; None where nobody knows.
        step: How many of them are done.
        grown: How many were done when the network last grew; None if it never did.

    Returns:
        The scheduler, or None where the rate stays what the optimizer was made with.

    Raises:
        RunError: The schedule needs the number of steps, or parts of it are longer than the whole.
    """
    _as_made(optimizer)
    if rate.flat:
        return None
    if rate.name == "one_cycle":
        found = _one_cycle(optimizer, rate, total)
    else:
        shape = shape_of(rate, total)
        found = LambdaLR(optimizer, [_rewarmed(shape, rate, group, grown) for group in optimizer.param_groups])
    if step:
        state = found.state_dict()
        state["last_epoch"] = step - 1
        found.load_state_dict(state)
        with warnings.catch_warnings():
            # torch asks for a step of the optimizer first, which an earlier part of the run has made.
            warnings.simplefilter("ignore", UserWarning)
            found.step()
    return found


def shape_of(rate: RateConfig, total: int | None) -> Callable[[int], float]:
    """The rate as a share of its peak, by the number of steps done; all schedules but "one_cycle"."""
    warm = _steps(rate.warmup or 0, total, rate, "warmup")
    falls = _fall(rate, total, warm)
    return lambda done: min(1.0, (done + 1) / warm if warm else 1.0) * falls(done)


def _fall(rate: RateConfig, total: int | None, warm: int) -> Callable[[int], float]:
    """How a schedule goes down from its peak, behind its warm-up."""
    if rate.name == "steps":
        falls = [_steps(milestone, total, rate, "milestones") for milestone in rate.milestones]
        return lambda done: rate.gamma ** bisect_right(falls, done)
    if rate.name == "constant":
        return lambda done: 1.0
    if total is None:
        raise RunError(_unknown(rate, ""))
    # Cosine falls from the warm-up on, the other at the end, both to `least`.
    length = total - warm if rate.name == "cosine" else _steps(rate.decay, total, rate, "decay")
    if length < 0 or warm + length > total:
        parts = f"warmup {warm}" + (f" and decay {length}" if rate.name == "wsd" else "")
        raise RunError(f'rate "{rate.name}": {parts} are more than the {total} steps in all; make them shorter')

    def share(done: int) -> float:
        left = min(1.0, max(0.0, (total - done) / length)) if length else 1.0
        return 0.5 * (1.0 - math.cos(math.pi * left)) if rate.name == "cosine" else left

    return lambda done: rate.least + (1.0 - rate.least) * share(done)


def _steps(length: float, total: int | None, rate: RateConfig, what: str) -> int:
    """A number of steps, or a share of them all."""
    if isinstance(length, int):
        return length
    if total is None:
        raise RunError(_unknown(rate, f", for {what} = {length:g},"))
    return round(length * total)


def _unknown(rate: RateConfig, because: str) -> str:
    return (
        f'rate "{rate.name}"{because} needs to know how many steps there will be, but the data does not say how many '
        "batches an epoch has; give steps in place of epochs"
    )


def _rewarmed(
    shape: Callable[[int], float], rate: RateConfig, group: dict[str, Any], grown: int | None
) -> Callable[[int], float]:
    """The same for one group, which rises anew after a growth if it is one of those that do."""
    since = {"no": None, "symmetric": grown, "new": cast("int | None", group.get(BORN))}[rate.rewarm]
    if since is None:
        return shape
    return lambda done: shape(done) * min(1.0, max(0, done - since + 1) / rate.rewarm_steps)


def _one_cycle(optimizer: torch.optim.Optimizer, rate: RateConfig, total: int | None) -> LRScheduler:
    if total is None:
        raise RunError(_unknown(rate, ""))
    rises = 0.25 if rate.warmup is None else _steps(rate.warmup, total, rate, "warmup") / total
    if rises > 1:
        raise RunError(f'rate "one_cycle": warmup {rate.warmup} is more than the {total} steps in all; make it shorter')
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    # Of four steps, so that the rise is one; and one that is never made, where the rate would be next to nothing.
    steps = max(total, 4) + 1
    cycles = all("betas" in group or group.get("momentum") for group in optimizer.param_groups)
    return OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=rises, cycle_momentum=cycles)


def _as_made(optimizer: torch.optim.Optimizer) -> None:
    """Undo what earlier schedules did to an optimizer's groups."""
    for group in optimizer.param_groups:
        made = {name: group[name] for name in ("lr", "momentum", "betas") if name in group}
        for name, value in group.setdefault(OWN, made).items():
            if isinstance(group[name], torch.Tensor):
                group[name].fill_(float(value))
            else:
                group[name] = value
        for name in _WRITTEN:
            group.pop(name, None)


# -- created parameters apart ------------------------------------------------------------------------------------------


def set_apart(optimizer: torch.optim.Optimizer, created: Collection[torch.Tensor], step: int) -> None:
    """Give created parameters groups of their own, whose rate rises from this step on; earlier ones go back to theirs.

    Each new group has the settings of the one that its parameters were in, and goes back to it with the next growth.
    To be called behind the growth and before `schedule`.

    Args:
        optimizer: It trains them already.
        created: The parameters.
        step: How many steps of the schedule were done when they came to be.
    """
    put_back(optimizer)
    new = {id(parameter) for parameter in created}
    for number, group in enumerate(list(optimizer.param_groups)):
        chosen = [k for k, parameter in enumerate(group["params"]) if id(parameter) in new]
        if not chosen:
            continue
        taken = [group["params"][k] for k in chosen]
        named = group.get("param_names")
        settings = {key: value for key, value in group.items() if key not in ("params", "param_names", "name")}
        params = taken if named is None else [(named[k], parameter) for k, parameter in zip(chosen, taken, strict=True)]
        for each in ("params", "param_names"):
            if each in group:
                group[each][:] = [entry for k, entry in enumerate(group[each]) if k not in chosen]
        optimizer.add_param_group({**settings, "params": params, BORN: step, FROM: number})


def put_back(optimizer: torch.optim.Optimizer) -> None:
    """Return parameters that were set apart to the groups that they were in."""
    for group in [group for group in optimizer.param_groups if BORN in group]:
        home = cast("dict[str, Any]", optimizer.param_groups[group[FROM]])
        for each in ("params", "param_names"):
            if each in group:
                home[each].extend(group[each])
        optimizer.param_groups[:] = [other for other in optimizer.param_groups if other is not group]
