"""Cells as graphs: one as a fragment, and a stack of them as a network."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from growir.cells.operations import OPERATIONS, Spot, factorized_reduce, pointwise
from growir.cells.plan import INPUTS, KINDS, Kind, Plan
from growir.drafting import Draft
from growir.errors import GraphError, cut
from growir.graph import Graph
from growir.images import to_maps
from growir.ops import Add, BatchNorm, Concat, Conv2d, Flatten, Linear, Relu, Standardise
from growir.ops.pool import AdaptiveAvgPool2d

MOST_CELLS: Final = 1000
BEFORE: Final = ("s0", "s1")  # what a cell reads as a fragment: what the last but one gave, and what the last gave


def cell(plan: Plan, kind: Kind, shape: Sequence[int]) -> Graph:
    """A cell as a graph of its own, with two inputs of one shape.

    Args:
        plan: A genotype or a template.
        kind: "normal" keeps the size of maps, "reduce" halves it.
        shape: (C, H, W) of both inputs; every node has as many channels.

    Raises:
        GraphError: The operations do not fit each other.
    """
    sizes = tuple(shape)
    if len(sizes) != 3 or not all(type(size) is int and size > 0 for size in sizes):
        raise GraphError(f"a cell reads maps, (C, H, W), but shape is {cut(repr(shape))}")
    if kind not in KINDS:
        raise GraphError(f"kind is {cut(repr(kind))}, but a cell is one of {', '.join(KINDS)}")
    draft = Draft(dict.fromkeys(BEFORE, sizes))
    put_cell(draft, "", plan, kind, *BEFORE, width=shape[0])
    return draft.graph(kind)


def put_cell(draft: Draft, module: str, plan: Plan, kind: Kind, s0: str, s1: str, *, width: int) -> str:
    """Put a cell into a graph on its way; its output, as many times `width` channels as states are joined.

    Nodes are called edge_I_J.OPERATION.PART, for what leads from state I to node J, node_J and out, behind the module.
    """
    at = f"{module}." if module else ""
    states, summed = [s0, s1], dict[int, list[str]]()
    names = set[str]()
    edges = plan.edges(kind)
    for node in range(INPUTS, 1 + max(edge.target for edge in edges)):
        for edge in edges:
            if edge.target != node:
                continue
            stride = 2 if kind == "reduce" and edge.source < INPUTS else 1
            name, again = f"{at}edge_{edge.source}_{node}", 1
            while f"{name}.{edge.operation}" in names:  # a genotype may name one twice
                again += 1
                name = f"{at}edge_{edge.source}_{node}_{again}"
            names.add(f"{name}.{edge.operation}")
            spot = Spot(draft, f"{name}.{edge.operation}", states[edge.source], width, stride, plan.inner)
            value = OPERATIONS[edge.operation](spot)
            if value is None:
                continue
            if value not in draft:
                raise GraphError(
                    f"{kind}: {edge} gives {cut(repr(value))}, but an operation gives the name of its last node, or "
                    "None"
                )
            height, across = draft.shape(states[edge.source]).sizes[1:]
            wanted = (width, -(-height // stride), -(-across // stride))
            if draft.shape(value).sizes != wanted:
                raise GraphError(
                    f"{kind}: {edge} gives {draft.shape(value)}, but node {node} is "
                    f"({', '.join(map(str, ('N', *wanted)))}); an operation gives {width} channels, and maps of a size "
                    f"divided by its stride, {stride}"
                )
            summed.setdefault(node, []).append(value)
        if node not in summed:
            raise GraphError(f"{kind}: no operation leads to node {node}; of its edges one must not be none")
        states.append(draft.add(f"{at}node_{node}", Add(), *summed[node]))
    return draft.add(f"{at}out", Concat(), *(states[state] for state in plan.concat(kind)))


def block(plan: Plan, kind: Kind, before_shape: Sequence[int], shape: Sequence[int], width: int) -> Graph:
    """A cell with what brings its inputs to its width, as a graph that the pass `stack` puts behind other cells.

    Args:
        plan: A genotype or a template.
        kind: "normal" keeps the size of maps, "reduce" halves it.
        before_shape: (C, H, W) of the input s0, what the last cell but one gave. Its maps may be twice as large.
        shape: (C, H, W) of the input s1, what the last cell gave.
        width: Channels of each node.

    Raises:
        GraphError: The shapes are not those of maps, or do not fit each other or the operations.
    """
    for name, given in zip(BEFORE, (before_shape, shape)):
        if len(given) != 3:
            raise GraphError(f"{name} is {tuple(given)}, but a cell reads maps, (C, H, W)")
    draft = Draft(dict(zip(BEFORE, (before_shape, shape))))
    sizes, halves = tuple(before_shape[1:]), tuple(-(-size // 2) for size in before_shape[1:])
    if tuple(shape[1:]) not in (sizes, halves):
        raise GraphError(
            f"s0 is {draft.shape('s0')} and s1 is {draft.shape('s1')}; the maps of s0 are as large as those of s1, or "
            "twice as large"
        )
    if kind == "reduce":
        _check_halving(draft, "the cell", BEFORE[-1])
    put_next(draft, "", plan, kind, *BEFORE, width=width)
    return draft.graph(kind)


def network(
    plan: Plan,
    shape: Sequence[int],
    classes: int,
    *,
    cells: int = 20,
    width: int = 36,
    stem: int = 3,
    reductions: Collection[int] | None = None,
    standardised: bool = False,
    name: str = "cells",
) -> Graph:
    """A stack of cells between a stem and a linear head, as DARTS evaluates them (Liu et al. 2018, section 3.2).

    Each cell reads what the two before it gave, both brought to its width by a convolution. Its nodes are called
    normal.K.* or reduce.K.*, where K counts all cells from 0.

    Args:
        plan: A genotype or a template.
        shape: Of an image: (C, H, W), (H, W, C) or (H, W).
        classes: Outputs of the head.
        cells: How many.
        width: Channels of each node of the first cells; each reduction doubles them.
        stem: As many times `width` channels has the stem.
        reductions: Which cells halve the size; by default those at a third and two thirds.
        standardised: Whether a node in front takes one mean from all numbers and divides them by one std.
        name: Of the graph.

    Raises:
        GraphError: The shape is not that of images, or too small to be halved so often, or a number is wrong.
    """
    for what, value, most in (
        ("cells", cells, MOST_CELLS),
        ("width", width, 100_000),
        ("stem", stem, 1000),
        ("classes", classes, 10_000_000),
    ):
        if type(value) is not int or not 1 <= value <= most:
            raise GraphError(f"{what} is {value!r}, but a number from 1 to {most:,} is needed")
    halving = {cells // 3, 2 * cells // 3} if reductions is None else set(reductions)
    if wrong := sorted(k for k in halving if type(k) is not int or not 0 <= k < cells):
        raise GraphError(f"reductions names cell {cut(wrong[0])}, but {cells} cells are 0 to {cells - 1}")
    draft = Draft({"image": shape})
    for op in to_maps(tuple(shape)):
        draft.add("map", op)
    if standardised:
        draft.add("standard", Standardise(dims=0))
    draft.add("stem.conv", Conv2d(out_channels=stem * width, kernel_size=3, padding=1, bias=False))
    s0 = s1 = draft.add("stem.norm", BatchNorm())
    for k in range(cells):
        kind: Kind = "reduce" if k in halving else "normal"
        if kind == "reduce":
            width *= 2
            _check_halving(draft, f"cell {k}", s1)
        s0, s1 = s1, put_next(draft, f"{kind}.{k}", plan, kind, s0, s1, width=width)
    draft.add("pool", AdaptiveAvgPool2d(output_size=1))
    draft.add("flat", Flatten())
    draft.add("head", Linear(out_features=classes))
    return draft.graph(name)


def _check_halving(draft: Draft, who: str, value: str) -> None:
    if min(draft.shape(value).sizes[1:]) < 2:
        raise GraphError(f"{who} cannot halve maps of {draft.shape(value)}; give fewer reductions, or larger images")


def put_next(draft: Draft, module: str, plan: Plan, kind: Kind, s0: str, s1: str, *, width: int) -> str:
    """Put a cell behind others, with what brings their outputs to its width and to one size; its output."""
    at = f"{module}." if module else ""
    made: list[str] = []
    for k, value in enumerate((s0, s1)):
        spot = Spot(draft, f"{at}preprocess{k}", value, width)
        if draft.shape(value).sizes[1:] != draft.shape(s1).sizes[1:]:
            made.append(factorized_reduce(spot))
        else:
            made.append(spot.chain(relu=Relu(), conv=pointwise(width), norm=BatchNorm()))
    return put_cell(draft, module, plan, kind, made[0], made[1], width=width)
