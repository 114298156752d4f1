"""How large the weights are that make each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from growir.channels import ChannelSpace

if TYPE_CHECKING:
    from growir.growth.session import Session


def magnitudes(session: Session, space: ChannelSpace) -> torch.Tensor:
    """(units,) the norm of the weights that make each unit of a space, over all layers that make it.

    Biases and scales of norms are left out: a channel whose kernel is zero says nothing of its inputs.
    """
    squares = torch.zeros(space.units, dtype=torch.float64, device=session.device)
    for slot in space.producers:
        weight = session.tensors[slot.parameter].detach().double()
        if weight.ndim < 2:
            continue
        part = weight.chunk(slot.groups)[slot.group] if slot.groups > 1 else weight
        along = part.square().movedim(slot.axis, 0).flatten(1).sum(1)
        squares += torch.stack([along[list(positions)].sum() for positions in slot.positions])
    return squares.sqrt()
