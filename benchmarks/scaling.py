"""Time of channel spaces and of a widening against the number of nodes, 1 000 and 10 000, on three kinds of graph.

Torch is loaded and the garbage collector runs, as for users: among torch's objects a collection is slow, and larger
graphs cause more of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from growir.channels import analyse, channel_spaces
from growir.graph import Graph, Input, Node
from growir.ops import Add, BatchNorm, Concat, Conv2d, Flatten, Linear, Op, Relu
from growir.passes import Widen
from growir.shapes import owners
from growir.verify import verify

REPEATS = 7
SIZES = (1_000, 10_000)
DEPTH = 6  # layers of a dense block


class Draft:
    """Nodes so far, each called after its place."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, op: Op, *inputs: str) -> str:
        self.nodes.append(Node(name=f"n{len(self.nodes)}", op=op, inputs=inputs))
        return self.nodes[-1].name

    def layer(self, x: str, width: int = 8) -> str:
        return self.add(Relu(), self.add(BatchNorm(), self.add(Conv2d(out_channels=width, kernel_size=1), x)))

    def graph(self, last: str) -> Graph:
        head = self.add(Linear(out_features=2), self.add(Flatten(), last))
        entry = Input(name="x", shape=("N", 3, 2, 2))
        return verify(Graph(inputs=(entry,), nodes=tuple(self.nodes), outputs=(head,)))


def chain(size: int) -> Graph:
    draft, x = Draft(), "x"
    while len(draft.nodes) < size:
        x = draft.layer(x)
    return draft.graph(x)


def residual(size: int) -> Graph:
    draft = Draft()
    x = draft.layer("x")
    while len(draft.nodes) < size:
        x = draft.add(Add(), x, draft.layer(draft.layer(x, 4)))
    return draft.graph(x)


def dense(size: int) -> Graph:
    """Dense blocks of constant depth, each after a layer that narrows."""
    draft = Draft()
    x = draft.layer("x")
    while len(draft.nodes) < size:
        parts = [x]
        for _ in range(DEPTH):
            parts.append(draft.layer(draft.add(Concat(), *parts), 4))
        x = draft.layer(draft.add(Concat(), *parts))
    return draft.graph(x)


def seconds(graph: Graph, work: Callable[[Graph], object]) -> float:
    """Of the work alone: shapes are there, and the graph remembers nothing else."""
    fresh = graph.model_copy()
    owners(fresh)
    start = time.perf_counter()
    work(fresh)
    return time.perf_counter() - start


def widen(graph: Graph) -> object:
    """A widening with everything it needs: the spaces, the new graph, its shapes, and the edits."""
    middle = graph.nodes[len(graph.nodes) // 2]
    space = next(s for s in analyse(graph).spaces if middle.name in s.nodes and not s.pins)
    return Widen(node=space.name, by=space.stride).rewrite(graph)


def run(sizes: tuple[int, int] = SIZES, repeats: int = REPEATS) -> dict[str, Any]:
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for build in (chain, residual, dense):
        small, large = (build(size) for size in sizes)
        nodes = len(large.nodes) / len(small.nodes)
        for name, work in (("spaces", channel_spaces), ("widen", widen)):
            pairs = [(seconds(small, work), seconds(large, work)) for _ in range(repeats)]
            rows.append(
                {
                    "what": f"{name} of a {build.__name__} graph",
                    "value": statistics.median(b / a for a, b in pairs),
                    "unit": f"x for {nodes:.2f}x nodes",
                    "limit": 12.0,
                    "small ms": 1e3 * statistics.median(a for a, _ in pairs),
                    "large ms": 1e3 * statistics.median(b for _, b in pairs),
                    "repeats": repeats,
                }
            )
    return {"rows": rows}
