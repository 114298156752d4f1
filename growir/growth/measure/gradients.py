"""Gradients of the mean loss, for policies that look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from growir.data.source import Source

if TYPE_CHECKING:
    from growir.growth.session import Session


def gradients(session: Session, source: Source | None = None) -> dict[str, torch.Tensor]:
    """The gradient of the mean loss by each learned parameter, by key and in its shape, in eval mode.

    Nothing changes: neither what was accumulated for the optimizer, nor statistics of norms.

    Args:
        session: The network.
        source: Samples, as many as growth is measured on at most; those that are trained on if None.
    """
    ready = session.reading.ready(session.data.train if source is None else source)
    learned, count = session.learned, 0
    sums = {key: torch.zeros_like(parameter) for key, parameter in learned.items()}
    ready.module.eval()
    for batch in ready.firsts(session.config.policy.samples):
        count += len(batch)
        total = session.objective.total(ready.forward(batch), batch.target)
        # Of what reaches no output there is none; torch says so by zeros.
        found = torch.autograd.grad(total, list(learned.values()), allow_unused=True, materialize_grads=True)
        for sum_, gradient in zip(sums.values(), found, strict=True):
            sum_ += gradient
    session.meter.count(6.0 * session.graph.costs().macs * count)
    return {key: sum_ / count for key, sum_ in sums.items()}
