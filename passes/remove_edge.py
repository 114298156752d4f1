"""RemoveEdge: one edge fewer into a hidden state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

from growir.errors import PassRefused, cut
from growir.graph import Graph, Node, Reference, Ties
from growir.layers import channel_axis, has_bias, is_layer
from growir.nearest import suggestion
from growir.ops import Add, Bias, OpError
from growir.params import owners
from growir.passes.eliminate_dead import drops, unread_without
from growir.passes.state import find_state
from growir.rewrite import Change, Pass, Preserves, fresh_name
from growir.shapes import shapes_of


class RemoveEdge(Pass):
    """Take one edge out of a state's sum, with every node that nothing else reads.

    The function is kept where the edge gives zero. A state has one bias: if the removed layer held it, it moves to
    another edge, or to a `bias` node where no edge can take it. A sum of one value stays; canonicalise removes it.

    Attributes:
        source: The value the edge comes from; or, where several edges do, the name of one: the operand of the sum.
        target: A node of the state, as for add_edge.
    """

    name: ClassVar[str] = "remove_edge"

    source: Reference
    target: Reference

    def check(self, graph: Graph) -> None:
        total, at = self._place(graph)
        shapes = shapes_of(graph)
        where = f"{cut(total.inputs[at])} cannot be taken out of {cut(total.name)}"
        rest = [name for k, name in enumerate(total.inputs) if k != at]
        if not rest:
            raise PassRefused(
                f"{where}: it is the last edge, and a sum of nothing has no shape; remove the state's readers instead, "
                "or add another edge first"
            )
        try:
            left = total.op.infer(*(shapes[name] for name in rest))
        except OpError as error:  # what the removed one made fit
            raise PassRefused(f"{where}: {error}") from None
        if left != shapes[total.name]:
            raise PassRefused(
                f"{where}: what remains would be of shape {left}, but the state is {shapes[total.name]}; add an edge "
                "of that shape first"
            )

    def preserves(self, graph: Graph) -> Preserves:
        return Preserves.APPROXIMATE  # to what the edge adds; only measuring can tell that it is zero

    def change(self, graph: Graph, step: int) -> Change:
        total, at = self._place(graph)
        removed = total.inputs[at]
        rest = [name for k, name in enumerate(total.inputs) if k != at]
        gone = unread_without(graph, total.name, removed) if removed not in rest else set[str]()
        heir = self._bias_elsewhere(graph, total, removed, rest) if removed in gone else None
        made = [heir] if heir is not None and heir.name not in graph else []
        fed = total.with_inputs([*rest, *(node.name for node in made)])
        changed = {total.name: fed} | ({heir.name: heir} if heir is not None else {})
        nodes = [changed.get(node.name, node) for node in graph.nodes if node.name not in gone]
        # The heir is tied to the old place of the bias, which makes it the owner once that is gone.
        kept = set[str]() if heir is None else {heir.tied["bias"]}
        edits = [drop for drop in drops(graph, {node.name for node in nodes}) if drop.key not in kept]
        return Change([*nodes, *made], graph.outputs, edits, [node.name for node in made])

    def _place(self, graph: Graph) -> tuple[Node, int]:
        """The sum, and which of its operands is the edge."""
        total = graph[find_state(graph, self.target).node]
        if not isinstance(total.op, Add):
            raise PassRefused(
                f"target {cut(self.target)!r}: {cut(total.name)} is no sum of edges, so there is none to remove"
            )
        if self.source in total.inputs:
            return total, total.inputs.index(self.source)
        found = [k for k, name in enumerate(total.inputs) if self.source in _origins(graph, name)]
        if len(found) == 1:
            return total, found[0]
        edges = ", ".join(
            f"{cut(name)}{''.join(f' from {cut(origin)}' for origin in _origins(graph, name)[-1:])}"
            for name in dict.fromkeys(total.inputs)
        )
        if found:
            raise PassRefused(
                f"{len(found)} edges lead from {cut(self.source)} to {cut(total.name)}; name one as source: {edges}"
            )
        near = suggestion(self.source, (*total.inputs, *graph.consumers))
        known = "" if self.source in graph.consumers else near
        raise PassRefused(f"no edge leads from {cut(self.source)} to {cut(total.name)}; its edges are: {edges}.{known}")

    def _bias_elsewhere(self, graph: Graph, total: Node, removed: str, rest: list[str]) -> Node | None:
        """The node that takes over the bias of a removed layer: one of the other edges with a bias, or a new node."""
        carried = is_layer(graph, removed) and has_bias(graph, removed)
        if not carried or any(has_bias(graph, name) for name in rest):
            return None
        shape, axis = shapes_of(graph)[removed], channel_axis(graph, removed)
        tied = {"bias": owners(graph)[f"{removed}.bias"]}
        for name in rest:
            # Only what goes into the sum whole, once and nowhere else gives the sum its own bias.
            alone = graph.consumers[name] == (total.name,) and name not in graph.outputs and rest.count(name) == 1
            like = shapes_of(graph)[name] == shape and is_layer(graph, name) and channel_axis(graph, name) == axis
            if alone and like:
                heir = graph[name].with_op(bias=True)
                return heir.model_copy(update={"tied": Ties({**heir.tied, **tied})})
        if axis != 1:
            return None  # a bias node adds to axis 1
        op = Bias(features=shape.size(1), dims=shape.rank - 2)
        batch = graph.inputs[0].name
        return Node(name=fresh_name(graph, "bias"), op=op, inputs=(batch,), tied=tied)

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for node in graph.nodes:
            if isinstance(node.op, Add) and len(node.inputs) > 1:
                for source in dict.fromkeys(node.inputs):
                    step = cls(source=source, target=node.name)
                    if step.fits(graph):
                        yield step


def _origins(graph: Graph, edge: str) -> list[str]:
    """The values an operand comes from: what its layer reads, through the other nodes of its module."""
    found: list[str] = []
    module = edge.rpartition(".")[0]
    name = edge
    while name in graph and graph[name].inputs and not isinstance(graph[name].op, Bias):  # that reads the batch size
        name = graph[name].inputs[0]
        found.append(name)
        if not module or name.rpartition(".")[0] != module:
            break
    return found
