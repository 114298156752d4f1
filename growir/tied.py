"""Tensors that make channels and read them too, as an embedding does that is the head as well.

An embedding E makes the stream x, and is the head: logits = E (w * norm(x)). When each channel gets k equal copies, E
becomes (E, ..., E). With shares in the columns of E the stream would change. With shares s_i that sum to one in the
norm instead, the logits are the sum of E (s_i w * norm(x)), which is what they were.

Some norms are written out, as Gemma's is: (1 + w) * norm(x). What scales there is zero at w = -1, and takes a share as
far as it is away from there: 1 + w_i = s_i (1 + w).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise

from growir.graph import Graph
from growir.ops import Affine, Mul, Parameter
from growir.ops.rule import Rule
from growir.ops.spaces import Axis, Space, spaces_on
from growir.shapes import owners


def hand_shares_over(graph: Graph, rule: Rule, uniform: Collection[Space], read: Callable[[Axis], Axis]) -> None:
    """Let the norm in front of a tied tensor take the shares that the tensor cannot, wherever only the tensor reads it.

    Args:
        graph: The graph.
        rule: What its operators' rules said; who consumes and who takes shares is changed in it.
        uniform: The spaces that are normalised as a whole.
        read: An axis in terms of spaces as they are in the end.
    """
    both = [(use, key, axis) for key, use in rule.params.items() for axis in sorted(use.consumes & use.produces)]
    tied = [each for each in both if any(space in uniform for space in spaces_on(read(each[0].axes[each[2]])))]
    if not tied:
        return
    shared = {owner for key, owner in owners(graph).items() if key != owner}
    for use, key, axis in tied:
        held = set(spaces_on(read(use.axes[axis])))
        readers = {node for node, place in rule.readers[key] if place == axis}
        values = {graph[node].inputs[0] for node in readers}
        scales = {value: _scales(graph, rule, value) for value in values}
        takers = {key: zero for found in scales.values() for key, zero in found.items()}
        places = {
            key: {k for k, terms in enumerate(rule.params[key].axes) if held & set(spaces_on(read(terms)))}
            for key in takers
        }
        # Nothing else may see the shares: neither another reader of the value, nor another user of the scales.
        alone = all(scales[value] and set(graph.consumers[value]) <= readers for value in values)
        if alone and all(places.values()) and values.isdisjoint(graph.outputs) and shared.isdisjoint(takers):
            use.consumes -= {axis}
            for key, zero in takers.items():
                rule.params[key].takes |= places[key]
                rule.params[key].zero = zero


def _scales(graph: Graph, rule: Rule, value: str) -> Mapping[str, float]:
    """The parameters that a value is a multiple of, each with the number at which it scales by zero; or none.

    A parameter that is a factor of a product is used for nothing else.
    """
    node = graph.by_name.get(value)
    if value in rule.scales:
        return dict.fromkeys(rule.scales[value], 0.0)
    for name in node.inputs if node is not None and isinstance(node.op, Mul) else ():
        way, zero = [value, name], 0.0
        op = graph[name].op if name in graph else None
        if isinstance(op, Affine) and op.scale:
            way, zero = [*way, *graph[name].inputs], -op.shift / op.scale
        last = graph.by_name.get(way[-1])
        alone = all(set(graph.consumers[a]) == {b} and a not in graph.outputs for b, a in pairwise(way))
        if alone and last is not None and isinstance(last.op, Parameter) and not last.op.buffer:
            return {rule.sources[last.name].key: zero}
    return {}
