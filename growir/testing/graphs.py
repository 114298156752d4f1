"""Strategies: random small graphs over all operators, and a pass's candidates on one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray

from growir.channels import analyse
from growir.edits import Create, Edit, Remap
from growir.graph import Graph, Input
from growir.ops import (
    ACTIVATIONS,
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    BatchNorm,
    Bias,
    Concat,
    Constant,
    Conv2d,
    Detach,
    Dropout,
    Flatten,
    Identity,
    LayerNorm,
    Linear,
    MaxPool2d,
    Mul,
    Op,
    OpError,
    Parameter,
    Prelu,
    Relu,
    Reshape,
    Select,
    Shape,
    Sigmoid,
    Slice,
    Softmax,
    Standardise,
)
from growir.passes import AddNode, Extend, Prune, Split, Widen
from growir.passes.state import is_linear
from growir.rewrite import Pass
from growir.shapes import shapes_of
from growir.testing.blocks import BLOCKS, BLOCKS_ON_IMAGES, BLOCKS_ON_ROWS, adapted
from growir.testing.sketch import SMOOTH, Move, Sketch, divisors
from growir.verify import verify

P = TypeVar("P", bound=Pass)


def _dense(s: Sketch, x: str) -> str:
    return s.activation(s.add(Linear(out_features=s.width(), bias=s.flag()), x))


def _conv(s: Sketch, x: str) -> str:
    groups = s.one_of(divisors(s.shapes[x].size(1)))
    kernel: int | tuple[int, int] = (2, 1) if s.number(0, 4) == 4 else s.one_of((1, 3))
    out = groups * s.number(1, 3)
    padding, stride = s.number(0, 1), s.one_of((1, 1, 2))
    op = Conv2d(out_channels=out, kernel_size=kernel, padding=padding, stride=stride, groups=groups, bias=s.flag())
    return s.activation(s.add(op, x))


def _depthwise(s: Sketch, x: str) -> str:
    return s.add(Conv2d(kernel_size=3, padding=1, depthwise=True, multiplier=s.number(1, 3), bias=s.flag()), x)


def _norm(s: Sketch, x: str) -> str:
    if s.number(0, 2) == 0:
        affine = s.flag()
        return s.add(LayerNorm(dims=s.number(1, s.shapes[x].rank - 1), elementwise_affine=affine), x)
    return s.add(BatchNorm(affine=s.flag(), track_running_stats=s.number(0, 3) > 0), x)


def _normalised(s: Sketch, x: str) -> str:
    """A layer with a batch norm right behind it, as most convolutions have."""
    if s.shapes[x].rank == 4:
        layer: Op = Conv2d(out_channels=s.width(), kernel_size=3, padding=1, bias=s.flag())
        if s.flag():
            layer = Conv2d(kernel_size=3, padding=1, depthwise=True, multiplier=s.number(1, 2), bias=s.flag())
    else:
        layer = Linear(out_features=s.width(), bias=s.flag())
    return s.activation(s.add(BatchNorm(affine=s.flag()), s.add(layer, x)))


def _prelu(s: Sketch, x: str) -> str:
    if s.smooth:
        raise OpError("has a kink")
    return s.add(Prelu(num_parameters=s.one_of((1, s.shapes[x].size(1)))), x)


def _dropout(s: Sketch, x: str) -> str:
    return s.add(Dropout(p=s.one_of((0.5, 0.0))), x)


def _layer(s: Sketch, x: str, out: Shape) -> str:
    """A layer from x to a given shape."""
    if s.shapes[x].rank == 4 and s.flag():
        return s.add(Conv2d(out_channels=out.size(1), kernel_size=3, padding=1), x)
    return s.add(Linear(out_features=out.size(-1)), x)


def _residual(s: Sketch, x: str) -> str:
    inner = _layer(s, _dense(s, x) if s.shapes[x].rank != 4 else _conv(s, x), s.shapes[x])
    return s.add(Add(), *((x, inner) if s.flag() else (inner, x)))


def _stage(s: Sketch, x: str) -> str:
    """Equal blocks one behind the other, numbered in a module, residual or not."""
    shape, width, activation = s.shapes[x], s.width(), ACTIVATIONS[s.one_of(SMOOTH)]
    if not is_linear(shape):
        raise OpError("no layer leads here")
    on_maps, residual, norm, last = shape.rank == 4 and s.flag(), s.flag(), s.flag(), s.flag() and not s.smooth
    module = f"stage_{len(s.nodes)}"
    for k in range(s.number(2, 3)):
        s.module = f"{module}.{k}."
        value = x
        for out in (width, shape.size(1 if on_maps else -1)):
            value = s.add(activation(), value) if value != x else value
            layer: Op = Conv2d(out_channels=out, kernel_size=3, padding=1) if on_maps else Linear(out_features=out)
            value = s.add(layer, value)
        value = s.add(LayerNorm(), value) if norm else value
        value = s.add(Add(), x, value) if residual else value
        x = s.add(Relu(), value) if last else value
    return x


def _cell(s: Sketch, x: str) -> str:
    """A cell of two nodes, called as cells are: on its edges layers with inner channels, activations, identities."""
    shape = s.shapes[x]
    if not is_linear(shape):
        raise OpError("no layer leads here")
    cell, activation = f"cell_{len(s.nodes)}", ACTIVATIONS[s.one_of(SMOOTH)]
    states = [s.add(activation(), x, called=f"{cell}.preprocess{k}.act") for k in range(2)]
    for node in (2, 3):
        summed: list[str] = []
        for k in range(s.number(2, 3)):
            source = s.number(0, node - 1)
            at = f"{cell}.edge_{source}_{node}.op{k}"
            kind = s.number(0, 3)
            if kind == 0:
                summed.append(states[source])
            elif kind == 1:
                summed.append(s.add(activation(), states[source], called=f"{at}.act"))
            else:
                inner = s.add(Linear(out_features=s.width()), states[source], called=f"{at}.inner")
                summed.append(s.add(Linear(out_features=shape.size(-1)), inner, called=f"{at}.outer"))
        states.append(s.add(Add(), *summed, called=f"{cell}.node_{node}"))
    return s.add(Concat(), *states[2:], called=f"{cell}.out")


def _join(s: Sketch, x: str) -> str:
    other = s.like(x, lambda a, b: a.batched and a.dims == b.dims and a.dtype == b.dtype)
    names = [x, other] if s.flag() else [other, x]
    return s.add(s.one_of((Add, Mul))(), *names)


def _gate(s: Sketch, x: str) -> str:
    shape = s.shapes[x]
    gate = x
    if shape.rank == 4:
        gate = s.add(Conv2d(out_channels=s.one_of((shape.size(1), 1)), kernel_size=1), s.add(AdaptiveAvgPool2d(), x))
    else:
        gate = s.add(Linear(out_features=s.one_of((shape.size(-1), 1))), x)
    return s.add(Mul(), *((x, s.add(Sigmoid(), gate)) if s.flag() else (s.add(Sigmoid(), gate), x)))


def _concat(s: Sketch, x: str) -> str:
    axis = s.number(1, s.shapes[x].rank - 1)

    def fits(a: Shape, b: Shape) -> bool:
        return (
            a.rank == b.rank
            and a.dtype == b.dtype
            and all(m == n for k, (m, n) in enumerate(zip(a.dims, b.dims, strict=True)) if k != axis)
        )

    parts = [x, s.like(x, fits)]
    return s.add(Concat(dim=axis if s.flag() else axis - s.shapes[x].rank), *(parts if s.flag() else parts[::-1]))


def _slice(s: Sketch, x: str) -> str:
    axis = s.number(1, s.shapes[x].rank - 1)
    size = s.shapes[x].size(axis)
    start = s.number(0, size - 1)
    if s.number(0, 3) == 0:
        return s.add(Select(axis=axis, indices=tuple(s.number(0, size - 1) for _ in range(s.number(1, 4)))), x)
    return s.add(Slice(axis=axis, start=start, length=s.number(1, size - start)), x)


def _halves(s: Sketch, x: str) -> str:
    """Two parts, swapped: a shuffle that slices and joins."""
    size = s.shapes[x].size(1)
    if size < 2:
        raise OpError("nothing to cut")
    at = s.number(1, size - 1)
    head, tail = s.add(Slice(length=at), x), s.add(Slice(start=at, length=size - at), x)
    return s.add(Concat(), tail, s.activation(head) if s.flag() else head)


def _reshape(s: Sketch, x: str) -> str:
    sizes = list(s.shapes[x].sizes)
    if s.flag():
        k = s.number(0, len(sizes) - 1)
        part = s.one_of(divisors(sizes[k]))
        sizes[k : k + 1] = [part, sizes[k] // part]
    if s.flag() and len(sizes) > 1:
        k = s.number(0, len(sizes) - 2)
        sizes[k : k + 2] = [sizes[k] * sizes[k + 1]]
    if s.flag():
        sizes[s.number(0, len(sizes) - 1)] = -1
    return s.add(Reshape(shape=tuple(sizes)), x)


def _flatten(s: Sketch, x: str) -> str:
    rank = s.shapes[x].rank
    start = s.number(1, rank - 1)
    return s.add(Flatten(start_dim=start, end_dim=s.number(start, rank - 1)), x)


def _pool(s: Sketch, x: str) -> str:
    average = AvgPool2d(kernel_size=2, stride=s.number(1, 2), padding=s.number(0, 1), count_include_pad=s.flag())
    if s.smooth or s.flag():
        return s.add(average if s.flag() else AdaptiveAvgPool2d(output_size=s.one_of((1, 2))), x)
    return s.add(MaxPool2d(kernel_size=2, stride=s.number(1, 2), ceil_mode=s.flag()), x)


def _value(s: Sketch, x: str) -> str:
    """A parameter or a bias as an operand."""
    sizes = s.shapes[x].sizes
    if s.flag():
        return s.add(Add(), x, s.add(Bias(features=sizes[0], dims=len(sizes) - 1), x))
    first = s.number(0, len(sizes) - 1)
    shape = tuple(1 if s.number(0, 3) == 0 else size for size in sizes[first:])
    return s.add(s.one_of((Add, Mul))(), x, s.add(Parameter(shape=shape)))


def _weight(s: Sketch, x: str) -> str:
    """A parameter, or a part of one, as a layer's weight; perhaps as a value too."""
    shape = s.shapes[x]
    out = s.width()
    if shape.rank == 4 and s.flag():
        return s.add(Conv2d(padding=1, bias=s.flag()), x, s.add(Parameter(shape=(out, shape.size(1), 2, 3))))
    spare = s.number(0, 2)
    weight = s.add(Parameter(shape=(out, shape.size(-1) + spare)))
    if spare:
        weight = s.add(Slice(axis=1, start=s.number(0, spare), length=shape.size(-1)), weight)
    if s.number(0, 4) == 0:
        weight = s.add(s.one_of((Identity(), Detach())), weight)  # a computed weight, and one that does not learn here
    value = s.add(Linear(bias=s.flag()), x, weight)
    if out == s.shapes[x].size(-1) and s.flag() and shape.rank == 3 and shape.size(1) == out:
        value = s.add(Add(), value, weight)
    return value


def _stopped(s: Sketch, x: str) -> str:
    """A value that hands no gradient back, perhaps beside one that does."""
    kept = s.add(Detach(), x)
    return s.add(Add(), s.like(x, lambda a, b: a == b), kept) if s.flag() else kept


def _tied(s: Sketch, x: str) -> str:
    """An earlier layer once more, with the same parameters or only the same weight."""
    reused = [
        (node, s.shapes[node.inputs[0]])
        for node in s.nodes
        if len(node.inputs) == 1 and not node.tied and node.op.params(s.shapes[node.inputs[0]])
    ]
    if not reused:
        raise OpError("nothing to share")
    node, before = s.one_of(reused[-3:])
    table = node.op.params(before)
    names = list(table) if s.flag() else list(table)[:1]
    node.op.infer(s.shapes[x])
    if node.op.params(s.shapes[x]) != table:
        x = s.like(node.inputs[0], lambda a, b: a.dims == b.dims)
    return s.add(node.op, x, tied={name: f"{node.name}.{name}" for name in names})


def _softmax(s: Sketch, x: str) -> str:
    return s.add(Softmax(dim=s.number(1, s.shapes[x].rank - 1)), x)


def _standardise(s: Sketch, x: str) -> str:
    return s.add(Standardise(dims=s.number(0, s.shapes[x].rank - 1), inverse=s.flag()), x)


ANYWHERE: tuple[Move, ...] = (
    _dense, _norm, _normalised, _prelu, _residual, _join, _gate, _concat, _slice, _halves, _reshape, _flatten, _value,
    _weight, _tied, adapted
)  # fmt: skip
SELDOM: tuple[Move, ...] = (_softmax, _standardise, _dropout, _stopped)
ON_IMAGES: tuple[Move, ...] = (_conv, _conv, _conv, _depthwise, _pool, *BLOCKS_ON_IMAGES)


@st.composite
def graphs(draw: Callable[[st.SearchStrategy[Any]], Any], *, moves: int = 7, smooth: bool = False) -> Graph:
    """Random valid graphs over all operators: residual, gated, concatenated, sliced, grouped, shared, with dead ends.

    Args:
        draw: Hypothesis's.
        moves: At most so many layers or blocks.
        smooth: No activation or pool with a kink, so that gradients are as stable as values.
    """
    s = Sketch(draw, smooth)
    inputs = [Input(name="x", shape=("N", *s.one_of(((3,), (1,), (2, 3), (2, 4, 4), (3, 5, 4), (1, 4, 4)))))]
    if s.number(0, 3) == 3:
        inputs.append(Input(name="side", shape=inputs[0].shape))
    if s.number(0, 7) == 7:
        inputs.append(Input(name="ids", shape=("N", 3), dtype="int64"))
        s.shapes["ids"] = Shape(("N", 3), "int64")
    for entry in inputs:
        s.shapes[entry.name] = Shape(entry.shape, entry.dtype)
    if "ids" in s.shapes and s.flag():
        s.add(s.one_of((Identity(), Bias(features=3))), "ids")
    values = ["x"]
    if s.flag():
        values.append(_normalised(s, "x"))
    for _ in range(s.number(2, moves)):
        # Mostly go on from the newest value; whatever nobody reads in the end is a dead end.
        x = values[-1] if s.number(0, 3) else s.one_of(values)
        choices = s.one_of((ANYWHERE, ANYWHERE, ANYWHERE, BLOCKS, ANYWHERE + SELDOM))
        if s.shapes[x].rank == 4 and s.flag():
            choices = ON_IMAGES
        elif s.shapes[x].rank == 3 and s.flag():
            choices = BLOCKS_ON_ROWS
        s.module = f"block_{len(s.nodes)}." if s.number(0, 4) == 4 else ""
        try:
            values.append(s.one_of(choices)(s, x))
        except OpError:
            continue
    s.module = ""
    if s.number(0, 3) == 3:
        with suppress(OpError):
            values.append(_stage(s, values[-1]))
        s.module = ""
    if s.number(0, 3) == 3:
        with suppress(OpError):
            values.append(_cell(s, values[-1]))
    if s.number(0, 4):
        # A head over everything: widths behind it are free unless something inside pins them.
        flat = s.add(Flatten(), values[-1]) if s.shapes[values[-1]].rank > 2 else values[-1]
        values.append(s.add(Linear(out_features=2), flat))
    results = [values[-1]]
    batched = [name for name in s.shapes if s.shapes[name].batched]
    if s.number(0, 5) == 5:
        results.append(s.one_of(batched))
    return verify(Graph(inputs=tuple(inputs), nodes=tuple(s.nodes), outputs=tuple(results)))


@st.composite
def candidates(draw: Callable[[st.SearchStrategy[Any]], Any], kind: type[P], graph: Graph) -> P:
    """One of a pass's candidates on a graph, or a variation: other amounts, copies, seeds, or given values.

    Draws nothing valid, so that hypothesis tries another graph, where the pass has no candidates.
    """
    found: list[Pass] = list(kind.candidates(graph))
    assume(found)
    chosen: int = draw(st.integers(0, len(found) - 1))
    pass_ = found[chosen]
    changes: dict[str, Any] = {"seed": draw(st.integers(0, 2))}
    if isinstance(pass_, Widen):
        changes |= _more_or_copies(draw, pass_, graph)
    elif isinstance(pass_, Extend):
        changes |= _other_entries(draw, pass_, graph)
    elif isinstance(pass_, Split | Prune):
        changes |= _other_channels(draw, pass_, graph)
    elif isinstance(pass_, AddNode):
        changes |= {"width": draw(st.integers(1, 3)), "activation": draw(st.sampled_from(sorted(ACTIVATIONS)))}
        if pass_.out_pool:
            changes["out_pool"] = draw(st.sampled_from(["global_avg", "flatten"]))
        channels_behind = shapes_of(graph)[pass_.target].rank > 2 and pass_.link(graph).axis == -1
        if not channels_behind and draw(st.booleans()):
            changes["norm"] = "batch_norm"
    pass_ = kind.model_validate({**pass_.model_dump(), **changes})
    if draw(st.integers(0, 3)) == 3:
        done = pass_.rewrite(graph)
        blocks = {k: v for k, v in pass_.blocks(done.graph, done.edits).items() if k in _drawn(done.edits)}
        if blocks:
            key = draw(st.sampled_from(sorted(blocks)))
            rng = np.random.default_rng(draw(st.integers(0, 9)))
            values: dict[str, NDArray[Any]] = {key: rng.normal(size=blocks[key])}
            pass_ = kind.model_validate({**pass_.model_dump(), "values": values})
    return pass_


def _more_or_copies(draw: Callable[[st.SearchStrategy[Any]], Any], pass_: Widen, graph: Graph) -> dict[str, Any]:
    space = analyse(graph).find(pass_.node, graph)
    times = draw(st.integers(1, 3))
    if not pass_.copies:
        return {"by": space.stride * times}
    units = times * space.growth[space.space]
    copies = draw(st.lists(st.integers(0, space.units - 1), min_size=units, max_size=units))
    shares: list[float] = []
    if draw(st.booleans()):
        shares = [draw(st.floats(0.05, 0.3)) for _ in copies]
    return {"by": space.stride * times, "copies": tuple(copies), "shares": tuple(shares)}


def _other_entries(draw: Callable[[st.SearchStrategy[Any]], Any], pass_: Extend, graph: Graph) -> dict[str, Any]:
    found = pass_.held(graph)
    times = draw(st.integers(1, 3))
    units = times * found.space.growth[found.space.space]
    changes: dict[str, Any] = {"by": found.stride * times}
    if pass_.copies:
        copies = draw(st.lists(st.integers(0, found.space.units - 1), min_size=units, max_size=units))
        return {**changes, "copies": tuple(copies)}
    read = found.kind == "input" and found.space.consumers
    return {**changes, "fresh": draw(st.sampled_from([None, "zero", "drawn" if read else "mean"]))}


def _other_channels(
    draw: Callable[[st.SearchStrategy[Any]], Any], pass_: Split | Prune, graph: Graph
) -> dict[str, Any]:
    space = analyse(graph).find(pass_.node, graph)
    pruned = isinstance(pass_, Prune)
    each = (space.shrink if pruned else space.growth)[space.space]
    # One unit stays; and of other spaces that change with it, too.
    most = min((s.size - pruned) // n for s, n in (space.shrink if pruned else space.growth).items())
    count = each * draw(st.integers(1, max(1, min(most, 3))))
    return {"channels": tuple(draw(st.permutations(range(space.units)))[:count])}


def _drawn(edits: Sequence[Edit]) -> set[str]:
    """Addresses of fresh blocks that are not zero by default: any numbers do there."""
    found: set[str] = set()
    for edit in edits:
        if isinstance(edit, Create) and not isinstance(edit.fresh.init, Constant):
            found.add(edit.address)
        elif isinstance(edit, Remap):
            drawn = {part.axis for part in edit.axes if not isinstance(part.fresh.init, Constant)}
            found |= {
                place.address
                for place in edit.places
                if len(place.at) == 1 and place.at.keys() <= drawn and not place.partners
            }
    return found
