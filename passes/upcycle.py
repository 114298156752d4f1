"""Upcycle: a feed-forward part becomes a mixture of experts that all start as copies of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, StrictBool

from growir.blocks import Block, module_of
from growir.edits import AxisMap, Edit, Fresh, Pack, Remap
from growir.errors import PassRefused, cut
from growir.graph import Graph, Name, Node
from growir.layers import has_bias, is_layer, shared_tensors
from growir.ops import Constant, Experts, Linear, Mul, Shape, Slice
from growir.ops.base import MAX_INT, NonNegativeInt
from growir.ops.experts import ACTIVATION, Inner
from growir.passes.stack import Where, found
from growir.passes.state import repoint
from growir.rewrite import Change, Pass, Preserves, check_new_names, create, fresh_name
from growir.shapes import shapes_of

NONE = (
    "a feed-forward part is linear, activation, linear, or a gated one: two linear layers on one value, an activation "
    "of the one times the other, linear"
)


@dataclass(frozen=True, slots=True)
class FeedForward:
    """A feed-forward part: down(activation(up x)), or down(activation(gate x) * up x).

    Attributes:
        inward: The linear layers that read the tokens: the gate, if there is one, before the other. Of a gated part one
            layer alone makes both, the gate's units first.
        down: The linear layer at its end.
        activation: What `experts` calls its activation.
        gated: Whether it has gates.
        nodes: All of its nodes.
    """

    inward: tuple[str, ...]
    down: str
    activation: Inner
    gated: bool
    nodes: frozenset[str]


class Upcycle(Pass):
    """Make experts of a feed-forward part: copies of it, of which a new router chooses for each token.

    All experts start as the part itself. Their weights sum to one, so the function is kept whatever the router says
    (sparse upcycling, Komatsuzaki et al. 2023, arXiv 2212.05055). The router is a linear layer with drawn weights: each
    token weighs the experts in its own way, so that their gradients differ and the copies part from the first step on.

    Optimizer state goes along: of as many copies each has its part of the gradient, as if all were weighed alike.

    Attributes:
        part: The feed-forward part, as the module that it stands in or as its nodes.
        num_experts: How many experts it becomes.
        top_k: How many of them each token goes through; 0 for all.
        weights: Whether they are weighed by a softmax of the scores that are chosen, or of all: then the function
            changes where only some are chosen.
        bias: Whether the router has a bias, which starts at zero.
        module: What the module of `router` and `experts` is called. By default that of the part.
    """

    name: ClassVar[str] = "upcycle"

    part: Where
    num_experts: Annotated[int, Field(strict=True, ge=2, le=MAX_INT)]
    top_k: NonNegativeInt = 0
    weights: Literal["chosen", "all"] = "chosen"
    bias: StrictBool = False
    module: Name | None = None

    def resolved(self, graph: Graph) -> Self:
        block, _ = self._found(graph)
        return self.model_copy(update={"part": block.nodes, "module": self._module(graph, block)})

    def check(self, graph: Graph) -> None:
        block, part = self._found(graph)
        if self.top_k > self.num_experts:
            raise PassRefused(
                f"upcycle: top_k {self.top_k} is more than num_experts {self.num_experts}; choose at most all of them"
            )
        if self.top_k == 1 and self.weights == "chosen":
            raise PassRefused(
                "upcycle: one expert that is chosen alone has the weight 1 whatever its score, so the router would "
                'never learn; use top_k 2 or more, or weights "all", which changes the function'
            )
        for layer in (*part.inward, part.down):
            if users := shared_tensors(graph, layer):
                raise PassRefused(
                    f"upcycle: {cut(users[0])} uses tensors of {cut(layer)} too; what is shared cannot be stacked"
                )
        frozen = {layer: tuple(sorted(graph[layer].frozen)) for layer in part.inward}
        if len(set(frozen.values())) > 1:
            listed = ", ".join(f"{cut(layer)}: {', '.join(held) or 'nothing'}" for layer, held in frozen.items())
            raise PassRefused(f"upcycle: layers that become one tensor must be frozen alike, but are not ({listed})")
        module = self._module(graph, block)
        check_new_names(graph, "upcycle", module, self._names(module))

    def preserves(self, graph: Graph) -> Preserves:
        whole = self.weights == "chosen" or self.top_k in (0, self.num_experts)
        return Preserves.EXACT if whole else Preserves.NOTHING

    def change(self, graph: Graph, step: int) -> Change:
        block, part = self._found(graph)
        router, experts = self._names(self._module(graph, block))
        shapes = shapes_of(graph)
        biased = has_bias(graph, part.down)
        op = Experts(
            num_experts=self.num_experts,
            hidden_features=shapes[graph[part.down].inputs[0]].size(-1),
            out_features=shapes[part.down].size(-1),
            activation=part.activation,
            gated=part.gated,
            top_k=self.top_k,
            weights=self.weights,
            bias=biased,
        )
        nodes = [
            Node(name=router, op=Linear(out_features=self.num_experts, bias=self.bias), inputs=(block.input,)),
            Node(name=experts, op=op, inputs=(block.input, router), frozen=self._frozen(graph, part, op)),
        ]
        edits: list[Edit] = []
        scores = nodes[0].op.params(shapes[block.input])
        for name, param in scores.items():
            start = param if name == "weight" else replace(param, init=Constant(0.0))
            edits.append(create(f"{router}.{name}", start, self.seed, step, self.values))
        table = op.params(shapes[block.input], Shape((*shapes[block.input].dims[:-1], self.num_experts)))
        for key, sources in _sources(part, op).items():
            edits.append(Pack(f"{experts}.{key}", sources, (1, *table[key].shape[1:])))
            edits.append(Remap(f"{experts}.{key}", (_copies(self.num_experts),)))
        old, outputs = repoint(graph, block.output, experts)
        return Change([*(n for n in old if n.name not in part.nodes), *nodes], outputs, edits, (router, experts))

    def _found(self, graph: Graph) -> tuple[Block, FeedForward]:
        """The part, and what it is made of. Raises PassRefused if it is none."""
        block = found(graph, self.part, None)
        part = feed_forward(graph, block.output)
        if isinstance(part, str):
            raise PassRefused(f"upcycle: the part up to {cut(block.output)} is no feed-forward part: {part}; {NONE}")
        if other := sorted(part.nodes.symmetric_difference(block.nodes)):
            one = other[0]
            what = "belongs to it, and is not named" if one in part.nodes else "does not belong to it"
            raise PassRefused(f"upcycle: of the part up to {cut(block.output)}, {cut(one)} {what}; {NONE}")
        return block, part

    def _module(self, graph: Graph, block: Block) -> str:
        return self.module or module_of(block) or fresh_name(graph, "mixture")

    @staticmethod
    def _names(module: str) -> tuple[str, str]:
        return f"{module}.router", f"{module}.experts"

    @staticmethod
    def _frozen(graph: Graph, part: FeedForward, op: Experts) -> tuple[str, ...]:
        held = {f"{layer}.{name}" for layer in (*part.inward, part.down) for name in graph[layer].frozen}
        return tuple(sorted(name for name, sources in _sources(part, op).items() if held.issuperset(sources)))

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for node in graph.nodes:
            part = feed_forward(graph, node.name) if isinstance(node.op, Linear) else ""
            if isinstance(part, str):
                continue
            nodes = tuple(each.name for each in graph.nodes if each.name in part.nodes)
            for step in (cls(part=nodes, num_experts=2), cls(part=nodes, num_experts=3, top_k=2)):
                if step.fits(graph):
                    yield step


def _copies(count: int) -> AxisMap:
    """One position as so many copies, each with its part of the gradient."""
    return AxisMap(0, np.zeros(count, np.int64), None, np.full(count, 1 / count), Fresh(Constant(0.0)))


def _sources(part: FeedForward, op: Experts) -> Mapping[str, tuple[str, ...]]:
    """The tensors of the part that each parameter of the experts is made of."""
    found = {op.up: tuple(f"{layer}.weight" for layer in part.inward), "down_proj": (f"{part.down}.weight",)}
    if op.bias:
        found[f"{op.up}_bias"] = tuple(f"{layer}.bias" for layer in part.inward)
        found["down_proj_bias"] = (f"{part.down}.bias",)
    return found


def feed_forward(graph: Graph, down: str) -> FeedForward | str:
    """The feed-forward part that ends in a linear layer; or why there is none."""
    if not _is_linear(graph, down):
        return f"it ends in {cut(down)}, which is no linear layer with a weight of its own"
    hidden = graph[down].inputs[0]
    if hidden not in graph:
        return f"{cut(down)} reads a graph input"
    node = graph[hidden]
    if isinstance(node.op, Mul) and len(node.inputs) == 2:
        return _gated(graph, down, node)
    activation = _activation(graph, hidden)
    if activation is None:
        return f"{cut(down)} reads {cut(hidden)}, which is {node.op.kind()}; experts have {', '.join(ACTIVATION)}"
    up = node.inputs[0]
    if not _is_linear(graph, up):
        return f"{cut(hidden)} reads {cut(up)}, which is no linear layer with a weight of its own"
    return _alike(graph, FeedForward((up,), down, activation, False, frozenset((up, hidden, down))))


def _gated(graph: Graph, down: str, product: Node) -> FeedForward | str:
    # An activation may stand on either side; of two, the first is the gate's.
    for one, other in (product.inputs, product.inputs[::-1]):
        activation = _activation(graph, one)
        if activation is None:
            continue
        gate = graph[one].inputs[0]
        inside = {one, product.name, down, gate, other}
        if _is_linear(graph, gate) and _is_linear(graph, other) and graph[gate].inputs == graph[other].inputs:
            return _alike(graph, FeedForward((gate, other), down, activation, True, frozenset(inside)))
        whole = _halves(graph, gate, other)
        if whole is not None:
            return _alike(graph, FeedForward((whole,), down, activation, True, frozenset((*inside, whole))))
    return f"{cut(product.name)} is no product of an activated linear layer and another one on the same value"


def _halves(graph: Graph, gate: str, up: str) -> str | None:
    """The linear layer of whose channels these two values are the first and the second half."""
    if not (gate in graph and up in graph and graph[gate].inputs == graph[up].inputs):
        return None
    whole, first, second = graph[gate].inputs[0], graph[gate].op, graph[up].op
    if not (_is_linear(graph, whole) and isinstance(first, Slice) and isinstance(second, Slice)):
        return None
    shape = shapes_of(graph)[whole]
    half = shape.size(-1) // 2
    last = {first.axis % shape.rank, second.axis % shape.rank} == {shape.rank - 1}
    places = ((first.start, first.length), (second.start, second.length))
    return whole if last and places == ((0, half), (half, half)) else None


def _alike(graph: Graph, part: FeedForward) -> FeedForward | str:
    layers = (*part.inward, part.down)
    if len({has_bias(graph, layer) for layer in layers}) > 1:
        listed = ", ".join(cut(layer) for layer in layers if not has_bias(graph, layer))
        return f"some of its layers have a bias, and {listed} none; all or none may have one"
    return part


def _is_linear(graph: Graph, name: str) -> bool:
    return is_layer(graph, name) and isinstance(graph[name].op, Linear)


def _activation(graph: Graph, name: str) -> Inner | None:
    op = graph[name].op if name in graph else None
    return next((kind for kind, known in ACTIVATION.items() if known == op), None)
