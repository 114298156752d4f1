"""Sections of a graph, run on the network's own tensors, and what the data alone decides.

The engine runs everything through sections, lowered on the live tensors: training without the constant prefix,
statistics that read inner values, line searches that only run what lies downstream of a change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from growir.backends.torch_fx.lowering import lower_tensors
from growir.cutting import section
from growir.graph import Graph, per_graph
from growir.shapes import own_tables

Values = Mapping[str, torch.Tensor]


def run_section(
    graph: Graph, tensors: Values, given: Sequence[str], wanted: Sequence[str], shifted: Sequence[str] = ()
) -> Callable[..., tuple[torch.Tensor, ...]]:
    """A section lowered on live tensors, in eval mode: a function of `given` and `shifted` to a tuple of `wanted`."""
    part = section(graph, given, wanted, shifted)
    module = lower_tensors(part, tensors, form="function").eval()

    def run(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: torch.Tensor | tuple[torch.Tensor, ...] = module(*values)
        return found if isinstance(found, tuple) else (found,)

    return run


@per_graph
def constants_of(graph: Graph) -> Sequence[str]:
    """The values that no parameter touches, in document order: what the data alone decides."""
    constant = dict.fromkeys(entry.name for entry in graph.inputs)
    table = own_tables(graph)
    for node in graph.nodes:
        learned = any(not param.buffer for param in table[node.name].values()) or node.op.two_modes
        if node.inputs and not learned and all(name in constant for name in node.inputs):
            constant[node.name] = None
    return list(constant)


def constant_prefix(graph: Graph) -> list[str]:
    """The values that training cannot change and that something it can change reads: computed once per run."""
    constant = dict.fromkeys(constants_of(graph))
    read = {i for node in graph.nodes if node.name not in constant for i in node.inputs}
    return [name for name in constant if name in read or name in graph.outputs]
