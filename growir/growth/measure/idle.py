"""Idle blocks: depth as width. A residual block of one unit stands everywhere, and does nothing until it gets more.

x + W2 act(W1 x), where W2 is zero (Wu et al. 2020, section 2.2): the unit between the two layers is idle, and fresh
units beside it are candidates as those of any other site. A block of which some are chosen comes with exactly those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from growir.channels import analyse
from growir.graph import Graph
from growir.growth.measure.sites import Site
from growir.params import param_table
from growir.passes import InsertLayer
from growir.passes import Sequence as Passes


def idle_layers(graph: Graph, activation: str) -> list[InsertLayer]:
    """A residual block with one unit behind each value that a layer of the graph reads, whatever layers it has."""
    analysis = analyse(graph)
    mixing = {key.rpartition(".")[0] for key, use in analysis.params.items() if use.consumes}
    read = {name for node in graph.nodes if node.name in mixing for name in node.inputs}
    found = (step for step in InsertLayer.candidates(graph) if step.residual and step.after in read)
    return [step.model_copy(update={"activation": activation, "width": 1}) for step in found]


class IdleBlocks:
    """A graph with residual blocks put in, of one unit each, or of as many as are said.

    Attributes:
        graph: The graph with them, without a history of its own.
        steps: What puts them in, in order.
        modules: What each is called in it: its parameters are "module.something".

    Args:
        graph: The graph.
        steps: Where they go.

    Raises:
        PassRefused: One does not fit.
    """

    def __init__(self, graph: Graph, steps: Sequence[InsertLayer]) -> None:
        self.steps = tuple(steps)
        self.graph = graph
        self.modules: tuple[str, ...] = ()
        if self.steps:
            done = self.step.rewrite(graph)
            self.graph = done.graph
            self.modules = tuple(dict.fromkeys(name.rpartition(".")[0] for name in done.created))

    @property
    def step(self) -> Passes:
        """All of them as one rewrite."""
        return Passes(passes=self.steps)

    @cached_property
    def keys(self) -> frozenset[str]:
        """Their parameters."""
        return frozenset(key for key in param_table(self.graph) if self.of(key) is not None)

    def of(self, key: str) -> int | None:
        """Which of them a parameter is in."""
        module = key.rpartition(".")[0].rpartition(".")[0]
        return self.modules.index(module) if module in self.modules else None

    def around(self, site: Site) -> int | None:
        """Which of them a site lies in; None where it is one of the graph's own."""
        return self.of(site.makes[0].parameter) if site.within(self.keys) else None

    def sized(self, widths: Mapping[int, int]) -> list[InsertLayer]:
        """Those that stay, with so many units each."""
        return [step.model_copy(update={"width": widths[k]}) for k, step in enumerate(self.steps) if k in widths]

    def filled(
        self, graph: Graph, numbers: Mapping[int, Mapping[str, NDArray[Any]]], widths: Mapping[int, int]
    ) -> list[InsertLayer]:
        """Those that stay, with the numbers of their units, by the keys that the idle blocks have."""
        plain = self.sized(widths)
        names = IdleBlocks(graph, plain).modules
        found: list[InsertLayer] = []
        for k, step, name in zip(sorted(widths), plain, names, strict=True):
            values = {name + key.removeprefix(self.modules[k]): array for key, array in numbers[k].items()}
            found.append(step.model_copy(update={"values": values}))
        return found
