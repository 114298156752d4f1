"""What every rewrite promises, as one assertion: the function, in eval and train mode, and the gradients."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growir.backends.torch_fx import lower
from growir.backends.torch_fx.probe import lengthened, old_entries
from growir.channels import analyse
from growir.document import dumps
from growir.edits import NUMPY, Copy, Edit, Remap, Rename
from growir.entries import UNCHANGED, Entries
from growir.graph import Graph
from growir.moments import Follows, carry_moments
from growir.network import Network
from growir.ops import Constant, Normal, Param, Uniform
from growir.ops.rule import ParamAxes
from growir.ops.spaces import Space, spaces_on
from growir.params import frozen_keys, param_table
from growir.rewrite import Pass, Preserves, Rewrite

TOLERANCE = 1e-9  # of the largest value
GRADIENT = 1e-7  # of the largest gradient: norms divide by what may be small
FLOOR = 1e-3  # values smaller than this are measured against this
FOLLOWS: dict[int, Follows] = {0: "update", 1: "gradient", 2: "square"}  # by the power of the gradient
Arrays = dict[str, NDArray[Any]]


def random_network(graph: Graph, seed: int = 0) -> Network:
    """A float64 network in which nothing is at rest: random weights, norm statistics, scales, offsets and slopes."""
    rng = np.random.default_rng(seed)
    return Network(graph, {key: _numbers(param, rng) for key, param in param_table(graph).items()})


def _numbers(param: Param, rng: np.random.Generator) -> NDArray[Any]:
    if param.dtype == "int64":
        return np.zeros(param.shape, np.int64)
    match param.init:
        case Constant(0.0):
            return rng.normal(0.0, 0.5, param.shape)
        case Constant(value):  # scales, variances and slopes keep their sign
            return value * rng.uniform(0.5, 1.5, param.shape)
        case Uniform(bound):
            return rng.uniform(-2 * bound, 2 * bound, param.shape)
        case Normal():
            return rng.normal(0.0, 0.5, param.shape)


def random_batch(graph: Graph, size: int = 5, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """A batch of every input, in document order."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn((size, *entry.shape[1:]), generator=generator, dtype=torch.float64)  # type: ignore[arg-type]
        if entry.dtype == "float32"
        else torch.randint(0, 5, (size, *entry.shape[1:]), generator=generator)  # type: ignore[arg-type]
        for entry in graph.inputs
    )


class Probe:
    """A network lowered once, to be run in eval and in train mode. Train mode comes last: it moves norm statistics."""

    def __init__(self, network: Network) -> None:
        self.graph = network.graph
        self.module = lower(network.graph, network.arrays, dtype=torch.float64)

    def run(
        self, batch: Sequence[torch.Tensor], *, train: bool = False, entries: Entries = UNCHANGED
    ) -> tuple[tuple[NDArray[Any], ...], Arrays]:
        """Outputs, and the gradient of a fixed random mixture of them by every parameter.

        Of outputs that a rewrite made longer only the old `entries` are read; the batch has all its new ones.

        Dropout draws the same numbers each time. A parameter that reaches no output has gradient zero.
        """
        self.module.train(train)
        self.module.zero_grad()
        state = torch.default_generator.get_state()
        torch.default_generator.manual_seed(3)
        found: torch.Tensor | tuple[torch.Tensor, ...] = self.module(*batch)
        torch.default_generator.set_state(state)
        values = old_entries(found if isinstance(found, tuple) else (found,), entries)
        generator = torch.Generator().manual_seed(7)
        mixture = [torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in values]
        learned = [(value, part) for value, part in zip(values, mixture, strict=True) if value.requires_grad]
        if learned:
            torch.autograd.backward([value for value, _ in learned], [part for _, part in learned])
        # Under each of its names: the module tree may meet a tied one elsewhere before its owner.
        params = dict(self.module.named_parameters(remove_duplicate=False))
        grads: dict[str, NDArray[Any]] = {}
        for key, param in param_table(self.graph).items():
            if not param.buffer:
                grad = params[key].grad
                grads[key] = np.zeros(param.shape) if grad is None else grad.numpy().copy()
        return tuple(value.detach().numpy().copy() for value in values), grads


def draws_numbers(network: Network, batch: Sequence[torch.Tensor]) -> bool:
    """Whether a network draws random numbers in train mode: whether torch's generator moves."""
    module = lower(network.graph, network.arrays, dtype=torch.float64).train()
    before = torch.default_generator.get_state()
    module(*batch)
    after = torch.default_generator.get_state()
    torch.default_generator.set_state(before)
    return not torch.equal(before, after)


def outputs(network: Network, batch: Sequence[torch.Tensor], *, train: bool = False) -> tuple[NDArray[Any], ...]:
    """The network's outputs on a batch, in float64."""
    return Probe(network).run(batch, train=train)[0]


def as_before(module: Callable[..., Any], graph: Graph, entries: Entries) -> Callable[..., tuple[torch.Tensor, ...]]:
    """A grown module as callers of the graph before know it: it takes inputs of the old shape, and gives such outputs.

    Args:
        module: The grown module.
        graph: The graph before the rewrite.
        entries: Where the rewrite put the old entries.
    """

    def run(*batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: torch.Tensor | tuple[torch.Tensor, ...] = module(*lengthened(graph, batch, entries))
        return old_entries(found if isinstance(found, tuple) else (found,), entries)

    return run


def worst(before: NDArray[Any], after: NDArray[Any], floor: float = FLOOR) -> float:
    """The largest difference, as a part of the largest value or `floor`; infinite where either is not finite."""
    if before.shape != after.shape or not (np.isfinite(before).all() and np.isfinite(after).all()):
        return float("inf")
    if not before.size:
        return 0.0
    return float(np.abs(before - after).max() / max(np.abs(before).max(), floor))


def close(before: NDArray[Any], after: NDArray[Any], tolerance: float = TOLERANCE) -> bool:
    """Whether two arrays agree to within rounding."""
    return worst(before, after) <= tolerance


def assert_preserves(pass_: Pass, graph: Graph, seed: int = 0, size: int = 5) -> Network:
    """Assert what a pass claims of a graph, on random float64 weights and a random batch.

    Where it claims `eval` or more, outputs and gradients in eval mode are kept; where `exact`, those in train mode too.
    The gradients of the grown network are the old ones carried over by the same edits; fresh entries have their own.
    Where inputs or outputs became longer, all this is asked of the old entries, whatever the new inputs hold.

    Args:
        pass_: The pass.
        graph: A graph it accepts.
        seed: Of the weights and the batch.
        size: Samples in the batch.

    Returns:
        The grown network.
    """
    with rebuildable(graph, pass_):
        before = random_network(graph, seed)
        for found in deviations(pass_, before, random_batch(graph, size, seed)):
            what = f"the gradient of {found.name}" if found.gradient else f"output {found.name}"
            mode = "train" if found.train else "eval"
            assert found.error <= (GRADIENT if found.gradient else TOLERANCE), (
                f"{pass_} in {mode} mode: {what} changed by {found.error:.1e}"
            )
        return before.apply(pass_)


@contextmanager
def rebuildable(graph: Graph, pass_: Pass | None = None) -> Generator[None]:
    """Add to every error raised inside a note with the graph, and the pass, in JSON, so that both can be made again."""
    try:
        yield
    except Exception as error:
        if pass_ is not None:
            values = {key: array.tolist() for key, array in pass_.values.items()}
            fields = {"pass": pass_.name, **pass_.model_dump(mode="json"), **({"values": values} if values else {})}
            error.add_note(f"The pass is {type(pass_).__name__} of\n{json.dumps(fields)}")
        error.add_note(f"growir.verify.load makes the graph again from this document:\n{dumps(graph)}")
        raise


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far something is from what a pass promises.

    Attributes:
        train: Whether it was seen in train mode.
        gradient: Whether it is about the gradient of a parameter, or else about an output.
        name: Of the output, or the parameter's key.
        error: Largest difference, as a part of the largest value.
    """

    train: bool
    gradient: bool
    name: str
    error: float


def deviations(pass_: Pass, before: Network, batch: Sequence[torch.Tensor]) -> Iterator[Deviation]:
    """What is left of a promise on a network and a batch: every output and gradient, in each mode it speaks of."""
    done = pass_.rewrite(before.graph)
    modes = {Preserves.EXACT: (False, True), Preserves.EVAL: (False,)}.get(done.preserves, ())
    probes = [Probe(before), Probe(before.apply(pass_))] if modes else []
    for train in modes:
        old, grads = probes[0].run(batch, train=train)
        longer = lengthened(before.graph, batch, done.entries)
        new, new_grads = probes[1].run(longer, train=train, entries=done.entries)
        for name, wanted, found in zip(before.graph.outputs, old, new, strict=True):
            yield Deviation(train, False, name, worst(wanted, found))
        # Of what cancels, as gradients do before a norm, only rounding of the larger ones is left.
        floor = FLOOR * max([1.0, *(float(np.abs(grad).max(initial=0.0)) for grad in grads.values())])
        for key, wanted, found in carried_pairs(done, before.graph, grads, new_grads):
            yield Deviation(train, True, key, worst(wanted, found, floor))


def carried_pairs(
    done: Rewrite, graph: Graph, before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]], power: int = 1
) -> list[tuple[str, NDArray[Any], NDArray[Any]]]:
    """What a rewrite keeps of gradients: (key, the old one carried over, the new one), fresh entries left out.

    Along an axis that is normalised as a whole, or of channels whose copies are kept apart, only the sum over a
    channel's copies is determined.
    """
    moved = [edit for edit in done.edits if not isinstance(edit, Copy)]  # what is new elsewhere has its own gradient
    carried = carry_moments(moved, before, FOLLOWS[power], NUMPY)
    analysis = analyse(graph)
    later = analyse(done.graph)  # knows the axes of what was packed
    summed: set[Space | None] = {s.space for known in (analysis, later) for s in known.spaces if s.uniform}
    for edit in done.edits:
        if isinstance(edit, Remap) and edit.key in analysis.params:
            axes = analysis.params[edit.key].axes
            summed |= {space for part in edit.axes if part.apart is not None for space in spaces_on(axes[part.axis])}
    names = {edit.new: edit.old for edit in done.edits if isinstance(edit, Rename)}
    pairs: list[tuple[str, NDArray[Any], NDArray[Any]]] = []
    for key, wanted in carried.items():
        if key in frozen_keys(done.graph):  # which has none from now on
            continue
        found = after[key]
        use: ParamAxes | None = analysis.params.get(names.get(key, key)) or later.params.get(key)
        for axis, index in _origins(done.edits, key).items():
            terms = use.axes[axis] if use is not None else ()
            whole = any(space in summed for space in spaces_on(terms))
            if index.ndim == 1:
                wanted, found = (_old_positions(a, axis, index, whole) for a in (wanted, found))
            else:  # one map for each group, along axis 0
                pieces = [np.split(a, len(index)) for a in (wanted, found)]
                wanted, found = (
                    np.concatenate([_old_positions(p, axis, row, whole) for p, row in zip(piece, index)])
                    for piece in pieces
                )
        pairs.append((key, wanted, found))
    return pairs


def _origins(edits: Sequence[Edit], key: str) -> dict[int, NDArray[np.int64]]:
    """For each changed axis of a tensor, consuming ones last, the old position of every new one after all edits."""
    found: dict[int, NDArray[np.int64]] = {}
    for edit in edits:
        if isinstance(edit, Remap) and edit.key == key:
            for part in edit.axes:
                found[part.axis] = _after(found.pop(part.axis), part.index) if part.axis in found else part.index
    return found


def _after(first: NDArray[np.int64], then: NDArray[np.int64]) -> NDArray[np.int64]:
    """Two maps of one axis, one after the other; either may have a row for each group."""
    if first.ndim == 1 and then.ndim == 1:
        return np.where(then < 0, -1, first[then.clip(0)])
    rows = max(np.atleast_2d(first).shape[0], np.atleast_2d(then).shape[0])
    firsts, thens = (np.broadcast_to(m, (rows, m.shape[-1])) for m in (first, then))
    return np.stack([_after(a, b) for a, b in zip(firsts, thens, strict=True)])


def _old_positions(array: NDArray[Any], axis: int, index: NDArray[np.int64], whole: bool) -> NDArray[Any]:
    kept = np.flatnonzero(index >= 0)
    array = np.take(array, kept, axis)
    if not whole:
        return array
    summed = np.zeros((*array.shape[:axis], int(index.max()) + 1, *array.shape[axis + 1 :]))
    np.add.at(np.moveaxis(summed, axis, 0), index[kept], np.moveaxis(array, axis, 0))
    return summed
