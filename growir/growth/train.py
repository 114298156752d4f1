"""Training on in-memory tensors, and optimizer state that grows along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from growir.backends.torch_edits import TORCH
from growir.edits import Edit
from growir.growth.loss import Loss
from growir.moments import ADAM, FreshState, carry_optimizer

State = Mapping[str, Mapping[str, torch.Tensor]]


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


def named_state(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, torch.Tensor]]:
    """The optimizer's state by parameter name."""
    return {
        key: dict(optimizer.state[parameter])
        for group in optimizer.param_groups
        for key, parameter in zip(group["names"], group["params"], strict=True)
        if parameter in optimizer.state
    }


def restore_state(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Give an optimizer the state of the parameters it has by name."""
    for group in optimizer.param_groups:
        for key, parameter in zip(group["names"], group["params"], strict=True):
            if key in state:
                optimizer.state[parameter] = dict(state[key])


def grown_state(state: State, edits: Sequence[Edit], fresh: FreshState) -> dict[str, dict[str, torch.Tensor]]:
    """AdamW's state after a rewrite's edits."""
    return carry_optimizer(edits, state, TORCH, ADAM, fresh)


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
    """Train in place and return the mean loss of the last epoch.

    Args:
        module: Computes predictions from a batch of `values`.
        loss: What is minimised.
        values: Inputs of the module, whole, each (n, ...).
        targets: (n, ...) whole.
        samples: Indices that are trained on.
        optimizer: Steps once per batch.
        epochs: Passes over `samples`.
        batch_size: Samples per step; a short last batch is kept.
        generator: Shuffles, and seeds dropout.
        scheduler: Steps once per batch, after the optimizer.
        tick: Called before each batch with the batches done and in all; it may raise to stop.
        epoch: Called after each epoch with the epochs done and in all, and the mean loss of the last.
    """
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


def predict(module: Callable[..., torch.Tensor], values: Iterable[torch.Tensor], rows: int = 8192) -> torch.Tensor:
    """Predictions for all rows, in chunks that bound the memory."""
    whole = list(values)
    with torch.no_grad():
        parts = [module(*(v[k : k + rows] for v in whole)) for k in range(0, len(whole[0]), rows)]
    return torch.cat(parts)
