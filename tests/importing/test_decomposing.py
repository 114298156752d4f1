"""Names that are compositions of others, and positions that constants choose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.passes import Widen
from tests.importing.models import Model, imported, kinds, vectors

Body = Callable[[torch.Tensor], torch.Tensor]


class Behind(Model):
    """A function of a linear layer's values."""

    def __init__(self, body: Body, **parts: object) -> None:
        super().__init__(**parts)
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.fc(x))


def length(h: torch.Tensor, order: float) -> torch.Tensor:
    norm: Callable[..., torch.Tensor] = vars(torch.linalg)["norm"]  # which torch's stubs have no types for
    return norm(h, order, dim=1, keepdim=True)


NAMES: list[tuple[Body, list[str] | None]] = [
    (lambda h: torch.clip(h, 0, 1), ["linear", "clamp"]),
    (lambda h: torch.hstack([h, -h]), ["linear", "affine", "concat"]),
    (torch.absolute, ["linear", "abs"]),
    (torch.special.expit, ["linear", "sigmoid"]),
    (lambda h: length(h, 2), ["linear", "norm"]),
    (lambda h: length(h, float("inf")), ["linear", "abs", "amax"]),
    (lambda h: torch.var_mean(h, 1, keepdim=True)[0] * h, ["linear", "var", "mul"]),
    (lambda h: torch.std_mean(h, 1)[1], ["linear", "mean"]),
    (lambda h: torch.addcmul(h, h, h, value=0.5), ["linear", "affine", "mul", "add"]),
    (lambda h: torch.lerp(h, h.exp(), 0.3), ["linear", "exp", "sub", "affine", "add"]),
    (lambda h: torch.lerp(h, h.exp(), h.sigmoid()), ["linear", "exp", "sigmoid", "sub", "mul", "add"]),
    (lambda h: F.cosine_similarity(h, h.exp()), None),
    (lambda h: h.logsumexp(1, keepdim=True), None),
    (lambda h: torch.einsum("...i,ij->...j", h, torch.eye(4, dtype=h.dtype)[:, :3]), None),
    (lambda h: torch.einsum("...i,ij", h, torch.ones(4, 3, dtype=h.dtype)), ["linear", "parameter", "matmul"]),
    (lambda h: torch.einsum("bi->b", h), None),
    (lambda h: torch.einsum("...i,...i,ij->...j", h, h, torch.ones(4, 3, dtype=h.dtype)), None),
    (lambda h: h @ torch.arange(1.0, 5.0, dtype=h.dtype), None),
    (lambda h: h.clamp(min=h.sigmoid()), ["linear", "sigmoid", "maximum"]),
    (lambda h: torch.clamp(h, torch.zeros(4, dtype=h.dtype), h.exp()), None),
    (lambda h: h.exp().addcmul_(h, h), None),
    (lambda h: torch.diff(h), None),
]


@pytest.mark.parametrize(("body", "expected"), NAMES)
def test_other_names_and_compositions(body: Body, expected: list[str] | None) -> None:
    network = imported(Behind(body))
    if expected is not None:
        assert kinds(network) == expected


def test_what_no_definition_ends_in_is_refused_by_its_own_name() -> None:
    with pytest.raises(growir.errors.ModelError, match=r"aten\.lgamma has no operator in growir"):
        growir.from_torch(Behind(torch.lgamma).double(), vectors())


class Slim(nn.Module):
    """Channels chosen by a mask, as network slimming leaves them."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.out = nn.Linear(4, 8), nn.Linear(5, 2)
        self.register_buffer("keep", torch.tensor([1, 0, 1, 1, 0, 1, 0, 1]).bool())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = torch.relu(self.wide(x))[:, self.get_buffer("keep")]
        return self.out(chosen.view(-1, 5, 1).flatten(1))


def test_channels_chosen_by_a_constant_mask() -> None:
    network = imported(Slim())
    assert [n.op.attributes() for n in network.graph.nodes if n.op.kind() == "select"] == [{"indices": [0, 2, 3, 5, 7]}]
    network.apply(Widen(node="wide@0", by=1), verify=True)


CHOSEN: list[Body] = [
    lambda h: h.view(-1, 2, 2)[:, torch.tensor([[True, False], [True, True]])],
    lambda h: h.view(-1, 2, 2)[:, torch.tensor([0, 1, -1]), torch.tensor([1, 0, 0])],
    lambda h: h.view(-1, 2, 2)[:, torch.tensor([[0], [1]]), torch.tensor([1, 0])],
    lambda h: h[:, (torch.arange(4) % 2 == 0).nonzero().squeeze(1)] * 2,
    lambda h: h.view(-1, 2, 2)[:, :, torch.tensor([False, True])].flatten(1),
]


@pytest.mark.parametrize("body", CHOSEN)
def test_positions_chosen_by_constants(body: Body) -> None:
    imported(Behind(body))


REFUSED: list[tuple[Body, str]] = [
    (lambda h: h.view(-1, 2, 2, 1)[:, torch.tensor([0]), :, torch.tensor([0])], "do not lie side by side"),
    (lambda h: h[:, torch.zeros(4, dtype=torch.bool)], "selects nothing"),
    (lambda h: h[:, h.sum(0).argsort()], "reduces the batch axis"),
]


@pytest.mark.parametrize(("body", "message"), REFUSED)
def test_positions_that_are_refused(body: Body, message: str) -> None:
    with pytest.raises(growir.errors.ModelError, match=message):
        growir.from_torch(Behind(body).double(), vectors())
