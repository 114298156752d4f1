"""One phase of training: a module is fitted to batches under a recipe, from any batch on.

Everything random is a function of the phase's seed and of the position in it. Whoever goes on from a position that a
checkpoint gave, with the module and the optimizer of then, ends at the bits of a phase that was not interrupted.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import nn

from growir.data.shuffling import Shuffle, generator
from growir.data.source import Batch, Source
from growir.errors import DataError, RunError
from growir.growth.device import amp_type
from growir.growth.divergence import Diverged
from growir.growth.objective import Objective, Outputs, check_first, full_precision
from growir.growth.phase import Fitted, Hooks, Position
from growir.growth.recipe import Recipe

Forward = Callable[[Batch], "torch.Tensor | Outputs"]
_LOOK = 50  # batches between looks at the losses on a device that would have to wait for each


def fit(
    forward: nn.Module | Forward,
    objective: Objective,
    source: Source,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    *,
    shuffle: Shuffle,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    feed: Callable[[Batch, str], Batch] | None = None,
    draws: bool = False,
    device: torch.device | None = None,
    start: Position | None = None,
    hooks: Hooks | None = None,
    phase: str = "training",
) -> Fitted:
    """Train in place.

    Args:
        forward: What computes the outputs of a batch: a module, or a function of the batch. It trains in float64 where
            its weights are that.
        objective: What is minimised, in the mean over each batch.
        source: What is trained on.
        optimizer: Steps once per batch, or once per `recipe.accumulate` of them.
        recipe: How long and how.
        shuffle: The orders of samples. Its key seeds what `forward` draws, too.
        scheduler: Steps after the optimizer; it must be where `start` is.
        feed: Makes of each batch, and of words that say which, what `forward` takes (`growir.data.feeding.Feed`).
        draws: Whether `forward` draws random numbers. With checkpoints they are then drawn anew for each batch, as a
            function of its position, since no generator survives in a checkpoint; without, one stream serves the whole
            phase, and its numbers are others.
        device: Where the weights are; the CPU for None.
        start: Where to go on; None is the beginning.
        hooks: What is called meanwhile.
        phase: What messages call it.

    Raises:
        RunError: The loss is not finite, the objective does not fit, or the device cannot compute as the recipe says.
        DataError: There is no batch, or one that `feed` refuses.
    """
    return _Phase(
        forward,
        objective,
        source,
        optimizer,
        recipe,
        shuffle,
        scheduler,
        feed,
        draws and hooks is not None and hooks.checkpoint is not None,
        device or torch.device("cpu"),
        hooks or Hooks(),
        phase,
    ).run(start or Position())


@dataclass(slots=True, eq=False)
class _Phase:
    """A phase while it runs; the attributes are the arguments of `fit`."""

    forward: nn.Module | Forward
    objective: Objective
    source: Source
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    shuffle: Shuffle
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    feed: Callable[[Batch, str], Batch] | None
    reseeds: bool
    device: torch.device
    hooks: Hooks
    name: str
    parameters: list[torch.Tensor] = field(init=False)
    autocast: torch.dtype | None = field(init=False)
    scaler: torch.amp.GradScaler | None = field(init=False, default=None)
    looked: bool = field(init=False, default=False)
    unseen: list[tuple[int, torch.Tensor]] = field(init=False, default_factory=list[tuple[int, torch.Tensor]])

    def __post_init__(self) -> None:
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        dtype = next((p.dtype for p in self.parameters if p.is_floating_point()), torch.float32)
        self.autocast = amp_type(self.recipe.amp, self.device, dtype)
        if self.autocast is torch.float16:
            self.scaler = torch.amp.GradScaler(self.device.type)

    def run(self, at: Position) -> Fitted:
        """Train from a position to the end."""
        recipe = self.recipe
        if self.scaler is not None and at.scaler is not None:
            self.scaler.load_state_dict(dict(at.scaler))
        devices = [self.device] if self.device.type == "cuda" else []
        stopped = self._has_waited(at)
        # What a module draws comes from torch's own generators, which must be as reproducible as the order of samples.
        with self.hooks.around(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(generator(*self.shuffle.key).initial_seed())
            for epoch in itertools.count(at.epoch) if recipe.epochs is None else range(at.epoch, recipe.epochs):
                if stopped or (at.steps == recipe.steps and not at.batch):
                    break
                if isinstance(self.forward, nn.Module):
                    self.forward.train()
                self.hooks.begin()
                at = self._epoch(at)
                loss = at.total / at.samples
                self.hooks.epoch(epoch + 1, self._epochs(at), loss)
                at = self._measured(replace(at, epoch=epoch + 1, batch=0, total=0.0, samples=0, loss=loss))
                stopped = self._has_waited(at)
                self._save(at)
        return Fitted(at.loss, at.epoch, at.steps, stopped)

    def _epoch(self, at: Position) -> Position:
        """Train to the end of an epoch, or of the phase."""
        total: torch.Tensor | None = None
        batch, steps, samples = at.batch, at.steps, at.samples
        for group in _groups(self._batches(at), self.recipe.accumulate, self._tick(at)):
            if self.reseeds:
                torch.manual_seed(generator(*self.shuffle.key, at.epoch + 1, batch + 1).initial_seed())
            summed, count = self._step(group, at.epoch, batch)
            if total is None:  # in the type of the losses, so that the sum is the same wherever one began
                total = torch.full_like(summed, at.total)
            total += summed
            batch, steps, samples = batch + len(group), steps + 1, samples + count
            if self.hooks.every and steps % self.hooks.every == 0 and self.hooks.checkpoint:
                self._save(self._moved(at, batch, steps, samples, total))
            if steps == self.recipe.steps:
                break
        if not samples:
            raise DataError(f"{self.name}: the data gives no batch in epoch {at.epoch + 1}; give one sample or more")
        return at if total is None else self._moved(at, batch, steps, samples, total)

    def _moved(self, at: Position, batch: int, steps: int, samples: int, total: torch.Tensor) -> Position:
        """A later position of the same epoch. Raises RunError if a loss up to there is not finite."""
        self._look(at.epoch)
        batches = at.batches + batch - at.batch
        return replace(at, batch=batch, batches=batches, steps=steps, samples=samples, total=float(total))

    def _batches(self, at: Position) -> Iterator[Batch]:
        """What is left of an epoch, as `forward` takes it."""
        if at.steps == self.recipe.steps:
            return
        batches = self.source.batches(self.recipe.batch_size, self.shuffle, at.epoch, at.batch)
        for number, batch in enumerate(batches, start=at.batch + 1):
            yield batch if self.feed is None else self.feed(batch, f"{self.name}, epoch {at.epoch + 1}, batch {number}")

    def _step(self, group: list[Batch], epoch: int, number: int) -> tuple[torch.Tensor, int]:
        """One step of the optimizer; the summed loss and the number of samples."""
        self.optimizer.zero_grad(set_to_none=True)
        samples = 0 if len(group) == 1 else sum(len(batch) for batch in group)
        total: torch.Tensor | None = None
        for k, batch in enumerate(group):
            outputs = self._outputs(batch)
            samples = samples or outputs[0].shape[0]  # of a batch alone, sooner asked of a tensor
            summed = self.objective.total(outputs, batch.target)
            self._watch(summed, outputs, batch, epoch, number + k)
            mean = summed / samples
            if self.hooks.penalty is not None:
                mean = mean + self.hooks.penalty(outputs, batch) * (len(batch) / samples)
            (mean if self.scaler is None else self.scaler.scale(mean)).backward()  # type: ignore[no-untyped-call]
            total = summed.detach() if total is None else total + summed.detach()
        self._update()
        assert total is not None, "there is no group without a batch"
        return total, samples

    def _outputs(self, batch: Batch) -> Outputs:
        if self.autocast is None:
            return full_precision(self._computed(batch))
        with torch.autocast(self.device.type, dtype=self.autocast):
            found = self._computed(batch)
        return full_precision(found)

    def _computed(self, batch: Batch) -> torch.Tensor | Outputs:
        if not isinstance(self.forward, nn.Module):
            return self.forward(batch)
        inputs = batch.inputs
        found: torch.Tensor | Outputs = self.forward(*inputs) if isinstance(inputs, tuple) else self.forward(**inputs)
        return found

    def _update(self) -> None:
        """Step by the gradients that are there."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        self.hooks.before_step()
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.scheduler is not None:
            with warnings.catch_warnings() if self.scaler else nullcontext():
                # A step that the scaler left out, since a gradient was infinite, is one of the schedule all the same.
                if self.scaler is not None:
                    warnings.simplefilter("ignore", UserWarning)
                self.scheduler.step()
        self.hooks.after_step()

    # -- what is not finite ---------------------------------------------------------------------------------------

    def _watch(self, summed: torch.Tensor, outputs: Outputs, batch: Batch, epoch: int, number: int) -> None:
        """Look at a batch's loss where that costs nothing, and at the first anywhere."""
        if not self.looked:
            self.looked = True
            if not (summed.requires_grad and math.isfinite(summed.item())):
                check_first(self.objective, outputs, batch.target)
        if self.device.type == "cpu":
            if not math.isfinite(value := summed.item()):
                raise self._diverged(epoch, number, value)
            return
        # Elsewhere each look waits for the device, so that it is taken at many losses together.
        self.unseen.append((number, summed.detach()))
        if len(self.unseen) == _LOOK:
            self._look(epoch)

    def _look(self, epoch: int) -> None:
        """Raises RunError for the first loss since the last look that is not finite."""
        seen, self.unseen = self.unseen, []
        for number, loss in _not_finite(seen):
            raise self._diverged(epoch, number, float(loss))

    def _diverged(self, epoch: int, batch: int, loss: float) -> Diverged:
        rates = sorted({float(group["lr"]) for group in self.optimizer.param_groups})
        clipped = self.recipe.clip is not None
        also = f"the largest gradient norm (clip = {self.recipe.clip:g})" if clipped else "clip gradients (clip = 1.0)"
        half = ', or take amp = "bfloat16" or none' if self.recipe.amp else ""
        found = f"epoch {epoch + 1}, batch {batch + 1}: the loss is {loss}"
        return Diverged(
            f"{self.name}, {found}; lower the learning rate "
            f"({', '.join(f'{rate:.3g}' for rate in rates)}){' or ' if clipped else ', or '}{also}{half}",
            f"in {found}",
        )

    # -- where it stands ------------------------------------------------------------------------------------------

    def _epochs(self, at: Position) -> int:
        """Epochs in all, by the batches of the one that is over; a stream need not be read to its end to count them."""
        if self.recipe.epochs is not None:
            return self.recipe.epochs
        left = (self.recipe.steps or 0) - at.steps
        return at.epoch + 1 + -(-left // self.recipe.steps_of(at.batch))

    def _tick(self, at: Position) -> Callable[[int], None]:
        """What says that so many batches of this epoch are done."""
        if self.recipe.steps is not None:
            total = self.recipe.steps * self.recipe.accumulate
        else:
            total = (self.recipe.epochs or 0) * self.source.batch_count(self.recipe.batch_size)
        return lambda done: self.hooks.tick(at.batches + done, total)

    def _measured(self, at: Position) -> Position:
        """The same after an epoch, with what decides about stopping."""
        if self.recipe.stopping is None:
            return at
        if self.hooks.measure is None:
            raise RunError(f"{self.name}: the recipe says when to stop early, but nothing measures a loss to decide by")
        loss = self.hooks.measure()
        if at.best is None or loss < at.best - self.recipe.stopping.by:
            return replace(at, best=loss, waited=0)
        return replace(at, waited=at.waited + 1)

    def _has_waited(self, at: Position) -> bool:
        return self.recipe.stopping is not None and at.waited >= self.recipe.stopping.patience

    def _save(self, at: Position) -> None:
        if self.hooks.checkpoint is not None:
            scaler = None if self.scaler is None else cast("dict[str, float]", self.scaler.state_dict())
            self.hooks.checkpoint(replace(at, scaler=scaler))


def _not_finite(seen: list[tuple[int, torch.Tensor]]) -> list[tuple[int, torch.Tensor]]:
    """The losses among some that are not finite, by one wait for their device."""
    if not seen:
        return []
    wrong = cast("list[bool]", (~torch.isfinite(torch.stack([loss for _, loss in seen]))).tolist())
    return [entry for entry, is_wrong in zip(seen, wrong, strict=True) if is_wrong]


def _groups(batches: Iterable[Batch], size: int, tick: Callable[[int], None]) -> Iterator[list[Batch]]:
    """Batches that make a step together, the last of an epoch maybe fewer; each is told of before it is trained on."""
    iterator, done = iter(batches), 0
    while True:
        group: list[Batch] = []
        while len(group) < size:
            batch = next(iterator, None)
            if batch is None:
                break
            tick(done)
            group.append(batch)
            done += 1
        if not group:
            return
        yield group
