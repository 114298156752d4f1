"""How weights are trained: the optimizer, its rates over time, and one phase of training; free of torch.

    [optimizer]                     [train.rate]
    name = "SGD"                    name = "cosine"
    learning_rate = 0.1             warmup = 100
    momentum = 0.9

Docs: docs/training.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field, model_validator

from growir.growth.sections import MAX_CHOICES, MOST, Count, NonNegative, Positive, Section, Word

Decay = Literal["matrices", "all"]
Schedule = Literal["constant", "cosine", "one_cycle", "steps", "wsd"]
Rewarm = Literal["no", "symmetric", "new"]
# A number of steps, or below 1 a share of all steps.
Length = Annotated[int, Field(strict=True, ge=0, le=MOST)] | Annotated[float, Field(strict=True, ge=0, lt=1)]


class OptimizerConfig(Section):
    """Which optimizer trains the weights; further keywords of it are settings too, such as momentum or betas.

    Attributes:
        name: A class of torch.optim, in any case, or "package.module:function". A function is called with the list of
            parameters and returns an optimizer. Muon steps the matrices, and AdamW then all else.
        learning_rate: The rate, or the peak where it follows a schedule. By default 3e-3 for AdamW, else the
            optimizer's own.
        weight_decay: By how much each step shrinks weights. By default 0.1 for AdamW, else the optimizer's own.
        decay: Which weights decay, "matrices" (of rank two or more: no biases and no norms) or "all".
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Word = "AdamW"
    learning_rate: Positive | None = None
    weight_decay: NonNegative | None = None
    decay: Decay = "matrices"

    @property
    def keywords(self) -> dict[str, object]:
        """The optimizer's further keywords; lists are tuples, as torch has betas."""
        given = cast("dict[str, object]", self.model_extra or {})
        return {key: tuple(cast("list[object]", v)) if isinstance(v, list) else v for key, v in given.items()}


class RateConfig(Section):
    """How the learning rate goes from the first step to the last; its peak is the optimizer's learning_rate.

    Attributes:
        name: "constant", "cosine", "one_cycle" (up and down again, momentum the other way), "steps", or "wsd": warm up,
            stay, decay.
        warmup: Steps at the start over which the rate rises to its peak, or a share of all steps below 1. By default
            none, and a quarter for "one_cycle".
        least: Where "cosine" and "wsd" end, as a share of the peak.
        milestones: For "steps": after how many steps the rate falls, or after which shares of all steps.
        gamma: For "steps": by which factor it falls at each.
        decay: For "wsd": how many steps the fall at the end takes, or which share of all steps.
        rewarm: After a growth the rate rises anew, over rewarm_steps: "no", "symmetric" for all parameters, or "new"
            for those that the growth created. What a growth adds to a tensor that was there goes at that tensor's rate.
        rewarm_steps: How many.
    """

    name: Schedule = "constant"
    warmup: Length | None = None
    least: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.0
    milestones: Annotated[tuple[Length, ...], Field(max_length=MAX_CHOICES)] = ()
    gamma: Positive = 0.1
    decay: Length = 0.2
    rewarm: Rewarm = "no"
    rewarm_steps: Count = 100

    @property
    def flat(self) -> bool:
        """Whether the rate never changes."""
        return self.name == "constant" and not self.warmup and self.rewarm == "no"

    @model_validator(mode="after")
    def _fits_together(self) -> RateConfig:
        if self.name == "steps" and not self.milestones:
            raise ValueError('"steps" needs milestones, as in milestones = [0.5, 0.75]: the shares at which it falls')
        if self.rewarm != "no" and self.name == "one_cycle":
            raise ValueError('"one_cycle" rises and falls as one curve, so that it takes no rewarm; take "cosine"')
        if self.milestones and self.name != "steps":
            raise ValueError(f'milestones belong to "steps", but the schedule is "{self.name}"; leave them out')
        if list(self.milestones) != sorted(self.milestones) or len({type(m) for m in self.milestones}) > 1:
            shown = json.dumps(self.milestones)
            raise ValueError(f"milestones are steps or shares, one kind, and ascend, but {shown} do not")
        return self


class Stopping(Section):
    """When training ends before its last epoch: where the loss of the selection part no longer falls.

    Attributes:
        patience: Epochs without improvement that are waited for.
        by: The least decrease of the mean loss that is one.
    """

    patience: Count
    by: NonNegative = 0.0


class Recipe(Section):
    """One phase of training.

    Attributes:
        epochs: Passes over the data; or steps are given.
        steps: Steps of the optimizer; or epochs are given.
        batch_size: Samples a batch.
        rate: The schedule of the learning rate.
        clip: The largest norm of all gradients together; longer ones are scaled to it. By default no limit.
        amp: The type that autocast computes in, "bfloat16" or "float16", the latter on CUDA. By default none.
        accumulate: Batches whose gradients are added up for a step.
        stopping: When to end early. By default never.
    """

    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Count = 64
    rate: RateConfig = RateConfig()
    clip: Positive | None = None
    amp: Literal["bfloat16", "float16"] | None = None
    accumulate: Count = 1
    stopping: Stopping | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Recipe:
        if (self.epochs is None) == (self.steps is None):
            found = "both are given" if self.steps else "neither is given"
            raise ValueError(f"epochs or steps say how long, one of them, but {found}")
        return self

    def steps_of(self, batches: int) -> int:
        """The steps of the optimizer in an epoch of so many batches."""
        return -(-batches // self.accumulate)

    def seen(self, samples: int) -> int:
        """The samples that training sees, of data with so many, each as often as it is read."""
        return (self.steps or 0) * self.accumulate * self.batch_size or (self.epochs or 0) * samples

    def all_steps(self, batches: int | None) -> int | None:
        """The steps of the optimizer in all, for batches an epoch; None where that cannot be known."""
        if self.steps is not None:
            return self.steps
        return None if batches is None else (self.epochs or 0) * self.steps_of(batches)


def recipe_from(given: Mapping[str, Any] | Recipe) -> Recipe:
    """A recipe, or settings of one. Raises RunError naming what is wrong."""
    return given if isinstance(given, Recipe) else Recipe(**given)
