"""How much a network would miss each unit of a space: the measures by which pruning chooses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import torch

from growir.channels import ChannelSpace, Slot
from growir.data.shuffling import generator
from growir.growth.measure.gradients import gradients
from growir.growth.measure.magnitudes import magnitudes
from growir.params import frozen_keys, param_table

if TYPE_CHECKING:
    from growir.growth.session import Session

Importance = Literal["magnitude", "scale", "taylor", "random"]


def importances(
    session: Session, spaces: Iterable[ChannelSpace], measure: Importance, key: int
) -> Mapping[str, torch.Tensor]:
    """By the name of each space, (units,) how much each of its units counts; the least goes first.

    Args:
        session: The network.
        spaces: Of its graph.
        measure: "magnitude" is the norm of the weights that make a unit (Li et al. 2017), "scale" the size of its
            scale in norms (Liu et al. 2017); both are divided by their mean over the space, so that spaces can be
            compared. "taylor" is the change of the mean loss to first order if nothing read the unit any more
            (Molchanov et al. 2019), without its sign. "random" is drawn.
        key: Of what is drawn.
    """
    found: dict[str, torch.Tensor] = {}
    slopes = gradients(session, frozen=True) if measure == "taylor" else {}  # a frozen layer reads units, too
    products = {k: slope.double() * session.tensors[k].detach().double() for k, slope in slopes.items()}
    for turn, space in enumerate(spaces):
        if measure == "random":
            drawn = torch.rand(space.units, generator=generator(session.seed, 33, key, turn), dtype=torch.float64)
            found[space.name] = drawn.to(session.device)
        elif measure == "taylor":
            found[space.name] = _summed(products, space.consumers, space.units, session.device).abs()
        else:
            each = magnitudes(session, space) if measure == "magnitude" else _scales(session, space)
            mean = each.mean()
            found[space.name] = each / mean if mean > 0 else torch.ones_like(each)
    return found


def _scales(session: Session, space: ChannelSpace) -> torch.Tensor:
    """The norm of each unit's scales in norms; of the weights that make it where it passes none."""
    table, still = param_table(session.graph), frozen_keys(session.graph)
    squares: dict[str, torch.Tensor] = {}
    for slot in space.producers:
        param = table[slot.parameter]
        # What starts at one for every unit multiplies it.
        starts = getattr(param.init, "value", None)
        if len(param.shape) == 1 and starts == 1.0 and not param.buffer and slot.parameter not in still:
            squares[slot.parameter] = session.tensors[slot.parameter].detach().double().square()
    slots = [slot for slot in space.producers if slot.parameter in squares]
    if not slots:
        return magnitudes(session, space)
    return _summed(squares, slots, space.units, session.device).sqrt()


def _summed(
    values: Mapping[str, torch.Tensor], slots: Iterable[Slot], units: int, device: torch.device
) -> torch.Tensor:
    """(units,) the sums of what tensors have at each unit, over all slots whose tensor is there."""
    total = torch.zeros(units, dtype=torch.float64, device=device)
    for slot in slots:
        if slot.parameter in values:
            whole = values[slot.parameter]
            part = whole.chunk(slot.groups)[slot.group] if slot.groups > 1 else whole
            along = part.movedim(slot.axis, 0).flatten(1).sum(1) if part.ndim > 1 else part
            total += torch.stack([along[list(positions)].sum() for positions in slot.positions])
    return total
