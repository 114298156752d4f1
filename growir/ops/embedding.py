"""Vectors for integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator

from growir.ops.base import (
    Example,
    NonNegativeInt,
    Normal,
    Op,
    OpError,
    Param,
    ParamTable,
    PositiveInt,
    Shape,
)
from growir.ops.rule import Rule
from growir.ops.spaces import Axes


class Embedding(Op):
    """A learned vector for each of num_embeddings integers: (...) of int64 to (..., embedding_dim).

    The vector at `padding_idx` starts at zero and is not trained.
    """

    op: Literal["embedding"] = "embedding"
    num_embeddings: PositiveInt
    embedding_dim: PositiveInt
    padding_idx: NonNegativeInt | None = None
    integers = True

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.padding_idx is not None and self.padding_idx >= self.num_embeddings:
            raise ValueError(f"padding_idx {self.padding_idx} lies outside the {self.num_embeddings} embeddings")
        return self

    def infer(self, *xs: Shape) -> Shape:
        if xs[0].dtype != "int64":
            raise OpError(f"embedding takes integers, but its input holds {xs[0].dtype}")
        return Shape((*xs[0].dims, self.embedding_dim))

    def params(self, *xs: Shape) -> ParamTable:
        start = Normal(1.0, zero=self.padding_idx)
        return {"weight": Param((self.num_embeddings, self.embedding_dim), ("entry", "out"), start)}

    def channels(self, rule: Rule, *xs: Axes) -> Axes:
        out = rule.new(self.embedding_dim)
        rule.follows("embedding_dim", out)
        entries = rule.looked_up(self.num_embeddings)
        rule.follows("num_embeddings", entries)
        rule.param("weight", (entries, out))
        return (*xs[0], out)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        return (
            Example(cls(num_embeddings=5, embedding_dim=3), (Shape(("N", 4), "int64"),)),
            Example(cls(num_embeddings=6, embedding_dim=2, padding_idx=1), (Shape(("N", 2, 3), "int64"),)),
        )
