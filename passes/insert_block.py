"""InsertBlock: a fragment of a graph put behind a value, as a residual or in sequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import BeforeValidator, InstanceOf, PlainSerializer

from growir import names
from growir.blocks import block_of, renamed
from growir.document import to_data
from growir.errors import GraphError, PassRefused, cut
from growir.graph import SCHEMA, Graph, Input, Node, Reference
from growir.layers import ranges_of
from growir.ops import Add, BatchNorm, Constant, Conv2d, Gelu, Linear, Op, Shape
from growir.params import param_table
from growir.passes.link import layer_of
from growir.passes.simplify import simplified
from growir.passes.state import check_value, is_linear, repoint
from growir.rewrite import Change, Pass, Preserves, create, fresh_name
from growir.shapes import shapes_of
from growir.verify import load, verify
from growir.zeroing import Keys, identity_at, zeros_of


def fragment(value: object) -> Graph:
    """A graph that is put into another, of a graph or its document. Raises ValueError if it is none."""
    try:
        if isinstance(value, Graph):
            return verify(value.replace(history=None))
        if isinstance(value, Mapping):
            return load({"schema": SCHEMA, **value}).replace(history=None)
    except GraphError as error:
        raise ValueError(str(error)) from None
    raise ValueError("a block is a graph, or a graph document as JSON has it")


Fragment = Annotated[InstanceOf[Graph], BeforeValidator(fragment), PlainSerializer(to_data)]


class InsertBlock(Pass):
    """Put a block behind a value, so that all that read the value read the block's.

    As a residual the value x becomes x + block(x), and the last weights of the block start at zero: the function is
    kept, in train mode too unless the block draws random numbers, and the block learns. A block that adds to what it
    reads by itself, such as a whole pre-norm block of a transformer, needs no sum around it: x becomes block(x), and
    the last weights of each of its branches start at zero. In sequence x becomes block(x) with weights as they are
    drawn, which keeps the function only where the block does nothing.

    Attributes:
        after: A graph input or node.
        block: A graph, or its document, with one input and one output of the value's shape. Its history is left out.
            Its weights start from its operators' initialisers.
        residual: Whether to add to the value rather than to replace it.
    """

    name: ClassVar[str] = "insert_block"

    after: Reference
    block: Fragment
    residual: bool = True

    def check(self, graph: Graph) -> None:
        check_value(graph, self.after, "after")
        here = shapes_of(graph)[self.after]
        where = f"a block after {cut(self.after)}"
        for what, found in (("input", [i.name for i in self.block.inputs]), ("output", self.block.outputs)):
            if len(found) != 1:
                listed = ", ".join(cut(name) for name in found)
                raise PassRefused(f"{where} has one {what}, but this one has {len(found)}: {listed}")
        if here.dtype != "float32" or not here.batched:
            raise PassRefused(f"{where} needs floats with a batch axis, but the value is {here} of {here.dtype}")
        shapes = shapes_of(self.block)
        for what, name in (("takes", self.block.inputs[0].name), ("gives", self.block.outputs[0])):
            if shapes[name] != here:
                dtype = "" if shapes[name].dtype == here.dtype else f" of {shapes[name].dtype}"
                raise PassRefused(
                    f"{where}: the value is {here}, but the block {what} {shapes[name]}{dtype} ({cut(name)}); it must "
                    "take and give the value's shape"
                )
        module = fresh_name(graph, "block")
        for node in self.block.nodes:
            if wrong := names.fault(f"{module}.{node.name}"):
                raise PassRefused(f"{where}: its node {cut(node.name)} becomes {module}.{cut(node.name)}: {wrong}")
        if self.residual:
            self._start(graph)

    def _start(self, graph: Graph) -> tuple[Keys, bool]:
        """What starts as which number, and whether the block needs a sum around it.

        Raises PassRefused if it cannot start so that it adds nothing and learns.
        """
        names = [node.name for node in self.block.nodes]
        found = zeros_of(self.block, names, self.block.outputs[0])
        if not isinstance(found, str):
            return found, True
        block = block_of(self.block, names, self.block.inputs[0].name)
        if not isinstance(block, str):
            own = identity_at(self.block, block, ranges_of(graph)[self.after], thawed=True)
            if not isinstance(own, str):
                return own, False
        raise PassRefused(
            f"a block after {cut(self.after)} cannot start at zero, as a residual does: {found}; end it in a linear "
            "layer, a convolution or a norm with weights, or use residual=False, which changes the function"
        )

    def preserves(self, graph: Graph) -> Preserves:
        if not self.residual:
            nodes, outputs = simplified(self.block)
            empty = not nodes and outputs == [self.block.inputs[0].name]
            return Preserves.EXACT if empty else Preserves.NOTHING
        module = fresh_name(graph, "block")
        starts = self._start(graph)[0].items()
        given = any(np.any(self.values.get(f"{module}.{key}", start) != start) for key, start in starts)
        return Preserves.NOTHING if given else kept_at_zero(self.block.nodes)

    def change(self, graph: Graph, step: int) -> Change:
        module = fresh_name(graph, "block")
        called = {node.name: f"{module}.{node.name}" for node in self.block.nodes}
        called[self.block.inputs[0].name] = self.after
        nodes = [renamed(node, called, {self.block.inputs[0].name: self.after}) for node in self.block.nodes]
        value = called[self.block.outputs[0]]
        zeros, adds = self._start(graph) if self.residual else (dict[str, float](), False)
        if adds:
            nodes.append(Node(name=fresh_name(graph, "sum"), op=Add(), inputs=(self.after, value)))
            value = nodes[-1].name
        edits = [
            create(
                f"{module}.{key}",
                replace(param, init=Constant(zeros[key])) if key in zeros else param,
                self.seed,
                step,
                self.values,
            )
            for key, param in param_table(self.block).items()
        ]
        old, outputs = repoint(graph, self.after, value)
        return Change([*old, *nodes], outputs, edits, [node.name for node in nodes])

    @classmethod
    def candidates(cls, graph: Graph) -> Iterator[Self]:
        for name, shape in shapes_of(graph).items():
            if is_linear(shape) and (graph.consumers[name] or name in graph.outputs):
                yield cls(after=name, block=two_layers(shape))


def kept_at_zero(nodes: Iterable[Node]) -> Preserves:
    """What is kept of a function where a block of these nodes is put that adds nothing."""
    nodes = list(nodes)
    if any(node.op.partial for node in nodes):
        return Preserves.NOTHING
    # What the block draws, others behind it and in later steps no longer do.
    return Preserves.EVAL if any(node.op.draws for node in nodes) else Preserves.EXACT


def two_layers(shape: Shape, width: int = 2) -> Graph:
    """A small block for values of a shape: two convolutions with batch norm for a map, two linear layers otherwise."""
    ops: list[Op]
    if layer_of(shape) == "conv2d":
        first = Conv2d(out_channels=width, kernel_size=3, padding=1, bias=False)
        last = Conv2d(out_channels=shape.size(1), kernel_size=3, padding=1, bias=False)
        ops = [first, BatchNorm(), Gelu(), last, BatchNorm()]
    else:
        ops = [Linear(out_features=width), Gelu(), Linear(out_features=shape.size(-1))]
    nodes: list[Node] = []
    for k, op in enumerate(ops):
        nodes.append(Node(name=f"{op.kind()}_{k}", op=op, inputs=(nodes[-1].name if nodes else "x",)))
    entry = Input(name="x", shape=("N", *shape.sizes))
    return Graph(name="block", inputs=(entry,), nodes=tuple(nodes), outputs=(nodes[-1].name,))
