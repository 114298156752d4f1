"""InsertBlock: a fragment of a graph put behind a value, as a residual or in sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, Self

import numpy as np
from pydantic import BeforeValidator, InstanceOf, PlainSerializer

from growir import names
from growir.document import to_data
from growir.errors import GraphError, PassRefused, cut
from growir.graph import SCHEMA, Graph, Input, Node, Reference, Ties
from growir.ops import Add, BatchNorm, Concat, Constant, Conv2d, Gelu, Linear, Mul, Op, Param, Shape, Sub
from growir.ops.ranges import through_zero
from growir.params import owners, param_table
from growir.passes.layers import is_layer, shared_tensors
from growir.passes.link import layer_of
from growir.passes.simplify import simplified
from growir.passes.state import check_value, is_linear, repoint
from growir.rewrite import Change, Pass, Preserves, create, fresh_name
from growir.shapes import own_tables, shapes_of
from growir.verify import load, verify

NORMS: Final = frozenset({"batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"})
VALUES: Final = frozenset({"parameter", "bias"})  # which are their own parameter
# Where an input may make them infinite or NaN, zero times what they give is not zero.
PARTIAL: Final = frozenset({"pow", "exp", "log", "sqrt", "rsqrt", "div"})


def _fragment(value: object) -> Graph:
    try:
        if isinstance(value, Graph):
            return verify(value.replace(history=None))
        if isinstance(value, Mapping):
            return load({"schema": SCHEMA, **value}).replace(history=None)
    except GraphError as error:
        raise ValueError(str(error)) from None
    raise ValueError("a block is a graph, or a graph document as JSON has it")


Fragment = Annotated[InstanceOf[Graph], BeforeValidator(_fragment), PlainSerializer(to_data)]


class InsertBlock(Pass):
    """Put a block behind a value, so that all that read the value read the block's.

    As a residual the value x becomes x + block(x), and the last weights of the block start at zero: the function is
    kept, in train mode too unless the block draws random numbers, and the block learns. In sequence x becomes block(x),
    which keeps the function only where the block does nothing.

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
            self._zeros()

    def _zeros(self) -> frozenset[str]:
        """The keys of the block's last parameters. Raises PassRefused if it cannot start at zero and learn."""
        found = _last_parameters(self.block)
        if isinstance(found, str):
            raise PassRefused(
                f"a block after {cut(self.after)} cannot start at zero, as a residual does: {found}; end it in a "
                "linear layer, a convolution or a norm with weights, or use residual=False, which changes the function"
            )
        return found

    def preserves(self, graph: Graph) -> Preserves:
        if not self.residual:
            nodes, outputs = simplified(self.block)
            empty = not nodes and outputs == [self.block.inputs[0].name]
            return Preserves.EXACT if empty else Preserves.NOTHING
        module = fresh_name(graph, "block")
        given = any(np.any(self.values.get(f"{module}.{key}", 0)) for key in self._zeros())
        partial = any(node.op.kind() in PARTIAL for node in self.block.nodes)
        if given or partial:
            return Preserves.NOTHING
        # What the block draws, others behind it and in later steps no longer do.
        return Preserves.EVAL if any(node.op.draws for node in self.block.nodes) else Preserves.EXACT

    def change(self, graph: Graph, step: int) -> Change:
        module = fresh_name(graph, "block")
        called = {node.name: f"{module}.{node.name}" for node in self.block.nodes}
        called[self.block.inputs[0].name] = self.after
        nodes = [_renamed(node, module, called) for node in self.block.nodes]
        value = called[self.block.outputs[0]]
        zeros = self._zeros() if self.residual else frozenset[str]()
        if self.residual:
            nodes.append(Node(name=fresh_name(graph, "sum"), op=Add(), inputs=(self.after, value)))
            value = nodes[-1].name
        edits = [
            create(
                f"{module}.{key}",
                replace(param, init=Constant(0.0)) if key in zeros else param,
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


def _renamed(node: Node, module: str, called: Mapping[str, str]) -> Node:
    changes: dict[str, Any] = {
        "name": called[node.name],
        "inputs": tuple(called[name] for name in node.inputs),
        "tied": Ties({name: f"{module}.{owner}" for name, owner in node.tied.items()}),
    }
    return node.model_copy(update=changes)


def _last_parameters(block: Graph) -> frozenset[str] | str:
    """The keys of parameters with which the output is zero, and learns from there; or why there are none."""
    # By name, in topological order rather than by recursion: a block may be long.
    found: dict[str, frozenset[str] | str] = {
        entry.name: f"its input {cut(entry.name)} goes straight into its output" for entry in block.inputs
    }
    for node in block.nodes:
        kind = node.op.kind()
        before = [found[name] for name in node.inputs]
        table = {name: param for name, param in own_tables(block)[node.name].items() if not param.buffer}
        if is_layer(block, node.name) or kind in VALUES or (kind in NORMS and "weight" in table):
            found[node.name] = _own_parameters(block, node, table)
        elif isinstance(node.op, Add | Sub | Concat):
            problem = next((one for one in before if isinstance(one, str)), None)
            found[node.name] = problem or frozenset(key for one in before for key in one)
        elif isinstance(node.op, Mul):
            # One factor is enough; were two zero, neither would learn.
            zero = [one for one in before if not isinstance(one, str)]
            found[node.name] = zero[-1] if zero else before[-1]
        elif through_zero(node.op):
            found[node.name] = before[0]
        else:
            found[node.name] = (
                f"{cut(node.name)} is {kind}, which is not zero, or has no slope, where its input is zero"
            )
    return found[block.outputs[0]]


def _own_parameters(block: Graph, node: Node, table: Mapping[str, Param]) -> frozenset[str] | str:
    if users := shared_tensors(block, node.name):
        return f"{cut(node.name)} shares its parameters with {cut(users[0])}"
    if held := sorted(set(node.frozen) & set(table)):
        return f"{cut(node.name)} would stay at zero, because its {held[0]} is frozen"
    return frozenset(owners(block)[f"{node.name}.{name}"] for name in table)


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
