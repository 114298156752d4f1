"""Calls that take something of each sample by its number, or at positions that are computed."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import growir
from growir.backends.agreement import check_agreement
from growir.errors import ModelError
from tests.importing.test_inputs import IDS, SEEN, Words, agreed


class Masked(Words):
    """A mask of tokens laid along the keys by the numbers of the samples, as the `transformers` package does it."""

    def forward(self, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        h = self.words(ids)
        samples, places = torch.arange(ids.shape[0]), torch.arange(ids.shape[1])
        keys = seen.bool()[samples[:, None, None], places[None, None, :]]
        earlier = places[None, None, :] <= places[None, :, None]
        scores = (h @ h.mT).masked_fill(~(keys & earlier), -1e30)
        return self.out(scores.softmax(-1) @ h)


def test_a_mask_is_laid_along_the_keys() -> None:
    agreed(Masked(), IDS, SEEN)


class Last(Words):
    """The token before the first filling one, of each sample."""

    def forward(self, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        h = self.words(ids)
        return self.out(h[torch.arange(ids.shape[0]), seen.sum(1) - 1] + h[torch.arange(len(ids)), ids.argmax(-1)])


def test_positions_are_computed() -> None:
    network = agreed(Last(), IDS, SEEN)
    wider = network.apply(growir.passes.Widen(node="words", by=4))
    for batch in ((IDS, SEEN), (IDS.flip(0), SEEN.flip(0))):
        torch.testing.assert_close(wider.to_torch()(*batch), network.to_torch()(*batch))


class Extremes(nn.Module):
    """Equal numbers, of which the first one counts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.round().argmax(-1).to(x.dtype) + 10 * x.round().argmin(1, keepdim=True).sum(-1).to(x.dtype)


def test_the_first_of_equal_numbers_is_the_argument() -> None:
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    module = growir.from_torch(Extremes(), x).to_torch()
    for batch in (x, x.flip(0, 1), x * 0.1):
        torch.testing.assert_close(module(batch), Extremes()(batch))


class Relative(Words):
    """Scores by distance, gathered from a table of distances: the same positions for each sample and head."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        h = self.words(ids).view(*ids.shape, 2, 4).transpose(1, 2)
        places = torch.arange(ids.shape[1])
        distances = (places[:, None] - places[None] + 4).clamp(0, 7)
        by_distance = h @ self.places.weight[:8].view(8, 2, 4).permute(1, 2, 0)
        scores = torch.gather(by_distance, -1, distances.expand(*by_distance.shape[:2], -1, -1))
        return self.out((scores.softmax(-1) @ h).transpose(1, 2).flatten(-2))


def test_fixed_positions_are_gathered() -> None:
    network = agreed(Relative(), IDS)
    assert "select" in [node.op.kind() for node in network.graph.nodes]


class Chosen(Words):
    def forward(self, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        h = self.out(self.words(ids))  # (N, 5, 4)
        return torch.gather(h, -1, (ids % 4)[..., None]) + torch.gather(h.mT, 2, seen[:, None].expand(-1, 4, -1)).mT


def test_computed_positions_are_gathered() -> None:
    agreed(Chosen(), IDS, SEEN)


def test_what_onnx_gives(tmp_path: Path) -> None:
    for model, inputs in (
        (Masked(), (IDS, SEEN)),
        (Last(), (IDS, SEEN)),
        (Relative(), (IDS,)),
        (Chosen(), (IDS, SEEN)),
    ):
        network = growir.from_torch(model.double(), inputs)
        path = tmp_path / "model.onnx"
        network.to_onnx(path)
        assert check_agreement(network.graph, network.arrays, path) < 1e-5


class Mixed(Words):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        h = self.out(self.words(ids))
        return h[torch.arange(ids.shape[0]).flip(0), ids[:, 0] % 4]


def test_other_samples_are_refused() -> None:
    with pytest.raises(ModelError, match=r"aten\.index reads what makes a tensor that differs from sample to sample"):
        growir.from_torch(Mixed(), IDS)


class Sines(Words):
    """Positions that are counted, looked up in a fixed table."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(48.0).reshape(6, 8).sin(), persistent=False)

    def forward(self, ids: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        places = seen.cumsum(1) * seen
        rows = self.get_buffer("table").index_select(0, places.view(-1)).view(*ids.shape, 8)
        return self.out((self.words(ids) + rows.detach()).mean(1))


def test_rows_of_a_fixed_table_are_looked_up() -> None:
    network = agreed(Sines(), IDS, SEEN)
    (table,) = [node for node in network.graph.nodes if node.op.kind() == "embedding" and node.name != "words"]
    assert table.frozen == ("weight",)


class Columns(nn.Module):
    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        self.first, self.sizes, self.last = nn.Conv2d(2, 3, 1), sizes, nn.LazyLinear(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.nn.functional.unfold(self.first(x), **self.sizes))


@pytest.mark.parametrize(
    "sizes",
    [
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": (3, 1), "padding": (1, 0)},
        {"kernel_size": (2, 3), "stride": (1, 2), "padding": 1, "dilation": (2, 1)},
    ],
)
def test_windows_become_columns(sizes: dict[str, Any]) -> None:
    x = torch.randn(3, 2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = Columns(**sizes).double()
    model(x)
    agreed(model, x)


class PutBack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = torch.nn.functional.unfold(self.first(x), (2, 3), stride=(2, 3)).tanh()
        return torch.nn.functional.fold(columns, (4, 6), (2, 3), stride=(2, 3))


def test_columns_become_an_image_again() -> None:
    x = torch.randn(3, 2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    agreed(PutBack(), x)


def test_windows_that_overlap_are_not_put_back() -> None:
    x = torch.randn(3, 12, 15, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ModelError, match="sums up windows that overlap"):
        growir.from_torch(nn.Fold((4, 6), 2), x)


@pytest.mark.parametrize("pool", [nn.AvgPool2d(40, ceil_mode=True), nn.MaxPool2d(6, 3, ceil_mode=True)])
def test_a_window_larger_than_the_image_takes_all_of_it(pool: nn.Module) -> None:
    x = torch.randn(3, 2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    network = agreed(nn.Sequential(OrderedDict(conv=nn.Conv2d(2, 3, 1), pool=pool)), x)
    assert network.graph.nodes[-1].op.kind().startswith("adaptive")
