"""The settings of DAG growth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator

from growir.growth.policy import PolicySettings
from growir.growth.sections import MAX_CHOICES, Count, Rate, Share, Word, told_as
from growir.nearest import suggestion
from growir.ops import ACTIVATIONS
from growir.ops.base import Bool, PositiveInt

Directions = Literal["random", "fitted"]
Norm = Literal["none", "batch"]
Strategy = Literal["whole", "restricted", "bic", "widen"]
# One list of words: of a union only the first half would be named to who wrote none of them.
Way = Literal["whole", "restricted", "bic", "widen", "tournament"]


class DagConfig(PolicySettings):
    """DAG growth by expressivity bottleneck.

    Attributes:
        name: Growth by expressivity bottleneck.
        strategy: "whole", "restricted", "bic", "widen", or the best of several, "tournament". Consider every move
            ("whole"); those that feed or widen the state with the largest bottleneck ("restricted"), and of these the
            one with the smallest Bayesian information criterion, for as long as that falls ("bic"); one hidden state
            between data and output and then its widenings only ("widen", with kernels a chain of maps, each of half the
            size), which trains best where inputs are many and the budget is small; or grow a network by each strategy
            in `branches`, fit each on two thirds of the data as the final fit will, and keep the one that does best on
            the last third ("tournament").
        branches: The strategies of a tournament, the simplest first. A later one must be better by more than chance.
        neurons: Neurons of a new state or a widening, or "double": as many as double the parameters, at least eight.
            Fewer where the budget ends. By default "double" where trials find the size, else as many as a third of the
            parameter budget pays for. That is between data and output, at most 8192: a few large steps end in better
            networks than many small. Channels of a new map are eight by default, and a map doubles.
        activation: Of new states; of a list, each is tried.
        kernels: Kernel sizes of convolutions; none keeps to fully connected layers.
        norm: What stands between the convolution and the activation of a new map, "batch" norm or "none".
        shortcuts: Whether residual blocks behind hidden maps are moves too: x + layer(activation(layer(x))), of two
            convolutions. "widen" has none, since a map in front of one does not become wider.
        directions: Incoming weights of new neurons, "random" or "fitted". Fitted are the best of a pool that holds the
            closed-form directions too, those of vectors then fitted by descent.
        samples: The most samples of each part that candidates are measured on.
        ridge: Regularisation of every least-squares solve. It is relative to the mean square of its features. By
            default each solve chooses among three on held-out samples.
        significance: The largest probability of error that a growth may have. Growth ends where no candidate improves
            the selection part, at once or after the training that follows, with a smaller probability of error than
            this (one-sided, paired by sample, each candidate by itself: of many, one may pass by chance); 1 takes any
            improvement, and what trains to one or not. By default 1 for "widen", else 0.05. Width pays after a full
            training.
        trim: Whether edges and neurons go again, once the training after a growth is over, that the selection part does
            not miss by the test of `significance`: what would not pass as a growth. Growth ends where two growths in a
            row leave the network no larger so.
    """

    name: Literal["dag"] = "dag"
    strategy: Way = "tournament"
    branches: Annotated[tuple[Strategy, ...], Field(min_length=1, max_length=MAX_CHOICES)] = ("widen", "whole")
    neurons: Annotated[PositiveInt | Literal["double"], told_as('a whole number above 0, or "double"')] | None = None
    activation: Word | Annotated[tuple[Word, ...], Field(max_length=MAX_CHOICES)] = "relu"
    kernels: Annotated[tuple[Annotated[int, Field(strict=True, gt=0, le=31)], ...], Field(max_length=MAX_CHOICES)] = ()
    norm: Norm = "none"
    shortcuts: Bool = False
    directions: Directions = "random"
    samples: Count = 6000
    ridge: Rate | None = None
    significance: Share | None = None
    trim: Bool = False

    @property
    def select_share(self) -> float:
        return 1 / 3

    def most_parameters(self, samples: int, inputs: int, outputs: int, tried: bool) -> int:
        # At least enough for eight neurons beside a linear layer.
        most = min(100_000, 10 * samples) if tried else min(50_000, 2 * samples)
        return max((inputs + 1) * (outputs + 8) + 8 * outputs, most)

    @property
    def reads_maps(self) -> bool:
        return bool(self.kernels)

    def branch(self, strategy: Strategy) -> DagConfig:
        """The policy of one branch of a tournament."""
        return self.model_copy(update={"strategy": strategy})

    def contestants(self) -> Sequence[tuple[str | None, DagConfig]]:
        names = list(dict.fromkeys(self.branches))
        if self.strategy != "tournament":
            return [(None, self)]
        if len(names) == 1:
            return [(None, self.branch(names[0]))]
        return [(name, self.branch(name)) for name in names]

    @property
    def count(self) -> int | None:
        """The neurons of a growth, where that is a number."""
        return self.neurons if isinstance(self.neurons, int) else None

    @property
    def error_rate(self) -> float:
        """The probability of error that a growth may have."""
        return self.significance or (1.0 if self.strategy == "widen" else 0.05)

    @property
    def activations(self) -> tuple[str, ...]:
        """Those of new states."""
        return (self.activation,) if isinstance(self.activation, str) else tuple(dict.fromkeys(self.activation))

    @field_validator("activation")
    @classmethod
    def _known(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError("the list is empty; name at least one activation")
        for name in (value,) if isinstance(value, str) else value:
            if name not in ACTIVATIONS:
                near = suggestion(name, ACTIVATIONS)
                raise ValueError(f"there is no such activation; there are {', '.join(ACTIVATIONS)}.{near}")
        return value

    @field_validator("kernels")
    @classmethod
    def _odd(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        even = [size for size in value if size % 2 == 0]
        if even:
            raise ValueError(f"kernel sizes must be odd, to keep positions centred: {even[0] + 1} instead of {even[0]}")
        return tuple(dict.fromkeys(value))
