"""Which parameters start at zero, so that a block adds nothing or gives back what it reads, and learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from growir.blocks import NORMS, Block
from growir.errors import cut
from growir.graph import Graph, Node
from growir.layers import is_layer, shared_tensors
from growir.ops import Add, Concat, MatMul, Mul, Param, Sub
from growir.ops.ranges import Range, keeps, through_zero
from growir.shapes import own_tables, owners

ENDS_IN_LAYERS: Final = frozenset({"experts"})  # operators whose own last layer gives zero where its weights are zero
VALUES: Final = frozenset({"parameter", "bias"})  # which are their own parameter

Keys = frozenset[str]


def zeros_of(graph: Graph, nodes: Sequence[str], output: str) -> Keys | str:
    """The keys of the parameters at whose zero a value is zero, and learns; or why there are none.

    They are the last on each way to it: those of a layer at its end, or of the norm behind that.

    Args:
        graph: The graph.
        nodes: The nodes that count, in topological order; what they read from outside is never zero.
        output: The one whose value is to be zero.
    """
    return _zeros(graph, nodes, thawed=False)[output]


def _zeros(graph: Graph, nodes: Sequence[str], *, thawed: bool) -> Mapping[str, Keys | str]:
    # By name, in topological order rather than by recursion: a block may be long.
    found: dict[str, Keys | str] = {}
    for name in nodes:
        node = graph[name]
        kind = node.op.kind()
        before = [found.get(value, f"its input {cut(value)} goes straight into its output") for value in node.inputs]
        table = {parameter: param for parameter, param in own_tables(graph)[name].items() if not param.buffer}
        if is_layer(graph, name) or (kind in VALUES and table) or (kind in NORMS and "weight" in table):
            found[name] = _own(graph, node, table, () if thawed else node.frozen)
        elif kind in ENDS_IN_LAYERS:
            last = {parameter: param for parameter, param in table.items() if "out" in param.axes}
            found[name] = _own(graph, node, last, () if thawed else node.frozen)
        elif isinstance(node.op, Add | Sub | Concat):
            problem = next((one for one in before if isinstance(one, str)), None)
            found[name] = problem or frozenset(key for one in before for key in one)
        elif isinstance(node.op, Mul | MatMul):
            found[name] = _product(name, before)
        elif through_zero(node.op):
            found[name] = before[0]
        else:
            found[name] = f"{cut(name)} is {kind}, which is not zero, or has no slope, where its input is zero"
    return found


def _product(name: str, before: Sequence[Keys | str]) -> Keys | str:
    """One factor is enough. Were two zero, neither would learn; so no other may be zero where this one is."""
    zero = [(k, one) for k, one in enumerate(before) if not isinstance(one, str)]
    for k, keys in reversed(zero):
        if not any(other <= keys for j, other in zero if j != k):
            return keys
    return f"{cut(name)} multiplies values that are zero together, so that none learns" if zero else before[-1]


def _own(graph: Graph, node: Node, table: Mapping[str, Param], frozen: Sequence[str]) -> Keys | str:
    if users := shared_tensors(graph, node.name):
        return f"{cut(node.name)} shares its parameters with {cut(users[0])}"
    if held := sorted(set(frozen) & set(table)):
        return f"{cut(node.name)} would stay at zero, because its {held[0]} is frozen"
    return frozenset(owners(graph)[f"{node.name}.{name}"] for name in table)


def identity_at(graph: Graph, block: Block, numbers: Range, *, thawed: bool = False) -> Keys | str:
    """The keys of the parameters at whose zero a block gives back what it reads; or why there are none.

    A block x + f(x) does where the last parameters of f are zero; relu(x + f(x)) does too where no x is negative, as
    behind the relu of the block before it.

    Args:
        graph: The graph.
        block: Where it stands.
        numbers: The range of what it reads where it is put.
        thawed: Whether what is frozen in it learns there.
    """
    zeros = _zeros(graph, block.nodes, thawed=thawed)
    found: dict[str, Keys | str] = {block.input: frozenset()}
    for name in block.nodes:
        node = graph[name]
        before = [found.get(value, f"{cut(value)} is not what the block reads") for value in node.inputs]
        kept = keeps(node.op)
        if isinstance(node.op, Add):
            found[name] = _sum(node, found, zeros)
        elif kept is None:
            found[name] = f"{cut(name)} is {node.op.kind()}, which does not give back what it reads"
        elif isinstance(before[0], str) or numbers.within(kept):
            found[name] = before[0]
        else:
            found[name] = (
                f"{cut(name)} is {node.op.kind()}, which keeps numbers from {kept}, and the block reads {numbers}"
            )
    return found[block.output]


def _sum(node: Node, same: Mapping[str, Keys | str], zeros: Mapping[str, Keys | str]) -> Keys | str:
    """One operand is what the block reads and all others are zero; of several ways the first."""
    problem = f"no operand of {cut(node.name)} is what the block reads"
    for k, value in enumerate(node.inputs):
        mine = same.get(value)
        if mine is None or isinstance(mine, str):
            continue
        rest: list[Keys] = []
        for other in (*node.inputs[:k], *node.inputs[k + 1 :]):
            keys = zeros.get(other, f"{cut(other)} is never zero")
            if isinstance(keys, str):
                problem = keys
                break
            rest.append(keys)
        else:
            return mine.union(*rest)
    return problem
