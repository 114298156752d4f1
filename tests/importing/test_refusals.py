"""What cannot be imported: one error, in the user's own lines, that says what would work."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import growir
from growir.errors import ModelError
from tests.importing.models import Model, vectors


def refused(model: nn.Module, example: Any = None) -> str:
    with pytest.raises(ModelError) as caught:
        growir.from_torch(model, vectors().float() if example is None else example)
    return str(caught.value)


class Several(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cumprod(self.fc(x), 1)
        z = torch.sort(x, dim=1)[0]
        return y + z - x.mean(0)


def test_everything_at_once_with_its_lines() -> None:
    text = refused(Several())
    assert text.startswith("3 things in the model have no place in a graph\n")
    assert re.search(r"test_refusals.py:\d+: y = torch.cumprod\(self.fc\(x\), 1\): aten.cumprod has no operator", text)
    assert re.search(r"test_refusals.py:\d+: z = torch.sort\(x, dim=1\)\[0\]: aten.sort has no operator", text)
    assert re.search(r"return y \+ z - x.mean\(0\): aten.mean reduces the batch axis; a graph never mixes", text)


class Branches(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return self.fc(x)
        return x


class Reads(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * x[0, 0].item()


class Divides(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) / x.size(0)


class Random(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + torch.rand(4)


class Merges(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x).view(-1, 2)


class Constant(Model):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.fc(x), self.fc.weight


class Fixed(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x).view(2, 2, 2)


class WritesPart(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        y[:, 0] = 0
        return y


class WritesView(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        y.view(-1, 2, 2)[:, :1].mul_(2)
        return y


class WritesBuffer(Model):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(4))
        self.calls: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return self.fc(x) + self.calls


class Positions(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.max(self.fc(x), 1)[1]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Branches, "if x.sum() > 0:: what the model does depends on the values of its input"),
        (Reads, "selects from the batch axis"),
        (Divides, "computes with the batch size"),
        (Random, "draws random numbers; a graph draws only in dropout"),
        (Merges, "a graph's outputs have the batch as their first axis"),
        (Constant, "output 1 does not depend on the inputs"),
        (Fixed, "does not run on the example inputs, repeated to a batch of 3"),
        (WritesPart, "writes into a tensor in place; put the parts together with torch.cat"),
        (WritesView, "writes into a part or view of a tensor that is read again later"),
        (WritesBuffer, "writes into 'calls'; a graph changes buffers only in batch norm"),
        (Positions, "the output is of type"),
    ],
)
def test_models(model: Callable[[], nn.Module], says: str) -> None:
    assert says in refused(model())


def shared() -> nn.Module:
    one, two = nn.Linear(4, 4), nn.Linear(4, 4)
    two.weight = nn.Parameter(one.weight.data)
    return nn.Sequential(one, two)


def overlapping() -> nn.Module:
    one, two = nn.Linear(4, 4), nn.Linear(4, 4)
    flat = torch.randn(20)
    one.weight, two.weight = nn.Parameter(flat[:16].view(4, 4)), nn.Parameter(flat[4:].view(4, 4))
    return nn.Sequential(one, two)


def spectral() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda: nn.Linear(4, 4, device="meta"), "weight: is on the meta device and holds no numbers"),
        (lambda: nn.Linear(4, 4).to(torch.float8_e5m2), "weight: is of torch.float8_e5m2, which no network is"),
        (lambda: nn.LazyLinear(4), "weight: has no shape yet; run the model once"),
        (shared, "1.weight: shares memory with '0.weight' but is another tensor"),
        (overlapping, "shares memory with"),
        (spectral, "0: is parametrised; call torch.nn.utils.parametrize.remove_parametrizations"),
        (lambda: "resnet18", "takes a torch.nn.Module, but gets an object of type str"),
    ],
)
def test_tensors_that_cannot_be_taken_over(model: Callable[[], Any], says: str) -> None:
    assert says in refused(model())


@pytest.mark.parametrize(
    ("example", "says"),
    [
        (3, "example_inputs is a tensor or a tuple of tensors, but is of type int"),
        ((), "example_inputs is empty"),
        ((vectors(), None), "example_inputs[1]: is of type NoneType; a graph's inputs are tensors"),
        (torch.tensor(1.0), "has the shape []; a graph's inputs are (batch, ...)"),
        (torch.zeros(2, 4, dtype=torch.int32), "is of torch.int32; a graph's inputs are floats, int64 or truth values"),
        ((torch.randn(2, 4), torch.randn(3, 4)), "the first axis is the batch, but it differs: 2, 3"),
        (torch.randn(2, 5), "the model does not run on the example inputs"),
    ],
)
def test_inputs(example: Any, says: str) -> None:
    assert says in refused(nn.Linear(4, 4), example)


def test_the_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.3)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    growir.from_torch(model, vectors().float())
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_wrong_import_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from growir.backends.torch_export import table

    monkeypatch.setitem(table.TABLE, "relu", table.TABLE["silu"])
    assert "differs from the model's by" in refused(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
