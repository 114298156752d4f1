"""Mixtures of experts: feed-forward nets, of which each token goes through those that a router scores highest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Literal, Self

from pydantic import model_validator

from growir.ops.activation import Gelu, Identity, Relu, Sigmoid, Silu, Tanh
from growir.ops.base import (
    Bool,
    Example,
    NonNegativeInt,
    Op,
    OpError,
    Param,
    ParamTable,
    PositiveInt,
    Shape,
    Uniform,
    batch_of,
)
from growir.ops.rule import Rule
from growir.ops.spaces import Axes

Inner = Literal["identity", "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"]
ACTIVATION: Final[Mapping[Inner, Op]] = {
    "identity": Identity(),
    "relu": Relu(),
    "gelu": Gelu(),
    "gelu_tanh": Gelu(approximate="tanh"),
    "silu": Silu(),
    "tanh": Tanh(),
    "sigmoid": Sigmoid(),
}


class Experts(Op):
    """y = sum over experts e of w_e D_e a(U_e x): feed-forward nets of one size, weighted by a router's scores.

    Inputs are tokens (N, ..., D) and scores (N, ..., E), as a linear layer makes them. Each token goes through the
    `top_k` experts of the highest scores only, or through all of them where `top_k` is 0. The weights w are a softmax
    of the scores: with `weights` "chosen" of those that are chosen, so that they sum to one (which is the same as a
    softmax of all, divided by the sum over the chosen); with "all" of all scores, whoever is chosen. A `gated` expert
    is D_e (a(G_e x) * U_e x).

    The weights of all experts are stacked: `up_proj` (E, F, D) and `down_proj` (E, O, F), for F hidden units; gated,
    `gate_up_proj` (E, 2 F, D) holds the rows of G_e and then those of U_e. With `bias` each has one: `up_proj_bias`
    (E, F), or `gate_up_proj_bias` (E, 2 F), and `down_proj_bias` (E, O).

    Hidden units change as those of any feed-forward net do. Experts are normalised as a whole, by the softmax: only
    copies of every expert, equally often, keep the function, and as many times more are then chosen.
    """

    op: Literal["experts"] = "experts"
    num_experts: PositiveInt
    hidden_features: PositiveInt
    out_features: PositiveInt
    activation: Inner = "silu"
    gated: Bool = False
    top_k: NonNegativeInt = 0
    weights: Literal["chosen", "all"] = "chosen"
    bias: Bool = False
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k {self.top_k} is more than num_experts {self.num_experts}")
        return self

    @property
    def chosen(self) -> int:
        """How many experts each token goes through."""
        return self.top_k or self.num_experts

    @property
    def sums_to_one(self) -> bool:
        """Whether the weights of the experts that a token goes through sum to one, whatever the scores."""
        return self.weights == "chosen" or self.chosen == self.num_experts

    @property
    def up(self) -> str:
        """What the stacked weights that read the tokens are called."""
        return "gate_up_proj" if self.gated else "up_proj"

    def infer(self, *xs: Shape) -> Shape:
        x, scores = xs
        if x.rank < 2 or not x.batched:
            raise OpError(f"experts takes tokens of rank 2 or more, (N, ..., features), but gets {x}")
        wanted = Shape((*x.dims[:-1], self.num_experts))
        if scores.dims != wanted.dims:
            raise OpError(f"the scores must be {wanted}, one for each token and expert, but are {scores}")
        return x.with_dim(-1, self.out_features)

    def params(self, *xs: Shape) -> ParamTable:
        count, hidden, out = self.num_experts, self.hidden_features, self.out_features
        features, rows = xs[0].size(-1), hidden * (1 + self.gated)
        inward, outward = Uniform(1 / math.sqrt(features)), Uniform(1 / math.sqrt(hidden))
        table = {
            self.up: Param((count, rows, features), ("expert", "hidden", "in"), inward),
            "down_proj": Param((count, out, hidden), ("expert", "out", "hidden"), outward),
        }
        if self.bias:
            table[f"{self.up}_bias"] = Param((count, rows), ("expert", "hidden"), inward)
            table["down_proj_bias"] = Param((count, out), ("expert", "out"), outward)
        return table

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        x, scores = xs
        experts, out = rule.new(self.num_experts), rule.new(self.out_features)
        hidden = rule.inside("hidden_features", self.hidden_features)
        rule.follows("num_experts", experts)
        rule.follows("out_features", out)
        if self.top_k:
            rule.counts("top_k", experts)
        rule.algebra.unify(scores[-1], experts, "scores the experts")
        rule.only_whole(experts)
        rows = hidden * (1 + self.gated)
        rule.param(self.up, (experts, rows, x[-1]), consumes=(2,))
        rule.param("down_proj", (experts, out, hidden), consumes=(2,))
        if self.bias:
            rule.param(f"{self.up}_bias", (experts, rows))
            rule.param("down_proj_bias", (experts, out))
        return (*rule.join(x[:-1], scores[:-1]), out)

    def macs(self, out: Shape, *xs: Shape) -> int:
        x = xs[0]
        tokens = math.prod(x.sizes[:-1])
        each = (1 + self.gated) * self.hidden_features * x.size(-1) + self.hidden_features * self.out_features
        return tokens * self.chosen * each

    @classmethod
    def examples(cls) -> Sequence[Example]:
        def make(features: int, *tokens: int, **given: object) -> Example:
            op = cls.model_validate({"num_experts": 3, "hidden_features": 2, "out_features": 4, **given})
            return Example(op, (batch_of(*tokens, features), batch_of(*tokens, op.num_experts)))

        return (
            make(5),
            make(4, 2, activation="gelu", bias=True),
            make(3, 2, top_k=2, gated=True),
            make(3, 2, top_k=2, weights="all", bias=True, gated=True, activation="gelu_tanh"),
            make(2, num_experts=4, top_k=1, weights="all", activation="relu"),
            make(2, top_k=1, activation="tanh", out_features=2),
            make(2, activation="sigmoid", gated=True),
            make(2, activation="identity"),
        )
