"""What the candidates of a gated network learn before they are judged: their directions and their gates.

Wu et al. 2020 (Firefly), step one of algorithm 1: gradient steps on gates and directions together, while the weights of
the network stay. Gates stay within [-eps, eps], directions within their ball.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from growir.addresses import Address
from growir.data.nests import tensors_of
from growir.data.shuffling import Shuffle
from growir.data.source import Batch, Source
from growir.errors import DataError, RunError
from growir.graph import Graph
from growir.growth.measure.gated import Gated
from growir.growth.objective import full_precision

if TYPE_CHECKING:
    from growir.growth.reading import Ready
    from growir.growth.session import Session

Loss = Callable[[torch.Tensor, Batch], torch.Tensor]  # of gates, on a batch: a mean


class Directed(Protocol):
    """Candidates behind gates, of which each has directions that learn with it."""

    @property
    def directions(self) -> Mapping[Address, torch.Tensor]:
        """Tensors that are trained in place."""
        ...

    @property
    def spreads(self) -> Mapping[Address, float]:
        """By how much each is spread where a layer starts: the standard deviation of its initialiser."""
        ...

    def gates(self, value: float = 0.0) -> torch.Tensor:
        """(units,) one number for each candidate."""
        ...

    def bound(self) -> None:
        """Shorten directions that are too long."""
        ...


def training_batches(session: Session, *key: int) -> Iterator[Batch]:
    """Batches that are trained on, as the whole network takes them: one epoch after another, without an end.

    Raises:
        DataError: The data gives none.
    """
    ready = session.reading.whole(session.data.train)
    yield from endless(ready, session.train_config.batch_size or 64, Shuffle(key))


def endless(source: Source | Ready, size: int, shuffle: Shuffle) -> Iterator[Batch]:
    """Batches of a source, one epoch after another, without an end.

    Raises:
        DataError: It gives none.
    """
    for epoch in itertools.count():
        some = False
        for batch in source.batches(size, shuffle, epoch):
            some = True
            yield batch
        if not some:
            raise DataError("growing: the training data gives no batch; give one sample or more")


@contextmanager
def batch_statistics(module: nn.Module, graph: Graph) -> Generator[None]:
    """Have norms over the batch take their statistics from it, and all else as in eval mode.

    A fresh unit's running mean and variance are 0 and 1, whatever it computes: by those it could not be judged. Dropout
    would draw from torch's own generator. All parts are in the modes of before at the end.
    """
    parts = list(module.modules())
    modes = [part.training for part in parts]
    module.eval()
    for node in graph.nodes:
        if node.op.over_batch:
            module.get_submodule(node.name).train()
    try:
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def mean_loss(session: Session, gated: Gated, *, finite: bool = True) -> Loss:
    """The mean loss of a batch with the candidates in place, as a function of their gates.

    It raises a RunError where the loss is not finite, unless `finite` is false; nothing has changed then.
    """
    macs = gated.over.graph.costs().macs

    def loss(gates: torch.Tensor, batch: Batch) -> torch.Tensor:
        session.meter.count(6.0 * macs * len(batch))
        outputs = full_precision(gated(gates, *tensors_of(batch.inputs)))
        found = session.objective.total(outputs, batch.target) / len(batch)
        return finite_loss(found) if finite else found

    return loss


def finite_loss(loss: torch.Tensor) -> torch.Tensor:
    """A loss, if it is finite. Raises RunError if not."""
    if not math.isfinite(value := float(loss.detach())):
        raise RunError(
            f"growing: the loss is {value} where candidates are measured, so none can be judged, and the network "
            "stays as it was; look for NaN or huge numbers in the data and in weights"
        )
    return loss


def learned(gated: Directed, loss: Loss, batches: Iterable[Batch], *, eps: float, rate: float) -> torch.Tensor:
    """The gates after a step of Adam for each batch; the directions of the gated network learn in place.

    Args:
        gated: The candidates.
        loss: Of gates, on a batch.
        batches: One for each step.
        eps: The largest gates. They start at half of it, where splits have a slope.
        rate: The step, as a part of the largest gate, and of the spread of each direction's initialiser.

    Raises:
        RunError: The loss is not finite.
    """
    gates, directions = gated.gates(eps / 2).requires_grad_(), gated.directions
    gated.bound()
    groups = [{"params": [d], "lr": rate * gated.spreads[address]} for address, d in directions.items()]
    optimizer = torch.optim.Adam([{"params": [gates], "lr": rate * eps}, *groups])
    for direction in directions.values():
        direction.requires_grad_()
    for batch in batches:
        found = loss(gates, batch)
        if not found.requires_grad:  # no candidate reaches an output
            break
        optimizer.zero_grad()
        found.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        with torch.no_grad():
            gates.clamp_(-eps, eps)
        gated.bound()
    for direction in directions.values():
        direction.requires_grad_(False)
        direction.grad = None
    return gates.detach()
