"""Inputs that are whole numbers, truth values or one number per sample, and what models compute from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.backends.onnx_ir import build_model
from growir.document import dumps
from growir.network import Network
from growir.passes import Widen
from growir.verify import load
from tests.importing.models import Model, imported, kinds, vectors

IDS = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 1, 1, 1], [5, 3, 5, 8, 1]])
SEEN = (IDS != 1).long()


def agreed(model: nn.Module, *inputs: torch.Tensor) -> Network:
    """The network of a model in float64, known to give the same numbers and gradients on other samples."""
    model = model.double()
    network = growir.from_torch(model, inputs)
    module = network.to_torch().train(model.training)
    turned = [x.flip(0) for x in inputs]
    wanted, found = model(*turned), module(*turned)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    names = [name for name, _ in model.named_parameters() if name in dict(module.named_parameters())]
    assert names
    for name in names:
        one, two = (
            torch.autograd.grad((y * y.detach().cos()).sum(), m.get_parameter(name), retain_graph=True)[0]
            for m, y in ((model, wanted), (module, found))
        )
        torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-9)
    return network


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(9, 8), nn.Embedding(9, 8, padding_idx=1)
        self.out = nn.Linear(8, 4)


class Averaged(Words):
    def forward(self, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        weights = seen.to(self.words.weight.dtype)
        return self.out((self.words(ids) * weights[..., None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=1))


def test_a_mask_of_whole_numbers_becomes_floats() -> None:
    network = agreed(Averaged(), IDS, SEEN)
    assert [entry.dtype for entry in network.graph.inputs] == ["int64", "int64"]
    assert kinds(network).count("cast") == 1
    network.apply(Widen(node="words", by=3), verify=True)


class Attending(Words):
    def forward(self, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        hidden = F.scaled_dot_product_attention(x, x, x, seen.to(torch.bool)[:, None, :].expand(-1, 5, -1))
        return self.out(hidden.masked_fill(seen[..., None] == 0, 0.0))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float64])
def test_a_mask_input_hides_tokens(dtype: torch.dtype) -> None:
    agreed(Attending(), IDS, SEEN.to(dtype))


class Positions(Words):
    """Counted from the first token that is no padding, as RoBERTa does."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        mask = ids.ne(1).int()
        return self.out(self.words(ids) + self.places((torch.cumsum(mask, 1).type_as(mask) * mask).long() + 1))


def test_positions_from_ids() -> None:
    network = agreed(Positions(), IDS)
    session = onnxruntime.InferenceSession(build_model(network.graph, network.arrays).SerializeToString())
    found = np.array(session.run(None, {"ids": IDS.numpy()})[0])
    np.testing.assert_allclose(found, network.to_torch()(IDS).detach().numpy(), atol=1e-5)


class Timed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.time = nn.Conv2d(3, 8, 1), nn.Linear(4, 8)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        angles = t[:, None] * torch.tensor([1.0, 0.1], dtype=x.dtype)
        return self.conv(x) + self.time(torch.cat([angles.sin(), angles.cos()], 1))[:, :, None, None]


@pytest.mark.parametrize("steps", [torch.rand(3, dtype=torch.float64), torch.tensor([3, 0, 7])])
def test_one_number_per_sample(steps: torch.Tensor) -> None:
    network = agreed(Timed(), torch.randn(3, 3, 4, 4, dtype=torch.float64), steps)
    assert network.graph.inputs[1].shape == ("N",)
    assert load(dumps(network.graph)) == network.graph
    network.apply(Widen(node="time", by=2), verify=True)


class Scored(Model):
    def __init__(self, body: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.fc(x))


BODIES: Sequence[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda h: torch.where(h > 0, h.abs().sqrt(), -h),
    lambda h: torch.where(h > 0.1, h.log(), torch.zeros_like(h)),  # what is not chosen is NaN
    lambda h: h.masked_fill((h < 0) | (h >= 0.3), 2.0),
    lambda h: h * ((h <= 0.2) & ~(h != h)).to(h.dtype),
    lambda h: F.hardshrink(h) + F.softshrink(h),
    lambda h: h.sign() * h + h.round() + h.floor() * h + h.ceil() - h.trunc() + h.frac(),
    lambda h: torch.remainder(h, 0.3) + torch.fmod(h, 0.3) + torch.div(h, 0.3, rounding_mode="floor") * h,
    lambda h: h.exp().log1p() + h.expm1() + h.exp2() + h.exp().log2() + h.exp().log10(),
    lambda h: h.sinh() + h.cosh() + h.tan() + (h * 0.1).sigmoid().atanh() + h.erfc(),
    lambda h: torch.hypot(h, h + 1) + torch.logaddexp(h, -h) + h.cumsum(1),
    lambda h: torch.pow(2.0, h) + h.exp().pow(h) + h.exp() ** torch.arange(4.0, dtype=h.dtype),
    lambda h: h.unfold(1, 2, 1).flatten(1),
    lambda h: torch.cat([h[:, :4] * 2, h[:, 4:]], -1),
]


@pytest.mark.parametrize("body", BODIES)
def test_functions_of_numbers(body: Callable[[torch.Tensor], torch.Tensor]) -> None:
    agreed(Scored(body), vectors(3))


class GeneralisedMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(4, 6, 3), nn.Linear(6, 2)
        self.power, self.gates = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.randn(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.conv(x).clamp(min=1e-6).pow(self.power).mean((2, 3)).pow(1 / self.power)
        return self.out(pooled) * self.gates[1]


def test_a_learned_exponent() -> None:
    network = agreed(GeneralisedMean(), torch.randn(3, 4, 6, 6, dtype=torch.float64))
    network.apply(Widen(node="conv", by=2), verify=True)


class OnParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.queries, self.left, self.right = nn.Parameter(torch.randn(5, 8)), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.left(x) @ self.right(self.queries).T
        return scores


def test_a_layer_on_a_parameter() -> None:
    imported(OnParameters(), torch.randn(2, 3, 8, dtype=torch.float64))
