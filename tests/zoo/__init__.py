"""Architectures written from their papers in plain torch.nn, as users write them, small enough for every test."""

from tests.zoo.registry import ZOO, Entry, randomise

__all__ = ["ZOO", "Entry", "randomise"]
