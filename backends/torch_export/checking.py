"""Whether a network is its model, found out by running both, with the model's weights and with weights drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from growir.backends.torch_export.comparing import (
    STEPS,
    Apart,
    Closeness,
    NotFinite,
    Sides,
    Tensors,
    alike,
    cast_floats,
    outputs_apart,
    samples,
    step,
    tensors_of,
)
from growir.backends.torch_export.copying import copied
from growir.backends.torch_export.drawing import STRENGTHS, Numbers, Strength
from growir.backends.torch_export.exporting import Program, as_exported, failure, run
from growir.backends.torch_export.preparing import Prepared
from growir.backends.torch_export.steadiness import MISREAD, why_apart
from growir.backends.torch_export.watching import Watch, watch_modules, watching
from growir.backends.torch_fx import lower
from growir.costs import costs_of
from growir.errors import ModelError
from growir.graph import Graph

# How far apart the model and the network may be, as a part of the largest output.
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_EXACT = Closeness(1e-8, 1e-6, 1e-6)
_ROUNDED = Closeness(1e-4, 1e-3, 1e-4)  # float64, with constants that were rounded to less
_COARSE = Closeness(1e-2, 1e-1, 1e-2)  # float32 and less, where a rounding may decide on which side of a kink one is
# Beyond either, one step is compared instead of several, and in the model's own dtype.
_MUCH_WORK = 300_000_000  # multiply-accumulates per sample
_MANY_WEIGHTS = 20_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of one of a model's programs.

    Attributes:
        graph: The architecture.
        arrays: Its tensors by the graph's keys.
        sources: The model's name of each parameter, by the graph's key.
        inputs: The names of the model's arguments in the graph's order.
        dtypes: The float dtypes that the model computes in.
    """

    graph: Graph
    arrays: Mapping[str, NDArray[Any]]
    sources: Mapping[str, str]
    inputs: tuple[str, ...]
    dtypes: frozenset[torch.dtype]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a network differs from its model on weights drawn anew; None where it does not.

    Attributes:
        output: An output in eval mode.
        gradient: A gradient, in either mode.
        train: An output in train mode, or in eval mode after some steps of it.
        unknown: Why the two could not be compared; empty if they were.
    """

    output: Apart | None = None
    gradient: Apart | None = None
    train: Apart | None = None
    unknown: str = ""

    @property
    def clean(self) -> bool:
        """Whether nothing differs."""
        return self == Verdict()


def check_example(prepared: Prepared, program: Program, reading: Reading) -> None:
    """Run both on the example. Raises ModelError if they differ, which is better known now than after training."""
    module = lower(reading.graph, reading.arrays, device="cpu", shared=True).eval()
    coarsest = max(CLOSE.get(dtype, 1e-4) for dtype in (*reading.dtypes, torch.float64))
    # Once more with another batch: what the model computed from the size of the first, or drew, is another number now.
    for count, wanted in ((2, program.outputs), (3, run(prepared, 3))):
        args, kwargs = prepared.rows(count)
        with torch.no_grad():
            results = tensors_of(module(*args, *(kwargs[name] for name in reading.inputs[len(args) :])))
        limit = max((CLOSE.get(one.dtype, 1e-4) for one in wanted), default=coarsest)
        close = Closeness(max(limit, coarsest), 0.0, 0.0)
        apart = outputs_apart(wanted, results, close)
        if apart is not None:
            raise ModelError(wrongly(apart, "on the example", why_apart(prepared, close)))


def wrongly(apart: Apart, when: str, why: str = MISREAD) -> str:
    """The message of a network that computes something else."""
    return (
        f"{apart.where} of the imported network differs from the model's by {apart.error:.1e} of its largest value "
        f"{when}: {why}"
    )


def judge(
    prepared: Prepared,
    original: nn.Module,
    program: Program,
    read: Callable[[], Reading],
    watch: Watch,
    *,
    training: bool,
    in_eval: bool,
) -> Verdict:
    """Compare the two on weights drawn anew: outputs and gradients, in eval mode and over some steps of train mode.

    Args:
        prepared: The model. Its numbers are changed and put back.
        original: The model that it was copied from, for the hooks of its parameters.
        program: Its programs, which hold the same numbers.
        read: Reads the network again, with the numbers as they are then.
        watch: Where to note what the model does to gradients.
        training: Whether train mode is not known to differ anyway.
        in_eval: Whether gradients of eval mode count.
    """
    if not _gives_the_same(prepared, program):
        return Verdict(unknown="the model does not give the same twice")
    programs = [program.exported, *([program.training] if program.training is not None else [])]
    numbers = Numbers(prepared.model, original, programs)
    why = ""
    with as_exported():
        try:
            for strength in (*STRENGTHS, None):
                numbers.draw(strength)
                try:
                    reading = read()
                except ModelError:  # buffers that other numbers make another graph of
                    continue
                for attempt in _attempts(prepared, original, reading, strength, watch):
                    try:
                        return attempt(training, in_eval)
                    except NotFinite:
                        break
                    except Exception as error:  # whatever the model's own code raises
                        why = failure(error, folders=False)
        finally:
            numbers.draw(None)
    return Verdict(unknown=why)


def _gives_the_same(prepared: Prepared, program: Program) -> bool:
    """Whether the model gives again what it gave before it was exported."""
    try:
        again = run(prepared, 2)
    except ModelError:  # it does not even run any more
        return False
    limit = max((CLOSE.get(y.dtype, 1e-4) for y in again), default=0.0)
    return alike(program.outputs, again, Closeness(limit, 0.0, 0.0))


def _attempts(
    prepared: Prepared, original: nn.Module, reading: Reading, strength: Strength | None, watch: Watch
) -> Iterator[Callable[[bool, bool], Verdict]]:
    """The comparison in float64, where the model is small, and then as it is."""
    costs = costs_of(reading.graph)
    large = costs.macs > _MUCH_WORK or costs.parameters > _MANY_WEIGHTS
    args = (*prepared.args, *(prepared.kwargs[name] for name in reading.inputs[len(prepared.args) :]))
    for dtype in (None,) if large else (torch.float64, None):
        own = max(CLOSE.get(d, 1e-4) for d in (*reading.dtypes, torch.float64))
        close = _COARSE if dtype is None and own > 1e-9 else _ROUNDED if own > 1e-9 else _EXACT

        def attempt(
            training: bool, in_eval: bool, dtype: torch.dtype | None = dtype, close: Closeness = close
        ) -> Verdict:
            model = copied(prepared.model)
            if dtype is not None:
                model = model.to(dtype)
            model.train()  # modules may keep what they compute from parameters until their mode changes
            model.eval()
            watch_modules(model, original, watch)
            network = lower(reading.graph, reading.arrays, device="cpu", dtype=dtype, shared=True)
            theirs, ours = (dict(side.named_parameters(remove_duplicate=False)) for side in (model, network))
            known = {id(theirs[source]): ours[key] for key, source in reading.sources.items()}
            pairs = [(name, tensor, known.get(id(tensor))) for name, tensor in model.named_parameters()]
            sides = Sides(model, network, pairs, reading.inputs, len(prepared.args))

            def given(k: int) -> Tensors:
                drawn = samples(args, k, wide=strength is not None and strength.spread > 0.1)
                return drawn if dtype is None else cast_floats(drawn, dtype)

            before = torch.get_default_dtype()
            torch.set_default_dtype(dtype or before)
            try:
                with watching(watch, trying=True):
                    return _steps(sides, given, close, training=training, in_eval=in_eval, thorough=not large)
            finally:
                torch.set_default_dtype(before)

        yield attempt


def _steps(
    sides: Sides, given: Callable[[int], Tensors], close: Closeness, *, training: bool, in_eval: bool, thorough: bool
) -> Verdict:
    sides.model.eval()
    sides.network.eval()
    # One backward pass is enough of a large model: that of train mode, if it is run.
    output, gradient = step(sides, given(0), close, backward=in_eval and (thorough or not training), thorough=thorough)
    found = Verdict(output, gradient)
    if output is not None or not training:
        return found
    sides.model.train()
    sides.network.train()
    for k in range(1, STEPS + 1):
        output, gradient = step(sides, given(k), close, backward=thorough or k == 1, thorough=thorough)
        if output is not None:
            found = replace(found, train=_when(output, f"in step {k} of train mode"))
        found = replace(found, gradient=found.gradient or gradient)
        if output is not None:
            return found
    sides.model.eval()
    sides.network.eval()
    output, _ = step(sides, given(0), close, backward=False, thorough=thorough)
    return found if output is None else replace(found, train=_when(output, "after some steps of train mode"))


def _when(apart: Apart, when: str) -> Apart:
    return Apart(f"{when}, {apart.where}", apart.error)
