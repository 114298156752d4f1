"""Numbers drawn anew for a model that was imported, so that nothing hides behind a zero, a one or two equal tensors.

    alpha = 0        of x + alpha * f(x): whatever f was read as, the outputs agree
    alpha = -.08     f counts, and its gradients do

Every entry keeps its sign and about its size, so that what is finite stays finite: variances stay positive, masks keep
their infinities. Zeros become small numbers, positive ones where nothing of the tensor is negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.export import ExportedProgram


@dataclass(frozen=True, slots=True)
class Strength:
    """How far from the old numbers the new ones are.

    Attributes:
        spread: An entry becomes up to this part larger or smaller.
        zeros: The size of what was zero, in a vector; in a matrix it is divided by the root of its columns.
        buffers: Whether buffers change, too, or only parameters and the statistics of norms.
    """

    spread: float
    zeros: float
    buffers: bool


# From what shows most to what every model stands.
STRENGTHS = (Strength(0.5, 0.3, True), Strength(0.5, 0.3, False), Strength(0.02, 0.01, False))


class Numbers:
    """The numbers of a model and of its exported programs, which hold the same tensors under the same names."""

    def __init__(self, model: nn.Module, original: nn.Module, programs: Iterable[ExportedProgram]) -> None:
        self.model = model
        self.programs = list(programs)
        theirs = _named(original)
        self.first = {name: _kept(tensor, theirs.get(name)) for name, tensor in _named(model).items()}
        self.trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}

    def draw(self, strength: Strength | None) -> None:
        """Put new numbers everywhere; the first ones for None."""
        generator = torch.Generator().manual_seed(0)
        done: dict[int, torch.Tensor] = {}  # of a tensor under several names
        for name, tensor in _named(self.model).items():
            old = self.first.get(name)
            if old is None or old.shape != tensor.shape:  # the model has made another one since
                continue
            if id(tensor) not in done:
                done[id(tensor)] = old if strength is None else self._drawn(name, old, strength, generator)
            self._put(name, tensor, done[id(tensor)])
        # Modules may keep what they compute from parameters until their mode changes.
        self.model.train()
        self.model.eval()

    def _drawn(self, name: str, old: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
        statistics = name.endswith(("running_mean", "running_var"))
        if not old.is_floating_point() or not (name in self.trained or statistics or strength.buffers):
            return old
        return drawn(old, strength, generator)

    def _put(self, name: str, tensor: torch.Tensor, new: torch.Tensor) -> None:
        known: list[torch.Tensor] = [tensor]
        for program in self.programs:
            held: Mapping[str, object] = {**program.constants, **program.state_dict}
            found = held.get(name)
            if isinstance(found, torch.Tensor) and all(found is not other for other in known):
                known.append(found)
        for target in known:
            if target.shape == new.shape and not _overlaps(target):
                target.data.copy_(new)


def _named(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def _kept(tensor: torch.Tensor, theirs: torch.Tensor | None) -> torch.Tensor:
    """The numbers that a tensor has now: where the model that it was copied from has them still, that one's.

    A part that cannot be copied is one of both models, and the numbers of its tensors are about to change.
    """
    if theirs is None or (theirs.device, theirs.dtype) != (tensor.device, tensor.dtype):
        return tensor.detach().clone()
    apart = theirs.data_ptr() != tensor.data_ptr()
    return theirs.detach() if apart and torch.equal(theirs, tensor) else tensor.detach().clone()


def drawn(old: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """New numbers of the same signs and about the same sizes."""
    x = old.to(torch.promote_types(old.dtype, torch.float32))
    factor = torch.rand(x.shape, generator=generator, dtype=x.dtype)
    new = factor.mul_(2 * strength.spread).add_(1 - strength.spread).mul_(x)
    zeros = x == 0
    if bool(zeros.any()):
        columns = max(old.numel() // old.shape[0], 1) if old.dim() > 1 else 1
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) * (strength.zeros / columns**0.5)
        new = torch.where(zeros, noise.abs() if bool((x >= 0).all()) else noise, new)
    return new.to(old.dtype)


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether several entries are one number in memory."""
    return any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
