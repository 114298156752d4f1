"""Which sizes of the example became numbers: the model and its network, run side by side on inputs of other sizes.

Most operators of a graph take whatever size comes, as those of the model do. But a size that the model computes with is
a number in the graph: x.sum(1) / x.shape[1] divides by 5 for ever. No single call tells, since what follows may make
the number immaterial (a view to [5, 8] that is part of a flatten). So both are run, with every gate of the model open:
an axis is free if the model takes other sizes of it and the network gives the same there.

For an axis of size 7, the model is asked for 8, 6, 14, 10 and so on. Where it refuses all of them, its network has
refused them too, or the axis is fixed. Axes that only change together (the tokens of two inputs, height and width of a
square) are found among those of one size that the model refuses alone.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple

import torch
from torch import nn

from growir.backends.torch_export.comparing import Closeness, alike, tensors_of
from growir.backends.torch_export.decisions import Decision, decisions
from growir.backends.torch_export.exporting import as_exported, failure
from growir.backends.torch_export.gates import opened
from growir.backends.torch_export.preparing import Prepared
from growir.backends.torch_export.uses import first_use
from growir.backends.torch_fx.lowering import lower_tensors
from growir.costs import costs_of
from growir.graph import FixedSize, Graph
from growir.ops import OpError, Select, Shape, Slice
from growir.shapes import shapes_of

MAX_WHY = 1000  # characters
CHEAP = 10**8  # multiply-accumulates for a sample; above it fewer sizes are tried
DEAR = 3 * 10**9  # about as many at which a single size is not tried any more
# Rounding alone, as a part of the largest output: more than in the comparison on the example, for sums are longer.
_CLOSE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


class Axis(NamedTuple):
    """An axis of an input."""

    input: int
    axis: int


Sizes = Mapping[Axis, int]


class Verdict(Enum):
    """What model and network do on inputs of some sizes."""

    SAME = auto()
    BOTH_REFUSE = auto()
    NETWORK_REFUSES = auto()  # in torch's words
    APART = auto()  # other numbers, or numbers where the model refuses


@dataclass(frozen=True, slots=True)
class Trial:
    """One comparison: its sizes and what came of it; why the model refused them, and the line to blame, if known."""

    sizes: Sizes
    verdict: Verdict
    refusal: str = ""
    line: str = ""


def fixed_sizes(
    prepared: Prepared,
    graph: Graph,
    tensors: Mapping[str, torch.Tensor],
    names: Sequence[str],
    lines: Mapping[str, str],
    dtypes: Collection[torch.dtype],
) -> list[FixedSize]:
    """The axes of the graph's inputs for which only the example's size gives what the model gives.

    Args:
        prepared: The model and its example.
        graph: What it became.
        tensors: The graph's tensors by key, in the very memory of the model's.
        names: What the model calls the graph's inputs.
        lines: The model's line for each node of the graph.
        dtypes: The float dtypes that the model computes in; the coarsest says how close the two can be.
    """
    with paired(prepared, graph, tensors, names, dtypes) as pair:
        if pair is not None:
            return _entries(graph, lines, pair, _found(pair, graph))
    return all_fixed(graph, "the model does not give the same twice, so that other sizes cannot be compared")


@contextlib.contextmanager
def paired(
    prepared: Prepared,
    graph: Graph,
    tensors: Mapping[str, torch.Tensor],
    names: Sequence[str],
    dtypes: Collection[torch.dtype],
) -> Generator[Pair | None, None, None]:
    """The model and its network side by side, with every gate open if they can be; None where they are not alike."""
    close = max((_CLOSE.get(dtype, 1e-3) for dtype in dtypes), default=0.0)
    with as_exported():
        pair = Pair(prepared, lower_tensors(graph, tensors, torch.device("cpu")).eval(), names, close)
        with opened(prepared.model):
            if pair.trial({}).verdict is Verdict.SAME:
                yield pair
                return
        # A tensor of the network is no view of the model's: weights as they are.
        yield pair if pair.trial({}).verdict is Verdict.SAME else None


def all_fixed(graph: Graph, why: str) -> list[FixedSize]:
    """Every axis, for an import that was not compared."""
    axes = [(entry.name, axis) for entry in graph.inputs for axis in range(1, len(entry.shape))]
    return [FixedSize(input=name, axis=axis, why=why) for name, axis in axes]


def _entries(graph: Graph, lines: Mapping[str, str], pair: Pair, found: Mapping[Axis, Trial]) -> list[FixedSize]:
    entries: list[FixedSize] = []
    for axis, trial in sorted(found.items()):
        why = pair.why(trial) or lines.get(_suspect(graph, trial.sizes) or "", "")
        entries.append(FixedSize(input=graph.inputs[axis.input].name, axis=axis.axis, why=why[:MAX_WHY]))
    return entries


def _suspect(graph: Graph, sizes: Sizes) -> str | None:
    """The node that holds a size which the model's code does not mention: x[:, -1] is position 4 of 5.

    It is the first whose shape does not follow, or that picks positions of an axis that changes; else the first whose
    result does not change with what it reads.
    """
    usual = shapes_of(graph)
    shapes: dict[str, Shape] = {}
    for k, entry in enumerate(graph.inputs):
        changed = {axis.axis: size for axis, size in sizes.items() if axis.input == k}
        shape = Shape(entry.shape, entry.dtype)
        for axis, size in changed.items():
            shape = shape.with_dim(axis, size)
        shapes[entry.name] = shape
    last: str | None = None
    for node in graph.nodes:
        given = [shapes[name] for name in node.inputs]
        try:
            shapes[node.name] = node.op.infer(*given)
        except OpError:
            return node.name
        follows = any(shape != usual[name] for shape, name in zip(given, node.inputs, strict=True))
        if follows and isinstance(node.op, Slice | Select):
            axis = node.op.axis % given[0].rank
            if given[0].dims[axis] != usual[node.inputs[0]].dims[axis]:
                return node.name
        if follows and shapes[node.name] == usual[node.name]:
            last = last or node.name
    return last


class Pair:
    """The model and its network, and how to run both on inputs like the example but of other sizes."""

    def __init__(self, prepared: Prepared, network: nn.Module, names: Sequence[str], close: float) -> None:
        self.model = prepared.model
        self.network = network
        self.names = names
        self.close = close
        args, kwargs = prepared.rows(2)
        self.positional = len(args)
        self.example = (*args, *(kwargs[name] for name in names[len(args) :]))

    def trial(self, sizes: Sizes) -> Trial:
        """Compare the two on inputs of these sizes, the others as in the example."""
        inputs = self._inputs(sizes)
        refusal, wanted = "", None
        try:
            wanted = self.outputs(inputs)
        except Exception as error:  # whatever the model's own code raises
            refusal = failure(error, folders=False)
        try:
            with torch.no_grad():
                given: torch.Tensor | tuple[torch.Tensor, ...] = self.network(*(x.clone() for x in inputs))
            found: tuple[torch.Tensor, ...] | None = given if isinstance(given, tuple) else (given,)
        except Exception:  # in torch's words; that it refuses is what is asked here
            found = None
        if found is None:
            verdict = Verdict.BOTH_REFUSE if wanted is None else Verdict.NETWORK_REFUSES
        elif wanted is not None and len(wanted) == len(found) and all(map(self._alike, wanted, found)):
            verdict = Verdict.SAME
        else:
            verdict = Verdict.APART
        return Trial(sizes, verdict, refusal)

    def why(self, trial: Trial) -> str:
        """The line of the model that computes with the size, or that refuses another."""
        if trial.refusal:
            return f"the model refuses other sizes: {trial.refusal}"
        other = self._inputs(trial.sizes)
        return trial.line or first_use(lambda: self.outputs(self.example), lambda: self.outputs(other))

    def size(self, axis: Axis) -> int:
        return self.example[axis.input].shape[axis.axis]

    def axes(self) -> list[Axis]:
        return [Axis(k, axis) for k, tensor in enumerate(self.example) for axis in range(1, tensor.dim())]

    def outputs(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """What the model gives."""
        given = [tensor.clone() for tensor in inputs]
        named = dict(zip(self.names[self.positional :], given[self.positional :], strict=True))
        with torch.no_grad():
            outputs: object = self.model(*given[: self.positional], **named)
        return tensors_of(outputs)

    def _inputs(self, sizes: Sizes) -> list[torch.Tensor]:
        """The example with the positions of some axes drawn anew, as many as are asked for."""
        generator = torch.Generator().manual_seed(0)
        found: list[torch.Tensor] = []
        for k, tensor in enumerate(self.example):
            for axis, size in sizes.items():
                if axis.input == k:
                    positions = torch.randint(tensor.shape[axis.axis], (size,), generator=generator)
                    tensor = tensor.index_select(axis.axis, positions)
            if tensor.is_floating_point():
                # Positions drawn twice, or an example of zeros, would look alike to whatever depends on their number.
                drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor = drawn if bool((tensor == tensor.flatten()[0]).all()) else tensor * (0.5 + 0.5 * drawn)
            found.append(tensor)
        return found

    def _alike(self, one: torch.Tensor, two: torch.Tensor) -> bool:
        return alike((one,), (two,), Closeness(max(_CLOSE.get(one.dtype, 1e-3), self.close), 0.0, 0.0))


# -- which sizes to try -----------------------------------------------------------------------------------------------


def _found(pair: Pair, graph: Graph) -> dict[Axis, Trial]:
    """Each fixed axis with a comparison that shows it."""
    cheap = costs_of(graph).macs <= CHEAP
    fixed: dict[Axis, Trial] = {}
    taken: dict[tuple[Axis, ...], list[int]] = {}  # axes that change together, and sizes that both took alike
    left = pair.axes()
    for group in itertools.chain([(axis,) for axis in left], _groups(pair, left, fixed, taken)):
        outcome = _tried(pair, group, cheap)
        if isinstance(outcome, Trial):
            fixed.update(dict.fromkeys(group, outcome))
        elif outcome:
            taken[group] = outcome
    for trial in itertools.chain(_together(pair, taken, cheap), _decided(pair, list(taken), costs_of(graph).macs)):
        if trial.verdict is Verdict.APART:
            fixed.update(dict.fromkeys(trial.sizes, trial))
    return fixed


def _tried(pair: Pair, group: tuple[Axis, ...], cheap: bool) -> Trial | list[int]:
    """The comparison that shows the axes to be fixed, or else the sizes above one that both took alike.

    Where the network refuses by itself, nothing is wrong without a word, and a network that takes some of the sizes
    that its model takes (multiples of 8, say) is worth more than one that takes a single one. The double size keeps
    whatever divides the size: a network that refuses this one has the size in it.
    """
    took: list[int] = []
    double = 2 * pair.size(group[0])
    for size in _others(pair.size(group[0]), cheap):
        trial = pair.trial(dict.fromkeys(group, size))
        if trial.verdict is Verdict.APART or (trial.verdict is Verdict.NETWORK_REFUSES and size == double):
            return trial
        if trial.verdict is Verdict.SAME and size > 1:
            took.append(size)
        if len(took) == (6 if cheap else 2):
            break
    return took


def _others(size: int, cheap: bool) -> list[int]:
    """Sizes to try, the telling ones first: the double, odd and even neighbours, and what powers of two ask for."""
    if cheap:
        near = [2 * size, size + 1, 1, size - 1, size + 3, size // 2, 2, *(size + 2**k for k in range(1, 6)), 3 * size]
    else:
        near = [2 * size, size + 1, size // 2, size - 1, size + 32]
    return [other for other in dict.fromkeys(near) if other not in (0, size)]


def _groups(
    pair: Pair, axes: Sequence[Axis], fixed: Mapping[Axis, Trial], taken: Mapping[tuple[Axis, ...], object]
) -> Iterator[tuple[Axis, ...]]:
    """Axes of one size that may only change together, of those that the model refused to change until now."""

    def left(candidates: Sequence[Axis]) -> tuple[Axis, ...]:
        settled = {*fixed, *itertools.chain.from_iterable(taken)}
        return tuple(axis for axis in candidates if axis not in settled)

    sizes = dict.fromkeys(pair.size(axis) for axis in left(axes))
    for size in sizes:
        alike = [axis for axis in axes if pair.size(axis) == size]
        by_input = [[axis for axis in alike if axis.input == k] for k in {axis.input for axis in alike}]
        by_place = [[axis for axis in alike if axis.axis == k] for k in {axis.axis for axis in alike}]
        pairs = itertools.combinations(alike, 2) if len(alike) <= 6 else ()
        for candidates in (alike, *by_place, *by_input, *pairs):
            found = left(candidates)
            if len(found) > 1:
                yield found


def _decided(pair: Pair, groups: Sequence[tuple[Axis, ...]], macs: int) -> Iterator[Trial]:
    """Comparisons around the sizes with which the model compares its own."""
    for decision in decisions(lambda: pair.outputs(pair.example)) if groups else ():
        for group in groups:
            usual = pair.size(group[0])
            for size in around(decision, usual):
                sizes = dict.fromkeys(group, size)
                if size <= 2 * usual or macs * (size / usual) ** 2 <= DEAR:
                    yield replace(pair.trial(sizes), line=decision.line)
                elif decision.size == usual and decision.line:  # too large to run
                    yield Trial(sizes, Verdict.APART, line=decision.line)


def around(decision: Decision, usual: int) -> list[int]:
    """Sizes of an input on both sides of a decision.

    The size that is compared may be an inner one, which is 8 where the input has 32; then 512 stands for about 2048.
    """
    up = decision.number > decision.size
    near = [-(-number * usual // decision.size) for number in (decision.number, decision.number + (1 if up else -1))]
    far = 2 * near[1] if up else near[1] // 2
    return [size for size in dict.fromkeys([*near, far]) if size not in (0, usual)]


def _together(pair: Pair, taken: Mapping[tuple[Axis, ...], list[int]], cheap: bool) -> Iterator[Trial]:
    """Comparisons in which everything that may change does, each by another amount."""
    if len(taken) < 2:
        return
    for shift in range(3 if cheap else 1):
        sizes = {axis: took[(shift + k) % len(took)] for k, (g, took) in enumerate(taken.items()) for axis in g}
        yield pair.trial(sizes)
