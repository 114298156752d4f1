"""What is minimised: a loss for each sample, whose mean decides about training and growth; and what is told beside it.

An objective is named ("cross_entropy", "mse") or any function of the network's outputs and the target:

    objective=lambda outputs, target: F.l1_loss(outputs, target, reduction="none").mean(dim=1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F

from growir.errors import RunError, cut
from growir.growth.divergence import Diverged
from growir.growth.entropies import entropies
from growir.nearest import alternatives

Outputs = tuple[torch.Tensor, ...]
_HALVES = (torch.float16, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@runtime_checkable
class Objective(Protocol):
    """What is minimised, and what is told of predictions beside it. All sums are over the samples of a batch."""

    def each(self, outputs: Outputs, target: Any) -> torch.Tensor:
        """(n,) the loss of each sample: outputs (n, ...) each. Raises RunError if they do not fit the target."""
        ...

    def total(self, outputs: Outputs, target: Any) -> torch.Tensor:
        """The summed loss of a batch, a scalar. Training takes its gradient."""
        ...

    def metrics(self, outputs: Outputs, target: Any) -> dict[str, torch.Tensor]:
        """Sums over the batch by name: they add up over batches and ranks, and divided by the samples are means."""
        ...


def full_precision(outputs: torch.Tensor | Outputs) -> Outputs:
    """What a module gave as a tuple, floats of half precision in float32: a loss summed in those loses small terms."""
    if isinstance(outputs, torch.Tensor):
        return (outputs.float() if outputs.dtype in _HALVES else outputs,)
    if any(value.dtype in _HALVES for value in outputs):
        return tuple(value.float() if value.dtype in _HALVES else value for value in outputs)
    return outputs


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Cross-entropy of class indices under logits; the metric is the accuracy.

    One class a sample: logits (n, classes), target (n,). Dense: one class at each position, logits (n, classes, ...) or
    (n, ..., classes), target (n, ...); a sample's loss is then the mean over its positions. Positions whose target is
    -100 do not count.

    Attributes:
        axis: Where the logits of a dense prediction have the classes, 1 or -1. None sees by the shapes.
    """

    axis: int | None = None

    def each(self, outputs: Outputs, target: torch.Tensor) -> torch.Tensor:
        """(n,) cross-entropies in nats."""
        logits, target = self._checked(outputs, target)
        found = _entropies(logits, target)
        if target.ndim == 1:
            return found
        return found.flatten(1).sum(1) / _counted(target).clamp(min=1)

    def total(self, outputs: Outputs, target: torch.Tensor) -> torch.Tensor:
        """Their sum."""
        logits, classes = self._checked(outputs, target)
        return _entropies(logits, classes, total=True) if classes.ndim == 1 else self.each(outputs, target).sum()

    def metrics(self, outputs: Outputs, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """The number of samples whose class is the likeliest; of dense ones the share of their positions."""
        logits, target = self._checked(outputs, target)
        right = (logits.argmax(dim=1) == target).double()
        if target.ndim > 1:
            right = right.flatten(1).sum(1) / _counted(target).clamp(min=1)
        return {"accuracy": right.sum()}

    def _checked(self, outputs: Outputs, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits with the classes on axis 1, and the target as int64."""
        logits, target = _single("cross_entropy", outputs, target)
        if target.dtype is torch.int64 and logits.ndim == 2 and target.ndim == 1 and len(target) == len(logits):
            return logits, target  # what follows says the same, and takes as long as a small layer
        if target.dtype not in _INTEGERS:
            raise RunError(
                f"objective cross_entropy: a target of class indices is needed, of integers, but this one is "
                f"{_dtype(target)} of shape {_shape(target)}; for other targets give a function as objective"
            )
        first = logits.ndim >= 2 and target.shape == logits.shape[:1] + logits.shape[2:]
        last = logits.ndim >= 2 and target.shape == logits.shape[:-1]
        if first and last and logits.ndim > 2 and self.axis is None:
            raise RunError(
                f"objective cross_entropy: logits of shape {_shape(logits)} may have their classes on axis 1 or on "
                'the last one; say which: objective={"name": "cross_entropy", "axis": 1}'
            )
        fits = {None: first or last, 1: first, -1: last}[self.axis]
        if not fits:
            raise RunError(
                f"objective cross_entropy: the target has shape {_shape(target)}, but to logits of shape "
                f"{_shape(logits)} belongs {_belongs(logits, self.axis)}; reshape the target, or give a function as "
                "objective"
            )
        at_end = last and (self.axis == -1 or not first)
        return logits.movedim(-1, 1) if at_end else logits, target.long()


def _belongs(logits: torch.Tensor, axis: int | None) -> str:
    """The shapes that a target of these logits may have."""
    first = _shape(logits.shape[:1] + logits.shape[2:])
    last = _shape(logits.shape[:-1])
    if logits.ndim < 3 or axis == 1:
        return first
    return last if axis == -1 else f"{first} or {last}"


def _entropies(logits: torch.Tensor, target: torch.Tensor, *, total: bool = False) -> torch.Tensor:
    try:
        return F.cross_entropy(logits, target, reduction="sum") if total else entropies(logits, target)
    except IndexError:  # only the CPU notices while it can still be told
        least, most = int(target.min()), int(target.max())
        raise RunError(
            f"objective cross_entropy: the target holds classes from {least} to {most}, but the network's output "
            f"counts {logits.shape[1]}, from 0 to {logits.shape[1] - 1}; mend the target or widen the output"
        ) from None


def _counted(target: torch.Tensor) -> torch.Tensor:
    """(n,) the positions of each sample that count."""
    return (target != -100).flatten(1).sum(1)


@dataclass(frozen=True, slots=True, eq=False)
class SquaredError:
    """Half the squared error in units of the targets' standard deviation, mean over outputs; the metric is "mse".

    Attributes:
        scale: The targets' standard deviation, which broadcasts to one sample's target; None for 1. In its units the
            loss is about 1/2 at the start, whatever the targets are measured in.
    """

    scale: torch.Tensor | None = None

    def each(self, outputs: Outputs, target: torch.Tensor) -> torch.Tensor:
        """(n,) half the squared errors."""
        prediction, target = self._checked(outputs, target)
        difference = prediction - target
        if self.scale is not None:
            difference = difference / self.scale.to(difference)
        return 0.5 * difference.square().flatten(1).mean(dim=1)

    def total(self, outputs: Outputs, target: torch.Tensor) -> torch.Tensor:
        """Their sum."""
        return self.each(outputs, target).sum()

    def metrics(self, outputs: Outputs, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """The squared errors in the targets' own units, mean over outputs."""
        prediction, target = self._checked(outputs, target)
        return {"mse": (prediction.double() - target).square().flatten(1).sum() / max(1, prediction[0].numel())}

    def mean_square(self, outputs: Outputs, target: torch.Tensor) -> float:
        """The mean squared error of all samples and outputs, in the targets' own units."""
        prediction, target = self._checked(outputs, target)
        return float((prediction.double() - target).square().mean())

    def _checked(self, outputs: Outputs, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Prediction and target, (n, ...) both; a single output needs no axis of its own in the target."""
        prediction, target = _single("mse", outputs, target)
        if target.is_complex() or target.dtype == torch.bool:
            raise RunError(f"objective mse: a target of numbers is needed, but this one is {_dtype(target)}")
        if prediction.shape == (*target.shape, 1):
            target = target.unsqueeze(-1)
        if prediction.shape != target.shape:
            raise RunError(
                f"objective mse: the target has shape {_shape(target)}, but the network's output {_shape(prediction)}; "
                "reshape one of them, or give a function as objective"
            )
        if prediction.ndim == 1:
            prediction, target = prediction.unsqueeze(1), target.unsqueeze(1)
        return prediction, target.to(prediction.dtype)


@dataclass(frozen=True, slots=True)
class Called:
    """A function as objective: (outputs, target) -> (n,) losses; it has no metrics.

    Attributes:
        function: Called with the output, or the tuple of several, and whatever the data gives as target.
    """

    function: Callable[[Any, Any], Any]

    def each(self, outputs: Outputs, target: Any) -> torch.Tensor:
        """(n,) its losses. Raises RunError if it gives anything else."""
        found = cast("object", self.function(outputs[0] if len(outputs) == 1 else outputs, target))
        count = len(outputs[0])
        if not isinstance(found, torch.Tensor):
            raise RunError(f"{self._name}: it gives {cut(type(found).__name__)}, but {_wanted(count)} are needed")
        if found.ndim == 0:
            raise RunError(
                f"{self._name}: it gives a scalar, but {_wanted(count)} are needed, since growth compares samples; "
                'leave the mean out (reduction="none", and .flatten(1).mean(1) where a sample has several)'
            )
        if found.shape != (count,):
            raise RunError(
                f"{self._name}: it gives shape {_shape(found)}, but {_wanted(count)} are needed; where a sample has "
                "several losses, take their mean: .flatten(1).mean(1)"
            )
        if not found.is_floating_point():
            raise RunError(f"{self._name}: it gives {_dtype(found)}, but losses are floats")
        return found

    def total(self, outputs: Outputs, target: Any) -> torch.Tensor:
        """Their sum."""
        return self.each(outputs, target).sum()

    def metrics(self, outputs: Outputs, target: Any) -> dict[str, torch.Tensor]:
        """None: only the loss is told."""
        return {}

    @property
    def _name(self) -> str:
        return f"objective {cut(getattr(self.function, '__name__', type(self.function).__name__))}"


NAMED: Mapping[str, Callable[..., Objective]] = {"cross_entropy": CrossEntropy, "mse": SquaredError}


def as_objective(given: object, scale: torch.Tensor | None = None) -> Objective:
    """The objective that a user gave: a name, a mapping of name and axis, a function, or an Objective itself.

    Args:
        given: It.
        scale: The targets' standard deviation, for "mse".

    Raises:
        RunError: It is none of those.
    """
    settings = dict(cast("Mapping[str, object]", given)) if isinstance(given, Mapping) else {"name": given}
    name, axis = settings.pop("name", None), settings.pop("axis", None)
    if isinstance(given, str | Mapping):
        if name not in NAMED:
            raise RunError(f"there is no objective {cut(repr(name))}.{alternatives(str(name), NAMED)}")
        if settings or axis not in (None, 1, -1) or (axis is not None and name != "cross_entropy"):
            raise RunError(f'objective {name}: it takes "axis", 1 or -1, of cross_entropy only; leave the rest out')
        return CrossEntropy(axis) if name == "cross_entropy" else SquaredError(scale)
    if isinstance(given, Objective) and not isinstance(given, type):
        return given
    if callable(given):
        return Called(given)
    raise RunError(
        f"an objective is a name ({', '.join(NAMED)}), a function of outputs and target, or an object with each, total "
        f"and metrics, but this is of {type(given).__name__}"
    )


def means(objective: Objective, outputs: Outputs, target: Any) -> dict[str, float]:
    """What a user reads of predictions that are all there: the mean "loss", and the mean of each metric.

    The mean of squares is taken at once, since a sum of means over outputs rounds differently.
    """
    count = len(outputs[0])
    found = {"loss": float(objective.total(outputs, target) / count)}
    found |= {name: float(value) / count for name, value in objective.metrics(outputs, target).items()}
    if isinstance(objective, SquaredError):
        found["mse"] = objective.mean_square(outputs, target)
    return found


def check_first(objective: Objective, outputs: Outputs, target: Any) -> None:
    """Look at the losses of a first batch: they must be finite, and those that are to be minimised have a gradient.

    Raises:
        RunError: The outputs or the losses are not finite, or no gradient comes back from the losses.
    """
    each = objective.each(outputs, target)
    if bool(torch.isfinite(each).all()):
        if not each.requires_grad and any(output.requires_grad for output in outputs):
            raise RunError(
                f"{_title(objective)}: no gradient comes back from its losses; compute them from the outputs with "
                "torch, without .detach(), .item() or numpy"
            )
        return
    whose = next((k for k, output in enumerate(outputs) if not bool(torch.isfinite(output).all())), None)
    if whose is None:
        where = int((~torch.isfinite(each)).nonzero()[0])
        found = float(each[where].detach())
        raise RunError(
            f"{_title(objective)}: the loss of sample {where} of the first batch is {found}, though the "
            "outputs are finite; mend the objective (a logarithm of zero?) or the target"
        )
    found_there = f"the network's output {whose} is not finite in the first batch"
    raise Diverged(
        f"{found_there}; look for NaN in the data, or for weights that diverged before",
        f"{found_there}, by NaN in the data or in weights",
    )


def _title(objective: Objective) -> str:
    if isinstance(objective, Called):
        return f"objective {cut(getattr(objective.function, '__name__', type(objective.function).__name__))}"
    names: dict[type[object], str] = {CrossEntropy: "cross_entropy", SquaredError: "mse"}
    return f"objective {names.get(type(objective), cut(type(objective).__name__))}"


def _single(name: str, outputs: Outputs, target: object) -> tuple[torch.Tensor, torch.Tensor]:
    if len(outputs) != 1:
        raise RunError(
            f"objective {name}: it takes a network of one output, but this one has {len(outputs)}; give a function of "
            "the tuple of outputs as objective"
        )
    if not isinstance(target, torch.Tensor):
        raise RunError(f"objective {name}: a target tensor is needed, but this one is of {type(target).__name__}")
    return outputs[0], target


def _wanted(count: int) -> str:
    return f"the losses of the {count} samples, of shape ({count},),"


def _shape(found: torch.Tensor | torch.Size) -> str:
    shape = found.shape if isinstance(found, torch.Tensor) else found
    return str(tuple(shape))


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
