"""The nets that are fixed or searched for: perceptrons, and where convolutions read the data nets like VGG."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import nn

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "selu": nn.SELU,
}


class Layer(NamedTuple):
    """A layer with weights.

    Attributes:
        before: Channels that it reads.
        width: Channels that it gives.
        kernel: The side of its kernel; 0 for a fully connected one.
        places: Positions that it is computed at.
        pooled: Whether a pool stands behind it.
    """

    before: int
    width: int
    kernel: int = 0
    places: int = 1
    pooled: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample."""
        return self.before * self.width * max(self.kernel, 1) ** 2 * self.places

    @property
    def parameters(self) -> int:
        """With the bias, or with scale and shift of the norm behind a convolution."""
        return self.before * self.width * max(self.kernel, 1) ** 2 + self.width * (2 if self.kernel else 1)


@dataclass(frozen=True, slots=True)
class Design:
    """A net that can be made.

    Attributes:
        shape: Of a sample: (features,) or (channels, height, width).
        outputs: Classes, or numbers to predict.
        depth: Hidden layers, of a net like VGG stages, each behind the first twice as wide, each ending in a pool.
        width: Of the hidden layers, or of the first stage.
        activation: Its name.
        kernel: The side of a convolution's kernel.
        convolutions: In each stage.
    """

    shape: tuple[int, ...]
    outputs: int
    depth: int
    width: int
    activation: str = "relu"
    kernel: int = 3
    convolutions: int = 2

    @property
    def maps(self) -> bool:
        """Whether it reads maps."""
        return len(self.shape) == 3

    @property
    def layers(self) -> Sequence[Layer]:
        """Those with weights, in order."""
        return list(self._maps() if self.maps else self._vectors())

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample; as growir counts, layers only."""
        return sum(layer.macs for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Learned numbers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def words(self) -> str:
        """What it is."""
        kind = f"{self.depth} x {self.convolutions} convolutions {self.kernel}" if self.maps else f"{self.depth} hidden"
        return f"{kind}, width {self.width}, {self.activation}" if self.depth else "linear"

    def module(self) -> nn.Module:
        """The net, with weights as torch draws them."""
        parts: list[nn.Module] = []
        *hidden, last = self.layers
        for layer in hidden:
            if layer.kernel:
                parts.append(nn.Conv2d(layer.before, layer.width, layer.kernel, padding=layer.kernel // 2, bias=False))
                parts.append(nn.BatchNorm2d(layer.width))
            else:
                parts.append(nn.Linear(layer.before, layer.width))
            parts.append(ACTIVATIONS[self.activation]())
            if layer.pooled:
                parts.append(nn.MaxPool2d(2))
        if self.maps:
            parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*parts, nn.Linear(last.before, last.width))

    def of_width(self, width: int) -> Design:
        """The same as wide as this."""
        return replace(self, width=width)

    def widest(self, parameters: int, macs: int | None = None) -> int:
        """The largest width within limits, at least 1."""

        def fits(width: int) -> bool:
            found = self.of_width(width)
            return found.parameters <= parameters and (macs is None or found.macs <= macs)

        if self.depth == 0:
            return 1
        high = 2
        while fits(high):
            high *= 2
        low = 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def _vectors(self) -> Iterator[Layer]:
        before = math.prod(self.shape)
        for _ in range(self.depth):
            yield Layer(before, self.width)
            before = self.width
        yield Layer(before, self.outputs)

    def _maps(self) -> Iterator[Layer]:
        before, high, wide = self.shape
        for stage in range(self.depth):
            width = self.width * 2**stage
            for k in range(self.convolutions):
                yield Layer(before, width, self.kernel, high * wide, k == self.convolutions - 1)
                before = width
            high, wide = high // 2, wide // 2
        yield Layer(before, self.outputs)


def fixed(shape: tuple[int, ...], outputs: int, parameters: int) -> Design:
    """The net that people would take first, as large as this: one hidden layer, or three stages like VGG's."""
    found = Design(shape, outputs, depth=3 if len(shape) == 3 else 1, width=1)
    low = found.of_width(found.widest(parameters))
    return min((low, low.of_width(low.width + 1)), key=lambda design: abs(design.parameters - parameters))
