"""The padding vector of an embedding: zero from the start, as in torch, and in every column it grows by."""

from __future__ import annotations

import numpy as np
import torch

from growir.graph import Graph, Input, Node
from growir.network import Network
from growir.ops import Embedding, Linear
from growir.passes import Widen


def words(padding_idx: int | None) -> Graph:
    return Graph(
        inputs=(Input(name="x", shape=("N", 3), dtype="int64"),),
        nodes=(
            Node(name="emb", op=Embedding(num_embeddings=5, embedding_dim=4, padding_idx=padding_idx), inputs=("x",)),
            Node(name="head", op=Linear(out_features=2), inputs=("emb",)),
        ),
        outputs=("head",),
    )


def test_the_padding_vector_starts_at_zero_and_the_others_as_without() -> None:
    with_padding, without = (Network.init(words(k)).arrays["emb.weight"] for k in (2, None))
    rows = torch.nn.Embedding(5, 4, padding_idx=2).weight.detach().abs().sum(1) == 0
    assert np.array_equal(np.abs(with_padding).sum(1) == 0, rows.numpy())
    assert not (without == 0).any()
    others = [0, 1, 3, 4]
    assert np.array_equal(with_padding[others], without[others])


def test_the_columns_it_grows_by_are_zero_there() -> None:
    grown = Network.init(words(2)).apply(Widen(node="emb", by=3), verify=True).arrays["emb.weight"]
    assert grown.shape == (5, 7)
    assert [bool((row == 0).any()) for row in grown] == [False, False, True, False, False]
    assert not grown[2].any()
