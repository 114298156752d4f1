"""Small models that do something with the sizes of their inputs, each with the axes that stay free."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from tests.importing.models import Model

TOKENS, MAPS = (5, 6), (3, 12, 16)


def vector(width: int = 6) -> nn.Module:
    return nn.Linear(width, 8)


def filters(padding: int = 0) -> nn.Module:
    return nn.Conv2d(3, 8, 3, padding=padding)


class DividesByLength(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = torch.relu(self.f(x)).sum(1)
        return total / x.shape[1]


class DividesByAlmostLength(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = torch.relu(self.f(x)).sum(1)
        return total / (x.shape[1] + 1)


class DividesByFive(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor = torch.relu(self.f(x)).sum(1)
        return total / 5


class BehindAZeroGate(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return y + self.gate * (y.cos().sum(1, keepdim=True) * x.shape[1] ** -0.5)


class PadsToAMultiple(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high, wide = x.shape[-2:]
        y: torch.Tensor = self.f(F.pad(x, (0, -wide % 8, 0, -high % 8)))
        return torch.relu(y).mean((2, 3))


class LastByIndex(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return y[:, x.shape[1] - 1]


class LastFromTheEnd(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return y[:, -1]


class ScaledByLength(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return y * x.shape[1] ** -0.5


class BackToTheInputsSize(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(self.f(F.max_pool2d(x, 3)), size=x.shape[-2:], mode="bilinear")


class NumberedPositions(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x) + self.embed(torch.arange(x.shape[1]))
        return y


class SlicedPositions(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x) + self.position[:, : x.shape[1]]
        return y


class Ramp(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x) * torch.linspace(0, 1, x.shape[1], dtype=x.dtype)[:, None]
        return y


class SwappedHalves(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts: tuple[torch.Tensor, ...] = self.f(x).split(x.shape[1] // 2, 1)
        return torch.cat(parts[::-1], 1)


class CausalMask(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return (y @ y.mT).masked_fill(later, -1e9).softmax(-1) @ y


class RelativeBias(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        place = torch.arange(x.shape[1])
        bias: torch.Tensor = self.bias[(place[:, None] - place).clamp(-3, 3) + 3]
        return (y @ y.mT + bias).softmax(-1) @ y


class Rolled(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.roll(self.f(x), x.shape[1] // 2, 1)


class AdaptiveHalf(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(self.f(x), (x.shape[2] // 2, x.shape[3] // 2))


class PooledAsAWhole(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return F.avg_pool2d(y, y.shape[2:]).flatten(1)


class Patches(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).flatten(3)
        z: torch.Tensor = self.f(y)
        return z


class MapsOfTokens(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return y.flatten(2).mT.softmax(1).mT.reshape(x.shape[0], 8, x.shape[2], x.shape[3])


class NormOfWholeMaps(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return F.layer_norm(y, y.shape[1:])


class TokenByToken(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros(x.shape[0], 8, dtype=x.dtype)
        for k in range(x.shape[1]):
            y = torch.tanh(self.f(x[:, k]) + y)
        return y


class DecidesByLength(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return torch.relu(y) if x.shape[1] > 8 else y


class DecidesFarAway(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        if x.shape[1] > 512:
            y = torch.relu(y)
        return y


class DecidesByAnInnerSize(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = F.max_pool2d(self.f(x), 2)
        return F.max_pool2d(y, 2) if min(y.shape[2] + 2, 100) == 100 else y


class ReadsTheFirst(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x[..., :600, :])
        return y


class ReadsTheLast(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return y[:, -70:]


class PadsToAPowerOfTwo(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        whole = 2 ** math.ceil(math.log2(x.shape[1]))
        return F.pad(y, (0, 0, 0, whole - x.shape[1])).mean(1)


class MergedWithTheBatch(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x.reshape(-1, x.shape[2]))
        return y.view(x.shape[0], -1, 8)


class OnlySquares(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return y + y.mT


class SquaresByNumber(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return (y + y.mT) / x.shape[2]


class TwoSequences(Model):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.f(x) + self.g(y)
        return z.mean(1)


class TwoSequencesByNumber(Model):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.f(x) + self.g(y)
        return z.sum(1) / (2 * y.shape[1])


class OneOfTwoByNumber(Model):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        queries: torch.Tensor = self.f(x)
        keys: torch.Tensor = self.g(y)
        return (queries @ keys.mT / y.shape[1]).softmax(-1) @ keys


class NumberOfIds(Model):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.embed(ids)
        return y.sum(1) * ids.shape[1]


class MeanOfIds(Model):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.embed(ids)
        return y.mean(1)


class Perceptron(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.relu(self.f(x))
        return y


class Heads(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self.f(x) * factor for factor in (1, 2, 3))
        q, k, v = (y.view(y.shape[0], y.shape[1], 2, 4).transpose(1, 2) for y in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape[0], x.shape[1], 8)


class Shuffled(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class MeanOfMaps(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.f(x)
        return y.view(y.shape[0], 8, -1).mean(-1)


class SkipPaddedToFit(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        small: torch.Tensor = self.u(F.max_pool2d(self.f(x), 2))
        high, wide = x.shape[2] - small.shape[2], x.shape[3] - small.shape[3]
        return torch.cat([x, F.pad(small, (0, wide, 0, high))], 1)


@dataclass(frozen=True)
class Sized:
    """A program.

    Attributes:
        make: Builds the model.
        shapes: Its inputs' shapes without the batch.
        free: The axes that take other sizes, as (input, axis).
        vocabulary: For token numbers, how many there are.
    """

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] = (TOKENS,)
    free: frozenset[tuple[int, int]] = frozenset()
    vocabulary: int = 0

    def inputs(self, sizes: dict[tuple[int, int], int] | None = None, seed: int = 0) -> tuple[torch.Tensor, ...]:
        """Two samples, some axes of another size."""
        generator = torch.Generator().manual_seed(seed)
        found: list[torch.Tensor] = []
        for k, shape in enumerate(self.shapes):
            dims = [(sizes or {}).get((k, axis), size) for axis, size in enumerate((2, *shape))]
            if self.vocabulary:
                found.append(torch.randint(self.vocabulary, dims, generator=generator))
            else:
                found.append(torch.randn(dims, generator=generator, dtype=torch.float64))
        return tuple(found)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))


LENGTH = frozenset({(0, 1)})
PLACES = frozenset({(0, 2), (0, 3)})

PROGRAMS: dict[str, Sized] = {
    "divides by length": Sized(lambda: DividesByLength(f=vector()), free=LENGTH),
    "divides by almost length": Sized(lambda: DividesByAlmostLength(f=vector())),
    "divides by five": Sized(lambda: DividesByFive(f=vector())),
    "behind a zero gate": Sized(lambda: BehindAZeroGate(f=vector(), gate=nn.Parameter(torch.zeros(8)))),
    "pads to a multiple": Sized(lambda: PadsToAMultiple(f=filters()), ((3, 13, 16),)),
    "last by index": Sized(lambda: LastByIndex(f=vector())),
    "last from the end": Sized(lambda: LastFromTheEnd(f=vector())),
    "scaled by length": Sized(lambda: ScaledByLength(f=vector())),
    "back to the input's size": Sized(lambda: BackToTheInputsSize(f=filters(1)), (MAPS,)),
    "numbered positions": Sized(lambda: NumberedPositions(f=vector(), embed=nn.Embedding(64, 8)), free=LENGTH),
    "sliced positions": Sized(lambda: SlicedPositions(f=vector(), position=_parameter(1, 64, 8)), free=LENGTH),
    "ramp": Sized(lambda: Ramp(f=vector())),
    "swapped halves": Sized(lambda: SwappedHalves(f=vector()), ((8, 6),)),
    "causal mask": Sized(lambda: CausalMask(f=vector()), free=LENGTH),
    "relative bias": Sized(lambda: RelativeBias(f=vector(), bias=_parameter(7)), free=LENGTH),
    "rolled": Sized(lambda: Rolled(f=vector()), ((8, 6),)),
    "adaptive half": Sized(lambda: AdaptiveHalf(f=filters()), (MAPS,)),
    "pooled as a whole": Sized(lambda: PooledAsAWhole(f=filters(1)), (MAPS,)),
    "patches": Sized(lambda: Patches(f=vector(48)), (MAPS,)),
    "maps of tokens": Sized(lambda: MapsOfTokens(f=filters(1)), (MAPS,)),
    "norm of whole maps": Sized(lambda: NormOfWholeMaps(f=filters()), (MAPS,)),
    "token by token": Sized(lambda: TokenByToken(f=vector())),
    "decides by length": Sized(lambda: DecidesByLength(f=vector())),
    "decides far away": Sized(lambda: DecidesFarAway(f=vector())),
    "decides by an inner size": Sized(lambda: DecidesByAnInnerSize(f=filters()), ((3, 12, 9),), frozenset({(0, 3)})),
    "reads the first": Sized(lambda: ReadsTheFirst(f=vector())),
    "reads the last": Sized(lambda: ReadsTheLast(f=vector())),
    "pads to a power of two": Sized(lambda: PadsToAPowerOfTwo(f=vector())),
    "merged with the batch": Sized(lambda: MergedWithTheBatch(f=vector()), free=LENGTH),
    "only squares": Sized(lambda: OnlySquares(f=filters()), ((3, 12, 12),), PLACES),
    "squares by number": Sized(lambda: SquaresByNumber(f=filters()), ((3, 12, 12),)),
    "two sequences": Sized(lambda: TwoSequences(f=vector(), g=vector()), (TOKENS, TOKENS), frozenset({(0, 1), (1, 1)})),
    "two sequences by number": Sized(lambda: TwoSequencesByNumber(f=vector(), g=vector()), (TOKENS, TOKENS)),
    "one of two by number": Sized(lambda: OneOfTwoByNumber(f=vector(), g=vector()), ((7, 6), TOKENS), LENGTH),
    "number of ids": Sized(lambda: NumberOfIds(embed=nn.Embedding(9, 4)), ((7,),), vocabulary=9),
    "mean of ids": Sized(lambda: MeanOfIds(embed=nn.Embedding(9, 4)), ((7,),), LENGTH, vocabulary=9),
    "perceptron": Sized(lambda: Perceptron(f=vector()), free=LENGTH),
    "perceptron on maps": Sized(lambda: Perceptron(f=filters()), (MAPS,), PLACES),
    "heads": Sized(lambda: Heads(f=vector()), free=LENGTH),
    "encoder layer": Sized(lambda: Perceptron(f=nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)), free=LENGTH),
    "shuffled": Sized(lambda: Shuffled(f=filters()), (MAPS,), PLACES),
    "mean of maps": Sized(lambda: MeanOfMaps(f=filters()), (MAPS,), PLACES),
    "skip padded to fit": Sized(lambda: SkipPaddedToFit(f=filters(1), u=nn.Upsample(scale_factor=2)), (MAPS,), PLACES),
}
