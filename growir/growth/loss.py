"""Losses, as sums over samples; every gain a policy reports is in units of their mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import torch
import torch.nn.functional as F


def mean_and_error(each: torch.Tensor) -> tuple[float, float]:
    """The mean of one number a sample, and its standard error."""
    found = each.double()
    return float(found.mean()), float(found.std(correction=0)) / math.sqrt(len(found))


def certainly_positive(differences: torch.Tensor, rate: float) -> bool:
    """Whether the mean of differences is above zero, by a one-sided test at this probability of error."""
    return certain(*mean_and_error(differences), rate)


def certain(gain: float, error: float, rate: float) -> bool:
    """Whether a gain with this standard error is above zero, by a one-sided test at this probability of error."""
    # Of the probability itself, since 1 minus a very small one is 1.
    return rate == 1 or gain > -NormalDist().inv_cdf(rate) * error


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
