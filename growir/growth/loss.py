"""Means over samples and their errors: whether a loss is lower by more than chance would be."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch


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
