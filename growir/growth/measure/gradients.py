"""Gradients of the mean loss, for policies that look at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from growir.data.source import Source

if TYPE_CHECKING:
    from growir.growth.session import Session


def gradients(session: Session, source: Source | None = None, *, frozen: bool = False) -> dict[str, torch.Tensor]:
    """The gradient of the mean loss by each learned parameter, by key and in its shape, in eval mode.

    Nothing changes: neither what was accumulated for the optimizer, nor statistics of norms.

    Args:
        session: The network.
        source: Samples, as many as growth is measured on at most; those that are trained on if None.
        frozen: Whether those that the graph freezes have theirs too.
    """
    parameters = (
        {k: t for k, t in session.tensors.items() if isinstance(t, nn.Parameter)} if frozen else session.learned
    )
    still = [parameter for parameter in parameters.values() if not parameter.requires_grad]
    for parameter in still:
        parameter.requires_grad_()
    try:
        return _gradients(session, session.data.train if source is None else source, parameters)
    finally:
        for parameter in still:
            parameter.requires_grad_(False)


def _gradients(session: Session, source: Source, parameters: Mapping[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    ready, count = session.reading.ready(source), 0
    sums = {key: torch.zeros_like(parameter) for key, parameter in parameters.items()}
    ready.module.eval()
    for batch in ready.firsts(session.config.policy.samples):
        count += len(batch)
        total = session.objective.total(ready.forward(batch), batch.target)
        # Of what reaches no output there is none; torch says so by zeros.
        found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True, materialize_grads=True)
        for sum_, gradient in zip(sums.values(), found, strict=True):
            sum_ += gradient
    session.meter.count(6.0 * session.graph.costs().macs * count)
    return {key: sum_ / count for key, sum_ in sums.items()}
