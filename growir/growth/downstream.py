"""Line searches behind a state: how far a change of its pre-activation should go."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from growir.growth.section import Values, run_section
from growir.growth.session import Session
from growir.passes.state import descendants
from growir.shapes import shapes_of

COARSE, FINE = 7, 6  # points of a line search


class Downstream:
    """The part of the network behind some states, for line searches: what lies before them is computed once.

    Args:
        session: The network.
        values: Activations on the samples that are searched on.
        wanted: Their targets.
        targets: The states.
    """

    def __init__(self, session: Session, values: Values, wanted: torch.Tensor, targets: tuple[str, ...]) -> None:
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
        frontier = list(border)
        names = session.prefix()
        before = run_section(graph, session.tensors, names, frontier) if frontier else None
        self._run = run_section(graph, session.tensors, [*top, *frontier], [session.output], targets)
        self._loss = session.loss
        self._targets = wanted
        with torch.no_grad():
            edge_values = before(*(values[name] for name in names)) if before else ()
        self._given = [*(values[t] for t in top), *edge_values]

    def _loss_at(self, shifts: Sequence[torch.Tensor], amplitude: float) -> float:
        with torch.no_grad():
            (found,) = self._run(*self._given, *(amplitude * shift for shift in shifts))
        return float(self._loss.mean(found, self._targets))

    def search(self, shifts: Sequence[torch.Tensor], limit: float) -> float:
        """The amplitude in [0, limit] of the smallest loss on the search part; 0 where none helps.

        First over two decades, then between the neighbours of the best.
        """
        losses = {0.0: self._loss_at(shifts, 0.0)}
        for amplitude in np.geomspace(1e-2 * limit, limit, COARSE):
            losses[float(amplitude)] = self._loss_at(shifts, float(amplitude))
        tried = sorted(losses)
        best = tried.index(min(tried, key=lambda a: losses[a]))
        low, high = tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]
        for amplitude in np.linspace(low, high, FINE + 2)[1:-1]:
            losses[float(amplitude)] = self._loss_at(shifts, float(amplitude))
        finite = [a for a in losses if math.isfinite(losses[a])]
        return min(finite, key=lambda a: losses[a], default=0.0)
