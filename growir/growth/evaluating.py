"""How a network does on a source: the loss of each sample, and what a user reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from growir.data.nests import joined, tensors_of
from growir.data.source import Batch
from growir.growth.objective import Objective, Outputs, means

KEPT = 2 * 10**7  # numbers of predictions that are kept, to be looked at together
ROWS = 8192  # samples that go forward together, of small ones


@dataclass(frozen=True, slots=True, eq=False)
class Evaluated:
    """How a network does on some samples.

    Attributes:
        losses: (n,) of each sample, on the CPU.
        metrics: The mean loss, and accuracy or squared error where the objective has such.
    """

    losses: torch.Tensor
    metrics: dict[str, float]


def rows_at_once(elements: int) -> int:
    """How many samples of so many numbers each go forward together, so that memory stays bounded."""
    return max(1, min(ROWS, KEPT // max(elements, 1)))


@torch.no_grad()
def evaluate(forward: Callable[[Batch], Outputs], objective: Objective, batches: Iterable[Batch]) -> Evaluated:
    """Walk through batches; the last ones are looked at together, as far as their predictions fit.

    Sums of float32 depend on where they are cut, so small data gives the same numbers however it comes in batches.
    """
    losses: list[torch.Tensor] = []
    found: list[tuple[int, dict[str, float]]] = []
    kept: list[tuple[Outputs, Any]] = []
    held = 0

    def settle() -> None:
        nonlocal held
        if kept:
            outputs: Outputs = joined([predicted for predicted, _ in kept])
            target = joined([wanted for _, wanted in kept])
            losses.append(objective.each(outputs, target).cpu())
            found.append((len(losses[-1]), means(objective, outputs, target)))
        kept.clear()
        held = 0

    for batch in batches:
        outputs = forward(batch)
        size = sum(tensor.numel() for tensor in tensors_of((outputs, batch.target)))
        if held + size > KEPT:
            settle()
        kept.append((outputs, batch.target))
        held += size
    settle()
    return Evaluated(torch.cat(losses) if losses else torch.zeros(0), _mean(found))


def _mean(found: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """The mean over pieces of so many samples; of one piece as it is, since a product and a quotient would round."""
    if len(found) <= 1:
        return found[0][1] if found else {}
    total = sum(count for count, _ in found)
    return {name: sum(count * each[name] for count, each in found) / total for name in found[0][1]}
