"""Problems for growth on random graphs: data, an objective and settings that any of them can be trained by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from growir.data.parts import Data
from growir.graph import Graph
from growir.growth.objective import Called
from growir.growth.problem import Problem
from growir.network import Network
from growir.params import frozen_keys, param_table, with_frozen
from growir.testing.drawing import until
from growir.testing.graphs import graphs
from growir.testing.laws import random_batch
from growir.testing.noise import noisy_graphs
from growir.verify import verify

Outputs = torch.Tensor | tuple[torch.Tensor, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]
SAMPLES = 24
LARGEST = 1e3  # of an output: beyond it a few steps of training may leave float32


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A problem that a run can be started on.

    Attributes:
        network: The start.
        problem: Data and objective.
        budget: As in a run file's [budget].
        seed: Of the run.
    """

    network: Network
    problem: Problem
    budget: Mapping[str, Any]
    seed: int


@st.composite
def drawn_problems(draw: Draw, graphs: st.SearchStrategy[Graph] | None = None) -> Drawn:
    """A graph that can be trained, some of its parameters frozen; samples for it; and a budget that it may well reach.

    Args:
        draw: Hypothesis's.
        graphs: What graphs are drawn from; if None random ones, with dropouts and without.
    """
    graph = until(draw, SMALL if graphs is None else graphs, trainable)
    learned = [key for key, param in param_table(graph).items() if not param.buffer and key not in frozen_keys(graph)]
    if len(learned) > 1 and draw(st.booleans()):
        held = draw(st.sets(st.sampled_from(learned), min_size=1, max_size=len(learned) - 1))
        frozen = verify(with_frozen(graph, {*frozen_keys(graph), *held}))
        graph = frozen if trainable(frozen) else graph  # what is left may reach no output
    seed = draw(st.integers(0, 3))
    network, batch = Network.init(graph, seed), random_batch(graph, SAMPLES, seed)
    inputs = tuple(value.float() if value.is_floating_point() else value for value in batch)
    source = torch.Generator().manual_seed(seed)
    wanted = tuple(torch.randn(value.shape, generator=source) for value in given(network, inputs))
    data = Data.from_arrays(inputs, wanted)
    return Drawn(network, Problem(data, Called(distances)), draw(budgets(graph)), seed)


def trainable(graph: Graph) -> bool:
    """Whether a graph has something to learn and finite, moderate outputs at the start."""
    learned = {key for key, param in param_table(graph).items() if not param.buffer} - frozen_keys(graph)
    if not learned or any(node.op.partial for node in graph.nodes):
        return False
    found = given(Network.init(graph, 0), random_batch(graph, SAMPLES))
    floats = [value for value in found if value.is_floating_point()]
    tame = all(bool(value.isfinite().all()) and float(value.detach().abs().max()) < LARGEST for value in floats)
    return bool(floats) and tame and any(value.requires_grad for value in floats)


def given(network: Network, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """A network's outputs on a batch, in eval mode, with their gradients' way back."""
    module = network.to_torch().eval()
    found: Outputs = module(*(value.float() if value.is_floating_point() else value for value in batch))
    return _tuple(found)


def _tuple(found: Outputs) -> tuple[torch.Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def distances(outputs: Outputs, target: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """(n,) losses: how far outputs are from their targets, with gradients of at most one."""
    parts = [
        torch.nn.functional.smooth_l1_loss(value, wanted.to(value.dtype), reduction="none").flatten(1).mean(1)
        for value, wanted in zip(_tuple(outputs), target, strict=True)
        if value.is_floating_point()
    ]
    return torch.stack(parts).sum(0)


@st.composite
def budgets(draw: Draw, graph: Graph) -> dict[str, Any]:
    """A budget with room for little or for much, in all of it and in each growth."""
    costs = graph.costs()
    found: dict[str, Any] = {"steps": draw(st.integers(2, 3))}
    if draw(st.booleans()):
        found["parameters"] = costs.parameters + draw(st.integers(1, 2 * costs.parameters + 20))
    if draw(st.booleans()):
        found["macs"] = costs.macs + draw(st.integers(1, 2 * costs.macs + 20))
    each: dict[str, Any] = {}
    if draw(st.booleans()):
        each["parameters"] = draw(st.integers(1, costs.parameters + 20))
    if draw(st.booleans()):
        each["units"] = draw(st.integers(1, 8))
    if draw(st.booleans()):
        each["layers"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        each["share"] = draw(st.sampled_from([0.25, 0.5, 1.0]))
    return {**found, "per_growth": each} if each else found


def settings_of(drawn: Drawn, policy: Mapping[str, Any]) -> dict[str, Any]:
    """The run file of a short run on a problem."""
    return {
        "name": "law",
        "seed": drawn.seed,
        "threads": 1,
        "policy": dict(policy),
        "train": {"epochs_between": 1, "epochs_final": 1, "batch_size": 8, "learning_rate_final": 3e-3},
        "budget": dict(drawn.budget),
    }


def same_bits(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two networks' arrays are the same to the bit."""
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key], equal_nan=True) for key in a)


SMALL = st.one_of(graphs(moves=4), noisy_graphs())
