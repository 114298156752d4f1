"""Gates that learn which weights are used: open or closed, with a gradient all the same.

A gate has one number m. In training it is open where m plus logistic noise is above zero, and its gradient is that of
sigmoid((m + noise) / T), the Gumbel-sigmoid with straight-through (Jang et al. 2017; GROWN, equation 6, of which the
printed form, with log sigmoid(m) in place of m, could keep no kernel with a probability above one half). In use a gate
is open where m > 0.

    m = 3    open with probability sigmoid(3) = .95 in training, always in use
"""

from __future__ import annotations

import torch

OPEN = 3.0  # what a gate of a weight that is there starts with: open with probability .95
TEMPERATURE = 0.7


def sampled(gates: torch.Tensor, generator: torch.Generator, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Zeros and ones of the gates' shape, by chance, through which gradients reach the gates.

    Args:
        gates: Their numbers.
        generator: What they are drawn by, on the CPU.
        temperature: How steep the sigmoid is that the gradient is of.
    """
    drawn = torch.rand(gates.shape, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    noise = torch.logit(drawn).to(gates)
    soft = torch.sigmoid((gates + noise) / temperature)
    return (gates + noise > 0).to(gates) + (soft - soft.detach())


def closed_or_open(gates: torch.Tensor) -> torch.Tensor:
    """Zeros and ones, as they are used."""
    return (gates > 0).to(gates)


def expected_open(gates: torch.Tensor) -> torch.Tensor:
    """How many are open in training on average: what a penalty on their number is of."""
    return torch.sigmoid(gates).sum()
