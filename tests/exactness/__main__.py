"""The exactness table: for each operator and pass, the worst error met when the pass changes a graph that has it.

    python -m tests.exactness

measures anew and writes docs/exactness.md. Graphs are every operator's examples between layers, and random ones of the
kind that the laws are tested on; passes are tried where they say they can be applied.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, settings

from growir.graph import Graph
from growir.network import Network
from growir.ops import OPS
from growir.passes import PASSES, Prune
from growir.rewrite import Pass
from growir.testing import Deviation, Probe, deviations, example_graph, graphs, masked, random_batch, random_network
from growir.testing import worst as worst_of
from tests.laws.test_ops import CASES

TABLE = Path(__file__).parent.parent.parent / "docs" / "exactness.md"
PER_GRAPH = 4  # candidates of a pass that are tried on one graph
HEAD = """# How exact the passes are

Each cell is the worst error of any output, as a part of its largest value, in float64: in eval mode / in train mode.
Measured over every operator's examples and {random} random graphs, where the operator stands together with others, so
that an error belongs to the whole graph. Only what a pass promises is measured: `exact` in both modes, `eval` in one;
`prune` is compared with the network that only does not read the channels. A dash: never promised with this operator.
The last column is the worst error of any gradient. `.venv/bin/python -m tests.exactness` writes this file.

"""

Worst = dict[tuple[str, str, bool, bool], float]
Batch = tuple[torch.Tensor, ...]


def tries(graph: Graph) -> Iterator[Pass]:
    """Some candidates of every pass on a graph."""
    for kind in PASSES:
        yield from itertools.islice(kind.candidates(graph), PER_GRAPH)


def measure(graph: Graph, worst: Worst) -> None:
    """Note the errors of every pass under each operator of a graph."""
    kinds = {node.op.kind() for node in graph.nodes}
    before, batch = random_network(graph), random_batch(graph)
    for step in tries(graph):
        found = masking(step, before, batch) if isinstance(step, Prune) else deviations(step, before, batch)
        for each in found:
            for kind in kinds:
                key = (kind, step.name, each.train, each.gradient)
                worst[key] = max(worst.get(key, 0.0), each.error)


def masking(step: Prune, before: Network, batch: Batch) -> Iterator[Deviation]:
    """How far a pruned network is from the one that only does not read the channels."""
    space = step.space(before.graph)
    if space.uniform or space.tied or space.partial:
        return
    probes = Probe(masked(before, step)), Probe(before.apply(step))
    for train in (False, True):
        (wanted, _), (found, _) = (probe.run(batch, train=train) for probe in probes)
        if not (train and space.random):
            for name, a, b in zip(before.graph.outputs, wanted, found, strict=True):
                yield Deviation(train, False, name, worst_of(a, b))


def measured(random: int) -> Worst:
    """The worst errors over all operators' examples and some random graphs."""
    worst: Worst = {}
    for op, k, side in CASES:
        measure(example_graph(op.examples()[k], side), worst)

    @settings(
        max_examples=random,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(graphs())
    def over(graph: Graph) -> None:
        measure(graph, worst)

    over()
    return worst


def power(error: float | None) -> str:
    """An error as the reader compares them: 0, or a power of ten not below it."""
    if error is None:
        return "–"
    return "0" if error == 0 else f"1e{math.ceil(math.log10(error))}"


def table(worst: Worst, random: int) -> str:
    """The page."""
    names = [kind.name for kind in PASSES if any(key[1] == kind.name for key in worst)]
    lines = ["| op | " + " | ".join(f"`{name}`" for name in names) + " | gradients |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for op in OPS:
        cells: list[str] = []
        for name in names:
            pair = [worst.get((op.kind(), name, train, False)) for train in (False, True)]
            cells.append("–" if pair == [None, None] else " / ".join(power(error) for error in pair))
        slopes = [error for key, error in worst.items() if key[0] == op.kind() and key[3]]
        lines.append(f"| `{op.kind()}` | " + " | ".join(cells) + f" | {power(max(slopes, default=None))} |")
    return HEAD.format(random=random) + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.exactness", description="Measure and write the table.")
    parser.add_argument("--random", type=int, default=300, metavar="N", help="random graphs [default: 300]")
    random = parser.parse_args().random
    torch.set_num_threads(1)
    TABLE.write_text(table(measured(random), random), encoding="utf-8")
    print(TABLE)


if __name__ == "__main__":
    main()
