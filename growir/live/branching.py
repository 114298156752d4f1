"""A training run's state twice, so that two ways to go on from one point can be compared."""

from __future__ import annotations

import copy
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from growir.errors import ModelError


def branch(module: nn.Module, optimizer: Optimizer, *others: Any) -> tuple[Any, ...]:
    """Copies of a module, its optimizer and whatever else the run holds, which go their own way.

    The copied optimizer trains the copied module, in the same groups and with the same state. What else holds one of
    the two, such as a learning rate's scheduler, is given along, so that its copy holds theirs. Random generators are
    torch's own: seed them where the two ways are to draw the same.

    Args:
        module: The module, of growir or not.
        optimizer: What trains it.
        others: Schedulers, averages, a `Schedule`.

    Returns:
        A copy of each, in the order in which they were given.

    Raises:
        ModelError: The optimizer trains what is no parameter of the module, so that a copy of it would train nothing.
    """
    mine = {id(parameter) for parameter in module.parameters()}
    held = [p for group in optimizer.param_groups for p in cast("list[nn.Parameter]", group["params"])]
    strange = sum(id(p) not in mine for p in held)
    if strange:
        raise ModelError(
            f"{strange} of the optimizer's {len(held)} parameters are none of the module's: take the optimizer that "
            "goes with it, after a growth as well"
        )
    return copy.deepcopy((module, optimizer, *others))
