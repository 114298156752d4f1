"""Sections of a graph: the part that computes some values from others, as a graph of its own.

The engine runs everything through sections, lowered on the live tensors: training without the constant prefix,
statistics that read inner values, line searches that only run what lies downstream of a change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from growir.backends.torch_fx.lowering import lower_tensors
from growir.graph import Graph, Input, Node, per_graph
from growir.names import allot
from growir.ops import Add
from growir.shapes import own_tables, shapes_of

Values = Mapping[str, torch.Tensor]


def section(graph: Graph, given: Sequence[str], wanted: Sequence[str], shifted: Sequence[str] = ()) -> Graph:
    """The graph that computes `wanted` from `given`.

    Args:
        graph: The whole graph.
        given: Values that become inputs, in this order.
        wanted: Values that become outputs.
        shifted: Values to which a further input each, after the given ones, is added before anything reads them.
    """
    needed: set[str] = set()
    stack = [*wanted, *shifted]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            if name not in given:
                stack.extend(graph[name].inputs)
    shapes = shapes_of(graph)
    taken = set(graph.used_names)
    renamed: dict[str, str] = {}
    inputs: list[Input] = []

    def place(name: str, stem: str) -> str:
        fresh = allot(stem, taken)
        taken.add(fresh)
        inputs.append(Input(name=fresh, shape=shapes[name].dims, dtype=shapes[name].dtype))
        return fresh

    for name in given:
        renamed[name] = place(name, "given")
    nodes: list[Node] = []
    deltas = {name: place(name, "delta") for name in shifted}

    def shift(name: str) -> None:
        if name in deltas:
            total = allot("shifted", taken)
            taken.add(total)
            nodes.append(Node(name=total, op=Add(), inputs=(renamed.get(name, name), deltas[name])))
            renamed[name] = total

    for name in given:
        shift(name)
    for node in graph.nodes:
        if node.name in needed and node.name not in given:
            nodes.append(node.with_inputs(renamed.get(i, i) for i in node.inputs))
            shift(node.name)
    outputs = tuple(renamed.get(name, name) for name in wanted)
    return Graph(name="section", inputs=tuple(inputs), nodes=tuple(nodes), outputs=outputs)


def run_section(
    graph: Graph, tensors: Values, given: Sequence[str], wanted: Sequence[str], shifted: Sequence[str] = ()
) -> Callable[..., tuple[torch.Tensor, ...]]:
    """A section lowered on live tensors, in eval mode: a function of `given` and `shifted` to a tuple of `wanted`."""
    part = section(graph, given, wanted, shifted)
    module = lower_tensors(part, tensors).eval()

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
