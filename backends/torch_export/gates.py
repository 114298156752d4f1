"""A model with its gates open: parameters that hold one number throughout get numbers, so that nothing hides behind."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch
from torch import nn


@contextlib.contextmanager
def opened(model: nn.Module) -> Generator[None, None, None]:
    """Change in place, and change back, every parameter that is constant or almost: zero gates, scales of norms.

    A residual branch whose scale starts at zero gives zero whatever it computes.
    """
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and _flat(parameter.detach()):
                kept.append((parameter, parameter.detach().clone()))
                drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
                parameter.copy_(parameter.detach() + (0.2 + 0.3 * drawn).to(parameter.dtype))
    try:
        yield
    finally:
        with torch.no_grad():
            for changed, before in kept:
                changed.copy_(before)


def _flat(parameter: torch.Tensor) -> bool:
    if not parameter.numel():
        return False
    return bool((parameter - parameter.flatten()[0]).abs().max() <= 1e-4)
