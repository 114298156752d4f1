"""What each candidate of a gated network does to the mean loss: along the path from all gates closed, or left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from growir.data.source import Batch
from growir.growth.measure.learning import Loss

POINTS = 3  # of the path: midpoints of equal parts


def along_path(gates: torch.Tensor, loss: Loss, batches: Iterable[Batch]) -> torch.Tensor:
    """(units,) integrated gradients (Wu et al. 2020, eq. 8): s_i g_i, where all gates open together from 0 to g.

    Together they are what the candidates change the mean loss by, as far as the midpoints of three parts of the path
    say it; one forward and backward pass serves all of them.

    Args:
        gates: (units,) as they were learned.
        loss: Of gates, on a batch.
        batches: To be judged on.
    """

    def slopes(batch: Batch) -> torch.Tensor:
        total = torch.zeros_like(gates)
        for point in range(POINTS):
            there = ((2 * point + 1) / (2 * POINTS) * gates).requires_grad_()
            found = loss(there, batch)
            if found.requires_grad:  # a candidate reaches an output
                total += torch.autograd.grad(found, there)[0] / POINTS
        return total

    return _mean(slopes, batches) * gates


@torch.no_grad()
def left_out(gates: torch.Tensor, loss: Loss, batches: Iterable[Batch]) -> torch.Tensor:
    """(units,) what each changes the mean loss by where all others are open: the score of the paper to the letter.

    The integral of one gate's slope with the others open is the difference of two losses, so it takes one forward pass
    for each candidate. The arguments are those of `along_path`.
    """

    def changes(batch: Batch) -> torch.Tensor:
        whole, found = loss(gates, batch), torch.zeros_like(gates)
        for unit in range(len(gates)):
            without = gates.clone()
            without[unit] = 0.0
            found[unit] = whole - loss(without, batch)
        return found

    return _mean(changes, batches)


def _mean(each: Callable[[Batch], torch.Tensor], batches: Iterable[Batch]) -> torch.Tensor:
    """The mean over samples of what is a mean over each batch."""
    found = [(len(batch), each(batch)) for batch in batches]
    return torch.stack([count * one for count, one in found]).sum(0) / sum(count for count, _ in found)
