"""The model beside what was read of it: outputs and gradients, in eval mode and over some steps of train mode.

Both run on the same samples, in float64 where the model can, with the same weights drawn anew. What random layers draw
is replaced by its mean on both sides: dropout then changes nothing, whichever axes the two keep the samples in.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from growir.backends.torch_export.gradless import without_inference

STEPS = 3  # of train mode: what a step leaves in a buffer shows in the next
ROWS = 3  # with two, batch norm of vectors gives 1 and -1 whatever it gets
_AHEAD = 1e3  # gradients so much larger than the others show what clips them
_CHUNK = 2**20  # numbers that are made float64 at a time

Tensors = tuple[torch.Tensor, ...]
Forward = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Sides:
    """A model and its network with the same weights.

    Attributes:
        model: The model.
        network: The network, as a module.
        pairs: The same parameters on both sides, and their name; of one that the other side has not, None there.
        named: The names of the network's inputs in order; those of the model's arguments that are given by name.
        positional: How many are given by place.
    """

    model: nn.Module
    network: nn.Module
    pairs: Sequence[tuple[str, torch.Tensor, torch.Tensor | None]]
    named: Sequence[str]
    positional: int

    def both(self, inputs: Tensors) -> tuple[Tensors, Tensors]:
        """What each gives. Either may write into its inputs."""
        own = [x.clone() for x in inputs]
        given = dict(zip(self.named[self.positional :], own[self.positional :], strict=True))
        wanted: object = self.model(*own[: self.positional], **given)
        return tensors_of(wanted), tensors_of(self.network(*(x.clone() for x in inputs)))


@dataclass(frozen=True, slots=True)
class Apart:
    """Where the two differ most.

    Attributes:
        where: An output or the gradient of something, as messages say it.
        error: By how much, as a part of the largest value.
    """

    where: str
    error: float

    def __str__(self) -> str:
        return f"{self.where} differs from the model's by {self.error:.1e} of its largest value"


@dataclass(frozen=True, slots=True)
class Closeness:
    """What counts as the same.

    Attributes:
        output: Largest difference of an output, as a part of its largest value.
        gradient: Largest difference of a gradient, as a part of its norm.
        floor: Gradients smaller than this part of the largest one are measured as if they had that size: of what
            cancels only rounding is left.
    """

    output: float
    gradient: float
    floor: float


class NotFinite(Exception):
    """The model gives no finite numbers here, so there is nothing to compare."""


def outputs_apart(wanted: Tensors, found: Tensors, close: Closeness) -> Apart | None:
    """The output that differs most, if one does."""
    worst: Apart | None = None
    for k, (one, two) in enumerate(zip(wanted, found, strict=True)):
        one, two = one.detach(), two.detach()
        alike = (one == two) | (one.isnan() & two.isnan())
        apart = torch.where(alike, 0.0, (one - two).abs().nan_to_num(float("inf")))
        largest = float(one.nan_to_num(0.0, 0.0, 0.0).abs().max()) if one.numel() else 0.0
        error = float(apart.max()) / max(largest, 1e-30) if apart.numel() else 0.0
        if not error <= close.output and (worst is None or error > worst.error):
            worst = Apart(f"output {k}" if len(wanted) > 1 else "the output", error)
    return worst


def alike(ones: Tensors, twos: Tensors, close: Closeness) -> bool:
    """Whether two sets of outputs have the same shapes and numbers."""
    return [one.shape for one in ones] == [two.shape for two in twos] and outputs_apart(ones, twos, close) is None


def step(
    sides: Sides, inputs: Tensors, close: Closeness, *, backward: bool, thorough: bool
) -> tuple[Apart | None, Apart | None]:
    """One call of both, in the mode that they are in: how their outputs and their gradients differ, if they do.

    Gradients are compared for two sizes of what comes back from the outputs if it is to be `thorough`, else for the
    larger, which shows what clips them.

    Raises:
        NotFinite: The model's outputs or gradients are not finite.
    """
    leaves = tuple(x.clone().requires_grad_(x.is_floating_point() and backward) for x in inputs)
    # Backward too: what is checkpointed runs forward again there.
    with _without_draws(), without_inference(), torch.set_grad_enabled(backward):
        wanted, found = sides.both(leaves)
        if not _finite(wanted):
            raise NotFinite
        apart = outputs_apart(wanted, found, close)
        scales = (1.0, _AHEAD) if thorough else (_AHEAD,)
        return apart, _gradients_apart(sides, leaves, (wanted, found), close, scales) if backward else None


def _gradients_apart(
    sides: Sides, leaves: Tensors, outputs: tuple[Tensors, Tensors], close: Closeness, scales: Sequence[float]
) -> Apart | None:
    worst: Apart | None = None
    for scale in scales:
        again = scale != scales[-1]
        one, two = (_gradients(sides, leaves, outputs[k], scale, k, again) for k in (0, 1))
        if not _finite([grad for grad in one.values() if grad is not None]):
            raise NotFinite
        norms = {name: max(_norm(one[name]), _norm(two[name])) for name in one}
        largest = max(norms.values(), default=0.0)
        for name, norm in norms.items():
            most = max(norm, close.floor * largest, 1e-30)
            error = _distance(one[name], two[name]) / most
            if not error <= close.gradient and (worst is None or error > worst.error):
                worst = Apart(f"the gradient of {name}", error)
        del one, two  # of a large model four sets would not fit beside each other
    return worst


def _gradients(
    sides: Sides, leaves: Tensors, outputs: Tensors, scale: float, side: int, again: bool
) -> dict[str, torch.Tensor | None]:
    """The gradients of a fixed random mixture of the outputs, for one side, by the names that both share."""
    generator = torch.Generator().manual_seed(1)
    mixture = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype) * scale for y in outputs]
    found: dict[str, torch.Tensor | None] = {}
    sources: dict[str, torch.Tensor | None] = {name: pair[side] for name, *pair in sides.pairs}
    sources |= {f"input {k}": leaf for k, leaf in enumerate(leaves) if leaf.requires_grad}
    for source in sources.values():
        if source is not None:
            source.grad = None
    learned = [(y, w) for y, w in zip(outputs, mixture, strict=True) if y.requires_grad]
    if learned:
        # backward, and not autograd.grad: hooks at its end belong to it.
        torch.autograd.backward([y for y, _ in learned], [w for _, w in learned], retain_graph=again)
    for name, source in sources.items():
        found[name] = None if source is None or source.grad is None else source.grad.detach()
    for source in sources.values():  # one tensor may go by two names
        if source is not None:
            source.grad = None
    return found


def _distance(one: torch.Tensor | None, two: torch.Tensor | None) -> float:
    if one is None or two is None:
        return max(_norm(one), _norm(two))
    pieces = zip(_pieces(one), _pieces(two), strict=True)
    return math.sqrt(math.fsum(float((a - b).double().square().sum()) for a, b in pieces))


def _norm(value: torch.Tensor | None) -> float:
    if value is None:
        return 0.0
    return math.sqrt(math.fsum(float(piece.double().square().sum()) for piece in _pieces(value)))


def _pieces(value: torch.Tensor) -> Iterator[torch.Tensor]:
    flat = value.reshape(-1)
    return (flat[k : k + _CHUNK] for k in range(0, flat.numel(), _CHUNK))


def _finite(values: Sequence[torch.Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in values)


def tensors_of(outputs: object) -> Tensors:
    """The tensors among what a model returns, in order."""
    return tuple(leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor))


class _Means(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__
    """Every random draw of dropout and its like as its mean."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name, first = str(func), next(iter(args), None)
        if not isinstance(first, torch.Tensor):
            return func(*args, **(kwargs or {}))
        if name == "aten.bernoulli_.float":
            return first.fill_(args[1] if len(args) > 1 else 0.5)
        if name == "aten.bernoulli.p":
            return torch.full_like(first, args[1])
        if name == "aten.bernoulli.default":
            return first.clone()
        if name == "aten.native_dropout.default":
            return first.clone(), torch.ones_like(first, dtype=torch.bool)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _without_draws() -> Generator[None, None, None]:
    """Random numbers as their means, and those that are drawn otherwise the same each time."""
    with torch.random.fork_rng(devices=[]), _Means():  # type: ignore[no-untyped-call]
        torch.manual_seed(0)
        yield


def samples(args: Tensors, step: int, *, wide: bool) -> Tensors:
    """Samples like those of the example, each other than the last: floats with noise, integers in another order.

    Args:
        args: The example.
        step: Which; each is drawn differently.
        wide: Draw them, or only repeat the example.
    """
    generator = torch.Generator().manual_seed(100 + step)
    found: list[torch.Tensor] = []
    for x in args:
        rows = x[torch.arange(ROWS) % x.shape[0]]
        if not wide:
            found.append(rows.clone())
        elif x.is_floating_point():
            noise = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
            size = float(x.double().std()) if x.numel() > 1 else 0.0
            # What is nowhere negative stays so; an example of zeros says nothing of what it stands for.
            positive = bool((x >= 0).all()) and bool(x.any())
            drawn = rows * (1 + 0.3 * noise.clamp(-2, 2)) if positive else rows + 0.5 * (size or 1.0) * noise
            found.append(drawn.to(x.dtype))
        else:
            order = torch.rand(rows.shape, generator=generator).argsort(-1) if rows.dim() > 1 else None
            found.append(rows.gather(-1, order) if order is not None else rows.clone())
    return tuple(found)


def cast_floats(values: Tensors, dtype: torch.dtype) -> Tensors:
    """The values with their floats in another dtype."""
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in values)
