"""A refusal names the cause that the model's author can mend, and blames growir only where growir is wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.errors import ModelError
from tests.importing.models import Model, vectors

Forward = Callable[[Any, Any], Any]


class Calls(Model):
    """A model whose forward is given."""

    def __init__(self, forward: Forward, **parts: Any) -> None:
        super().__init__(**parts)
        self.function = forward
        self.calls = 0

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def refused(forward: Forward, example: torch.Tensor | None = None, **parts: Any) -> str:
    """The error's text without the model's own lines, which name everything that they call."""
    with pytest.raises(ModelError) as caught:
        growir.from_torch(Calls(forward, **parts).eval(), vectors().float() if example is None else example)
    text = str(caught.value)
    assert "wrongly" not in text
    return re.sub(r"test_causes.py:\d+: .*?: (?=[\w.]+ |checks |computes |what )", "", text)


def asserts(model: Any, x: torch.Tensor) -> torch.Tensor:
    assert x.sum() > -1e9
    return model.fc(x)


def raises(model: Any, x: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(x).all():
        raise ValueError("not finite")
    return model.fc(x)


def counts(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.calls += 1
    return model.fc(x) * model.calls


def by_chance(model: Any, x: torch.Tensor) -> torch.Tensor:
    return model.fc(x) * random.choice([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])


def by_batch(model: Any, x: torch.Tensor) -> torch.Tensor:
    return model.fc(x) if x.shape[0] == 2 else x


IDS = torch.tensor([[1, 2, 3], [4, 5, 0]])
TOKENS = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
DRAWS = "draws random numbers; a graph draws only in dropout"
IN_EVAL = (
    "draws random numbers in eval mode, too; a graph draws only in dropout, and in train mode alone. Say training="
)
UNSTEADY = "the model gives another output each time that it runs on the same inputs"
BATCH = "depends on the batch size or on the other samples"
VALUES = "what the model does depends on the values of its input"
CHECKS = "checks the values of a tensor, which a graph cannot do. Leave the check out"
SIZES = "has a size that depends on the numbers in a tensor"
STEPS = "works token by token, each from the one before; a graph has no recurrence"
BAG = "takes the rows of each bag together, as nn.EmbeddingBag does"
NUMPY = "computes with numpy, outside of what torch.export follows"


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda m, x: F.dropout(m.fc(x), 0.5), IN_EVAL),
        (lambda m, x: F.alpha_dropout(m.fc(x), 0.5, training=True), IN_EVAL),
        (lambda m, x: F.dropout2d(m.fc(x)[:, :, None, None], 0.5, training=True).flatten(1), IN_EVAL),
        (lambda m, x: F.rrelu(m.fc(x), training=True), IN_EVAL),
        (lambda m, x: m.fc(x) + torch.rand(4), DRAWS),
        (lambda m, x: m.fc(x) + torch.randn(x.shape[0], 4), DRAWS),
        (lambda m, x: m.fc(x) + torch.rand_like(x), DRAWS),
        (lambda m, x: torch.normal(m.fc(x), 1.0), DRAWS),
        (lambda m, x: m.fc(x) * torch.bernoulli(torch.sigmoid(x)), DRAWS),
        (lambda m, x: m.fc(x) * torch.empty_like(x).bernoulli_(0.5), DRAWS),
        (lambda m, x: m.fc(x) + torch.multinomial(torch.softmax(x, -1), 1), DRAWS),
        (lambda m, x: m.fc(x)[:, torch.randperm(4)], DRAWS),
        (lambda m, x: F.gumbel_softmax(m.fc(x)), DRAWS),
        (lambda m, x: m.fc(x) * np.random.default_rng().random(), UNSTEADY),
        (by_chance, UNSTEADY),
        (counts, UNSTEADY),
        (lambda m, x: m.fc(x) * len(x), BATCH),
        (lambda m, x: m.fc(x) * int(x.shape[0]), BATCH),
        (by_batch, BATCH),
        (lambda m, x: m.fc(x) * x.shape[0], "computes with the batch size"),
        (lambda m, x: torch.roll(m.fc(x), 1), "rolls over all axes as one, the batch too; a graph never mixes samples"),
        (lambda m, x: m.fc(x) if x.sum() > 0 else x, VALUES),
        (lambda m, x: m.fc(x) if torch.allclose(x, x) else x, VALUES),
        (lambda m, x: m.fc(x) * float(x.abs().max()), VALUES),
        (asserts, CHECKS),
        (raises, VALUES),
        (lambda m, x: (torch._assert(x.sum() > -1e9, "small"), m.fc(x))[1], CHECKS),  # type: ignore[no-untyped-call]
        (lambda m, x: m.fc(x) + torch.from_numpy(np.sin(x.detach().numpy())), NUMPY),
        (lambda m, x: m.fc(x)[x.sum(1).nonzero()[:, 0]], SIZES),
        (lambda m, x: m.fc(x) + torch.unique(x)[0], SIZES),
        (lambda m, x: torch.fft.rfft(m.fc(x)).abs(), "computes with complex numbers"),
        (lambda m, x: m.fc(x).to_sparse().to_dense(), "makes a sparse tensor"),
        (lambda m, x: torch.vmap(lambda row: m.fc(row) * 2)(x), "maps over slices of an input, with torch.vmap"),
        (lambda m, x: torch.func.jvp(m.fc, (x,), (x,))[1], "takes a derivative inside the model"),
        (lambda m, x: m.fc(x).erfinv_(), "aten.erfinv_ has no operator in growir"),
        (lambda m, x: m.fc(x).to("meta"), "is on meta, but the model is imported on the CPU"),
        (lambda m, x: m.fc(x) + x.sum(1, keepdim=True, dtype=torch.int64), "gives torch.int64"),
    ],
)
def test_what_a_model_may_not_do(forward: Forward, says: str) -> None:
    random.seed(0)
    assert says in refused(forward)


@pytest.mark.parametrize(
    ("forward", "example", "parts", "says"),
    [
        (lambda m, i: m.part(i), IDS, {"part": nn.EmbeddingBag(9, 4)}, BAG),
        (lambda m, i: m.part(i), IDS, {"part": nn.EmbeddingBag(9, 4, mode="max")}, BAG),
        (lambda m, i: m.part(i).mean(1), IDS, {"part": nn.Embedding(9, 4, max_norm=1.0)}, "the embedding has max_norm"),
        (lambda m, x: m.part(x)[0], TOKENS, {"part": nn.LSTM(4, 4, batch_first=True)}, STEPS),
        (lambda m, x: m.part(x)[0], TOKENS, {"part": nn.GRU(4, 4, batch_first=True)}, STEPS),
        (lambda m, x: m.part(x[:, 0]), TOKENS, {"part": nn.GRUCell(4, 4)}, STEPS),
        (lambda m, x: m.part.train()(x[:, 0]), TOKENS, {"part": nn.BatchNorm1d(4)}, "Say training=self.training"),
        (
            lambda m, x: F.scaled_dot_product_attention(x, m.fc(x), x, dropout_p=0.1),
            TOKENS,
            {},
            "Say dropout_p=0.0 if not self.training",
        ),
    ],
)
def test_what_a_part_may_not_be(forward: Forward, example: torch.Tensor, parts: dict[str, Any], says: str) -> None:
    assert says in refused(forward, example, **parts)


def test_what_holds_for_one_batch_size() -> None:
    """Export takes the way of any batch but one of 3, and so does the comparison on two rows."""
    text = refused(lambda m, x: m.fc(x) * 2 if x.shape[0] == 3 else m.fc(x), torch.randn(2, 3, 4))
    assert BATCH in text


def test_sparse_tensors() -> None:
    model = Calls(lambda m, x: torch.sparse.mm(m.part, m.fc(x).T).T)
    model.register_buffer("part", torch.eye(4).to_sparse())
    with pytest.raises(ModelError, match=r"part: is a torch.float32 tensor of layout torch.sparse_coo"):
        growir.from_torch(model, vectors().float())
    with pytest.raises(ModelError, match=r"is of layout torch.sparse_coo; call to_dense\(\)"):
        growir.from_torch(nn.Linear(4, 4), vectors().float().to_sparse())


def test_a_wrong_import_is_growirs_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from growir.backends.torch_export import table

    monkeypatch.setitem(table.TABLE, "relu", table.TABLE["silu"])
    with pytest.raises(ModelError, match="the import reads the model wrongly, which is a fault of growir"):
        growir.from_torch(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), vectors().float())
