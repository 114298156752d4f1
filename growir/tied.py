"""Tensors that make channels and read them too, as an embedding does that is the head as well.

An embedding E makes the stream x, and is the head: logits = E (w * norm(x)). When each channel gets k equal copies, E
becomes (E, ..., E). With shares in the columns of E the stream would change. With shares s_i that sum to one in the
norm instead, the logits are the sum of E (s_i w * norm(x)), which is what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from growir.graph import Graph
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
        scales = [key for value in values for key in rule.scales.get(value, ())]
        # Nothing else may see the shares: neither another reader of the value, nor another user of the scales.
        alone = all(value in rule.scales and set(graph.consumers[value]) <= readers for value in values)
        if alone and values.isdisjoint(graph.outputs) and shared.isdisjoint(scales):
            use.consumes -= {axis}
            for taker in (rule.params[key] for key in scales):
                taker.takes |= {k for k, terms in enumerate(taker.axes) if held & set(spaces_on(read(terms)))}
