"""Training of nets that are not grown: on the data as growth reads it, by growth's optimizer and one-cycle schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from experiments.yardsticks.problems import Array, Arrays, Problem
from growir.data.memory import ArraySource
from growir.data.shuffling import Shuffle
from growir.growth.config import TrainConfig
from growir.growth.evaluating import evaluate
from growir.growth.fit import fit
from growir.growth.objective import CrossEntropy, Objective, SquaredError, full_precision
from growir.growth.optimizing import make
from growir.growth.phase import Hooks
from growir.growth.rates import schedule
from growir.growth.recipe import RateConfig, Recipe

AT_ONCE = 1000  # samples that are measured together
# The longest training, in steps of the optimizer, or in lengths of growth's final fit if that is more: a net of ten
# weights could pass over its data for hours for the operations of growth.
MOST_STEPS, MOST_FITS = 100_000, 4


class Scores(NamedTuple):
    """How a net does.

    Attributes:
        score: Accuracy, or R^2.
        loss: The mean cross-entropy, or the mean squared error in units of the training targets' variance.
    """

    score: float
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Data that nets learn.

    Attributes:
        train: The training part.
        test: The test part.
        shape: Of a sample.
        outputs: Classes, or numbers to predict.
        objective: What is minimised.
        config: Growth's training here: batch size, rates, and epochs of the final fit.
    """

    train: ArraySource
    test: ArraySource
    shape: tuple[int, ...]
    outputs: int
    objective: Objective
    config: TrainConfig

    @property
    def epochs(self) -> int:
        """Of growth's final fit, by default."""
        return self.config.epochs_final or 1

    def flops(self, macs: int, epochs: int, samples: int | None = None) -> float:
        """Of so much training: two for a multiply-accumulate, and as many for each of the two gradients."""
        return 6.0 * macs * (len(self.train) if samples is None else samples) * epochs

    def epochs_for(self, flops: float, macs: int) -> int:
        """How long to train for so many operations, within the longest training."""
        each, batches = self.flops(macs, 1), self.train.batch_count(self.config.batch_size or 64)
        most = max(MOST_STEPS // batches, MOST_FITS * self.epochs)
        return max(1, min(most, round(flops / each))) if each else self.epochs

    def measured(self, module: nn.Module, source: ArraySource) -> Scores:
        """How a net does on a part."""
        module.eval()

        def forward(batch: Any) -> Any:
            return full_precision(module(*batch.inputs))

        found = evaluate(forward, self.objective, source.batches(AT_ONCE, None)).metrics
        if "accuracy" in found:
            return Scores(found["accuracy"], found["loss"])
        return Scores(r_squared(found["mse"], _targets(source)), found["loss"])

    def fit(
        self,
        module: nn.Module,
        source: ArraySource,
        epochs: int,
        seed: int,
        *,
        rate: float | None = None,
        after: Callable[[int], None] = lambda epochs: None,
    ) -> None:
        """Train in place.

        Args:
            module: The net.
            source: What it is trained on.
            epochs: How long.
            seed: Of the order of the samples.
            rate: The peak of the rates; growth's if None.
            after: Called after each epoch with how many are done; it may raise to stop.

        Raises:
            RunError: The loss is not finite.
        """
        config, batch = self.config, self.config.batch_size or 64
        parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        optimizer = make(parameters, rate=rate or config.learning_rate_final, weight_decay=config.weight_decay)
        recipe = Recipe(epochs=epochs, batch_size=batch, rate=RateConfig(name="one_cycle"))
        fit(
            module,
            self.objective,
            source,
            optimizer,
            recipe,
            shuffle=Shuffle((seed, 2)),
            scheduler=schedule(optimizer, recipe.rate, recipe.all_steps(source.batch_count(batch))),
            hooks=Hooks(epoch=lambda done, total, loss: after(done)),
        )


def r_squared(mse: float, targets: Array) -> float:
    """The share of the targets' variance that is explained."""
    return 1.0 - mse / float(np.var(targets))


def prepared(problem: Problem, arrays: Arrays, *, raw: bool = False) -> Prepared:
    """The data of a problem as nets read it.

    Tables are standardised by feature and images as a whole, by the training part, as growth does it; what never varies
    is left out, but for maps.

    Args:
        problem: The problem.
        arrays: Of a seed.
        raw: Whether samples and targets stay as they are, for a network that standardises them itself.
    """
    parts = {key: np.asarray(array) for key, array in arrays.items()}
    outputs = int(parts["y_train"].max()) + 1 if problem.classes else 1
    shape, kind = ((-1,), np.int64) if problem.classes else ((-1, 1), np.float32)
    targets: dict[str, Array] = {part: parts[f"y_{part}"].reshape(shape).astype(kind) for part in ("train", "test")}
    samples: dict[str, Array] = {part: parts[f"x_{part}"].astype(np.float32) for part in ("train", "test")}
    scale = None if problem.classes else torch.from_numpy(targets["train"].std(axis=0))
    if not raw:
        samples = _standardised(samples, problem.maps)
        if not problem.classes:
            mean, std = targets["train"].mean(axis=0), targets["train"].std(axis=0)
            targets = {part: (y - mean) / std for part, y in targets.items()}
            scale = None
    train, test = (ArraySource(samples[part], targets[part], f"{problem.name}, {part}") for part in samples)
    objective = CrossEntropy() if problem.classes else SquaredError(scale)
    sample = samples["train"].shape[1:]
    return Prepared(train, test, sample, outputs, objective, problem.training(len(train)))


def _standardised(samples: dict[str, Array], maps: bool) -> dict[str, Array]:
    x = samples["train"]
    if maps:
        samples = {part: v if v.ndim == 4 else v[:, None] for part, v in samples.items()}
        mean, std = x.mean(dtype=np.float64), x.std(dtype=np.float64)
    else:
        flat = {part: v.reshape(len(v), -1) for part, v in samples.items()}
        varies = flat["train"].min(axis=0) < flat["train"].max(axis=0)
        samples = {part: v[:, varies] for part, v in flat.items()}
        # Features of a table are in units of their own; the pixels of an image are in one.
        over = None if x.ndim > 2 else 0
        mean, std = (getattr(samples["train"], how)(axis=over, dtype=np.float64) for how in ("mean", "std"))
    return {part: np.ascontiguousarray((v - mean) / std, np.float32) for part, v in samples.items()}


def _targets(source: ArraySource) -> Array:
    target = source.target
    assert isinstance(target, torch.Tensor), "one array"
    found: Array = target[source.indices].numpy()
    return found
