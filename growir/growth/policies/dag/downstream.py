"""Line searches behind a state: how far a change of its pre-activation should go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from growir.growth.measure.section import Values, run_section
from growir.growth.session import Session
from growir.passes.state import descendants
from growir.shapes import shapes_of

COARSE, FINE = 5, 3  # points of a line search
SMALLEST = 1e-2  # where it starts, of the limit


class Search(NamedTuple):
    """What a line search found.

    Attributes:
        amplitude: Where the loss is smallest.
        small: The smallest amplitude that was tried.
        gained: How much the mean loss falls there, where first-order predictions must hold.
    """

    amplitude: float
    small: float
    gained: float


class Behind:
    """The part of the network behind some states, lowered once for all samples.

    Args:
        session: The network.
        targets: The states.

    Attributes:
        macs: Multiply-accumulates per sample.
    """

    def __init__(self, session: Session, targets: tuple[str, ...]) -> None:
        graph = session.graph
        later: set[str] = set()
        for target in targets:
            later |= descendants(graph, target) - {target}
        top = [t for t in targets if t not in later]
        inner = later | set(top)
        shapes = shapes_of(graph)
        # Weights as values have no batch axis; the section holds them itself.
        border = dict.fromkeys(
            i for node in graph.nodes if node.name in later for i in node.inputs if i not in inner and shapes[i].batched
        )
        self._top, self._frontier = top, list(border)
        self._names = session.reading.prefix()
        self._computed = [name for name in border if name not in self._names]
        self._before = run_section(graph, session.tensors, self._names, self._computed) if self._computed else None
        self.run = run_section(graph, session.tensors, [*top, *border], [session.output], targets)
        costs = graph.costs().nodes
        self.macs = sum(costs[name].macs for name in later)
        self.objective = session.objective

    def given(self, values: Values) -> list[torch.Tensor]:
        """What is read of some samples: the states, and what else their followers read."""
        known: Values = {name: values[name] for name in self._frontier if name in self._names}
        if self._before is not None:
            with torch.no_grad():
                found = self._before(*(values[name] for name in self._names))
            known = {**known, **dict(zip(self._computed, found, strict=True))}
        return [*(values[name] for name in self._top), *(known[name] for name in self._frontier)]


class Downstream:
    """What lies behind some states on some samples, for line searches: what lies before them is computed once.

    Args:
        behind: The part of the network.
        values: Activations on the samples that are searched on.
        wanted: Their targets.

    Attributes:
        flops: Floating-point operations of a search; after the first, one of its points is known.
    """

    def __init__(self, behind: Behind, values: Values, wanted: torch.Tensor) -> None:
        # Two operations a multiply-accumulate, at each point of a search.
        self.flops = 2.0 * (COARSE + FINE + 1) * len(wanted) * behind.macs
        self._run, self._objective = behind.run, behind.objective
        self._targets = wanted
        self._given = behind.given(values)
        self._unmoved: float | None = None

    def losses(self, shifts: Sequence[torch.Tensor], amplitude: float = 1.0) -> torch.Tensor:
        """The loss of each sample with the states moved by their shifts."""
        with torch.no_grad():
            (found,) = self._run(*self._given, *(amplitude * shift for shift in shifts))
        return self._objective.each((found,), self._targets)

    def search(self, shifts: Sequence[torch.Tensor], limit: float) -> Search:
        """The amplitude in [0, limit] of the smallest loss; 0 where none helps.

        First over two decades, then between the neighbours of the best.
        """

        def loss_at(amplitude: float) -> float:
            return float(self.losses(shifts, amplitude).double().mean())

        # Where no candidate moves anything all have one loss. But zero times infinity is no number.
        finite_shifts = all(bool(shift.isfinite().all()) for shift in shifts)
        unmoved = self._unmoved if finite_shifts else None
        if unmoved is None:
            unmoved = loss_at(0.0)
        if finite_shifts:
            self._unmoved = unmoved
        losses = {0.0: unmoved}
        for amplitude in (SMALLEST * limit, *np.geomspace(SMALLEST * limit, limit, COARSE)[1:]):
            losses[float(amplitude)] = loss_at(float(amplitude))
        small = SMALLEST * limit
        gained = losses[0.0] - losses[small]
        for _ in range(FINE):
            between = _between(losses)
            losses[between] = loss_at(between)
        finite = [a for a in losses if math.isfinite(losses[a])]
        return Search(min(finite, key=lambda a: losses[a], default=0.0), small, gained)


def _between(losses: Mapping[float, float]) -> float:
    """Where a parabola through the best amplitude and its neighbours is lowest, or the middle of the wider gap."""
    tried = sorted(losses)
    at = tried.index(min(tried, key=lambda a: losses[a] if math.isfinite(losses[a]) else math.inf))
    if at in (0, len(tried) - 1):
        return (tried[0] + tried[1]) / 2 if at == 0 else (tried[-2] + tried[-1]) / 2
    low, best, high = tried[at - 1 : at + 2]
    left, right = (losses[low] - losses[best]) / (best - low), (losses[high] - losses[best]) / (high - best)
    # The slopes of both chords; the parabola's vertex lies where its slope is zero.
    vertex = best + 0.5 * (left * (high - best) - right * (best - low)) / max(left + right, 1e-300)
    if math.isfinite(vertex) and low < vertex < high and vertex not in losses:
        return vertex
    return (low + best) / 2 if best - low > high - best else (best + high) / 2
