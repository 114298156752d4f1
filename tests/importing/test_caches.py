"""Models that keep what they computed for the next call, and weights that are computed before each."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

import growir
from growir.errors import ModelError
from tests.importing.models import kinds, vectors


@dataclass
class Config:
    use_cache: bool = True
    use_mems_eval: bool = False


class Cache:
    """No tensor, and nothing that torch knows the parts of."""

    def __init__(self, kept: torch.Tensor) -> None:
        self.kept = kept


class Cached(nn.Module):
    def __init__(self, gives: bool = True) -> None:
        super().__init__()
        self.config, self.fc, self.gives = Config(), nn.Linear(4, 4), gives

    def forward(self, x: torch.Tensor) -> Any:
        y = self.fc(x)
        return {"out": y, "cache": Cache(y)} if self.config.use_cache and self.gives else {"out": y, "rest": None}


def test_a_cache_is_switched_off_in_the_copy() -> None:
    model = Cached().double()
    with pytest.warns(UserWarning, match="the model was imported with config.use_cache = False"):
        network = growir.from_torch(model, vectors())
    assert model.config.use_cache
    torch.testing.assert_close(network.to_torch()(vectors(5)), model(vectors(5))["out"])


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Cached()

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x)


def test_the_notice_names_the_configuration() -> None:
    with pytest.warns(UserWarning, match=r"inner\.config\.use_cache = False"):
        growir.from_torch(Around(), vectors().float())


def test_nothing_is_said_where_nothing_changes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message="the model returns a dict")
        warnings.filterwarnings("ignore", message="output 1 of the model is None")
        growir.from_torch(Cached(gives=False), vectors().float())


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.fc(x)
        return {"first": y, "none": None, "parts": (y + 1, {"deep": y * 2})}


def test_outputs_are_named_by_where_they_stand() -> None:
    with pytest.warns(UserWarning, match=r"returns a dict; .* in its order: first, parts\.0, parts\.1\.deep"):
        network = growir.from_torch(Nested().double(), vectors())
    assert len(network.graph.outputs) == 3


def _normed(kind: Any) -> nn.Module:
    model = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(20, 2)).double()
    kind(model[0], name="weight", dim=2)
    return model


@pytest.mark.parametrize("kind", [weight_norm, parametrizations.weight_norm], ids=["hook", "parametrisation"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_weight_norm_is_folded(kind: Any) -> None:
    model = _normed(kind)
    before = set(model.state_dict())
    x = torch.randn(3, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"weight norm is folded: 0\.weight\. The network computes the same"):
        network = growir.from_torch(model, x)
    assert kinds(network) == ["conv1d", "relu", "flatten", "linear"]
    assert set(model.state_dict()) == before  # the model stays as it is
    torch.testing.assert_close(network.to_torch()(x), model(x))


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def test_other_parametrisations_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    torch.nn.utils.parametrize.register_parametrization(model[0], "weight", Doubled())
    with pytest.raises(ModelError, match=r"is parametrised; call torch\.nn\.utils\.parametrize"):
        growir.from_torch(model, vectors().float())
