"""The training loop, the loss and the optimizer as they first were: what they gave, to the bit, is what runs give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True, slots=True)
class Loss:
    """Cross-entropy, or half the squared error in units of the targets' standard deviation.

    Attributes:
        task: Which one.
        scale: (outputs,) the targets' standard deviation; unused for classes.
    """

    task: Literal["classification", "regression"]
    scale: torch.Tensor

    def each(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of each sample: prediction (n, outputs), target (n,) classes or (n, outputs)."""
        if self.task == "classification":
            return F.cross_entropy(prediction, target, reduction="none")
        # The mean over outputs keeps the loss near 1/2 at the start, however many there are.
        return 0.5 * ((prediction - target) / self.scale).square().mean(dim=1)

    def total(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The summed loss of a batch."""
        if self.task == "classification":
            return F.cross_entropy(prediction, target, reduction="sum")
        return self.each(prediction, target).sum()

    def mean(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss per sample."""
        return self.total(prediction, target) / len(target)

    def metrics(self, prediction: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        """What a user reads: the loss, and accuracy or the mean squared error in the targets' own units."""
        found = {"loss": float(self.mean(prediction, target))}
        if self.task == "classification":
            found["accuracy"] = float((prediction.argmax(dim=1) == target).double().mean())
        else:
            found["mse"] = float((prediction.double() - target).square().mean())
        return found


def make_optimizer(parameters: Mapping[str, nn.Parameter], rate: float, decay: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and kernels only; every group knows its parameters' names."""
    matrices = [(key, p) for key, p in parameters.items() if p.ndim > 1]
    vectors = [(key, p) for key, p in parameters.items() if p.ndim <= 1]
    groups = [
        {"params": [p for _, p in chosen], "names": [key for key, _ in chosen], "weight_decay": amount}
        for chosen, amount in ((matrices, decay), (vectors, 0.0))
        if chosen
    ]
    nothing: list[dict[str, Any]] = [{"params": [], "names": []}]  # torch takes an empty group, but no empty list
    return torch.optim.AdamW(groups or nothing, lr=rate, fused=True)


def train(
    module: nn.Module,
    loss: Loss,
    values: Sequence[torch.Tensor],
    targets: torch.Tensor,
    samples: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
    epoch: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> float:
    """Train in place and return the mean loss of the last epoch."""
    module.train()
    count = len(samples)
    bounds = [*range(0, count, batch_size), count]
    # Batch norm cannot take a single sample: the last batch of one joins the one before.
    if len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        del bounds[-2]
    total = torch.zeros(())
    done = 0
    # Dropout draws from torch's own generator, which must be as reproducible as the shuffling.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        for k in range(epochs):
            total = torch.zeros(())
            order = samples[torch.randperm(count, generator=generator)]
            for start, stop in pairwise(bounds):
                tick(done, epochs * (len(bounds) - 1))
                batch = order[start:stop]
                summed = loss.total(module(*(value[batch] for value in values)), targets[batch])
                optimizer.zero_grad(set_to_none=True)
                (summed / len(batch)).backward()  # type: ignore[no-untyped-call]  # torch's own stub
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
                total += summed.detach()
                done += 1
            epoch(k + 1, epochs, float(total) / count)
    return float(total) / count
