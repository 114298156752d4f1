"""Small models for the tests of importing, each a forward over a few layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import growir
from growir.network import Network


class Model(nn.Module):
    """A linear layer and whatever else is given; subclasses write the forward."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        for name, part in parts.items():
            setattr(self, name, part)

    def __getattr__(self, name: str) -> Any:  # nn.Module's says Tensor or Module
        return super().__getattr__(name)


def vectors(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)


def images(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, 6, 6, generator=torch.Generator().manual_seed(batch), dtype=torch.float64)


def imported(model: nn.Module, example: Any = None) -> Network:
    """The network of a model in float64, known to compute the same on another batch."""
    model = model.double()
    network = growir.from_torch(model, vectors() if example is None else example)
    batch = vectors(7) if example is None else torch.cat([example, example.flip(0), example[:1]])
    module = network.to_torch().eval()
    training = model.training
    with torch.no_grad():
        # A model may write into its input.
        found, wanted = module(batch.clone()), model.eval()(batch.clone())
    model.train(training)
    assert (found - wanted).abs().max() <= 1e-12 * max(1.0, float(wanted.abs().max()))
    return network


def kinds(network: Network) -> list[str]:
    """The operators in order."""
    return [node.op.kind() for node in network.graph.nodes]


def names(network: Network) -> list[str]:
    """The names of the nodes in order."""
    return [node.name for node in network.graph.nodes]
