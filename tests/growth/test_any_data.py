"""The same run on every kind of data, network and precision: it trains, grows and exports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, IterableDataset

import growir
from growir.data import Data
from growir.errors import DataError, RunError
from growir.growth import GrowthResult
from growir.network import Network
from growir.runs import records
from tests.growth.nets import (
    EVERY,
    SGD,
    Dense,
    Dropped,
    Residual,
    Shifted,
    Tokens,
    TwoInputs,
    TwoOutputs,
    imported,
    maps,
)

X, Y = maps()


class Stream(IterableDataset[Any]):
    """Batches that have no number."""

    def __iter__(self) -> Iterator[Any]:
        yield from zip(X, Y, strict=True)


def arrays(**more: Any) -> Data:
    return Data.from_arrays(X, Y, test=maps(30, 1), **more)


def two_heads(outputs: tuple[torch.Tensor, torch.Tensor], target: dict[str, torch.Tensor]) -> torch.Tensor:
    classes, number = outputs
    return F.cross_entropy(classes, target["class"], reduction="none") + (number[:, 0] - target["ink"]).square()


def weighted(outputs: torch.Tensor, target: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    classes, weight = target
    return weight * F.cross_entropy(outputs, classes, reduction="none")


TEXT = torch.randint(0, 5, (60, 9), generator=torch.Generator().manual_seed(0))
CASES: dict[str, Callable[[], tuple[Network, Data, dict[str, Any]]]] = {
    "arrays": lambda: (imported(Residual()), arrays(), {}),
    "a data set with augmentation": lambda: (
        imported(Residual()),
        Data.from_dataset(Shifted(), select=Shifted(40, 2, augment=False), test=Shifted(30, 1, augment=False)),
        {"train": {"rate": "cosine", "clip": 1.0}},
    ),
    "a loader": lambda: (imported(Residual()), Data.from_loaders(DataLoader(Shifted(), 16, shuffle=True)), {}),
    "a stream": lambda: (imported(Residual()), Data.from_loaders(DataLoader(Stream(), 8)), {}),
    "two inputs": lambda: (
        imported(TwoInputs(), torch.zeros(2, 1, 8, 8), torch.zeros(2, 8)),
        Data.from_arrays((X, X.mean((1, 2))), Y),
        {},
    ),
    "tokens": lambda: (
        imported(Tokens(), torch.zeros(2, 8, dtype=torch.int64)),
        Data.from_arrays(TEXT[:, :-1], TEXT[:, 1:]),
        {"objective": {"name": "cross_entropy", "axis": -1}},
    ),
    "a dense target": lambda: (imported(Dense()), Data.from_arrays(X + 0.1, X), {}),
    "two outputs": lambda: (
        imported(TwoOutputs()),
        Data.from_arrays(X, {"class": Y, "ink": X.mean((1, 2, 3))}),
        {"objective": two_heads},
    ),
    "weights of samples": lambda: (
        imported(Residual()),
        Data.from_arrays(X, (Y, torch.rand(len(Y)))),
        {"objective": weighted},
    ),
    "float64": lambda: (
        imported(Residual().double(), torch.zeros(2, 1, 8, 8, dtype=torch.float64)),
        arrays(),
        {},
    ),
    "bfloat16 autocast": lambda: (imported(Residual()), arrays(), {"amp": "bfloat16"}),
    "dropout": lambda: (imported(Dropped()), arrays(), {}),
    "bytes": lambda: (imported(Residual()), Data.from_arrays((50 * (X + 3)).clamp(0, 255).to(torch.uint8), Y), {}),
}


def grown(start: Network, data: Data, **more: Any) -> GrowthResult:
    settings: dict[str, Any] = {"policy": "random", "optimizer": SGD, "schedule": EVERY, "seed": 1, "threads": 1}
    return growir.grow(start, data, **{**settings, **more})


@pytest.mark.parametrize("name", CASES)
def test_it_trains_grows_and_exports(name: str, tmp_path: Path) -> None:
    start, data, more = CASES[name]()
    result = grown(start, data, **more)
    growths = [event for event in result.events if isinstance(event, records.Growth)]
    trained = [event for event in result.events if isinstance(event, records.Trained)]
    assert len(growths) == 2
    assert len(trained) == 3
    assert result.network.graph.costs().parameters > start.graph.costs().parameters
    assert result.network.dtype == start.dtype
    losses = [event.selection_loss for event in trained]
    assert all(loss is not None and np.isfinite(loss) for loss in losses)
    model = tmp_path / "model.onnx"
    result.network.to_onnx(model)
    session = ort.InferenceSession(model)
    batch = next(iter(data.train.batches(4, None)))
    values = list(batch.inputs.values()) if not isinstance(batch.inputs, tuple) else list(batch.inputs)
    entries = result.network.graph.inputs
    floats = str(start.dtype)
    given = [v.to(getattr(torch, floats if e.dtype == "float32" else e.dtype)) for v, e in zip(values, entries)]
    with torch.no_grad():
        wanted = result.network.to_torch(dtype=None if start.dtype == np.float32 else torch.float64).eval()(*given)
    types = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
    fed = {each.name: value.numpy().astype(types[each.type]) for each, value in zip(session.get_inputs(), given)}
    found = session.run(None, fed)
    for one, other in zip(wanted if isinstance(wanted, tuple) else (wanted,), found, strict=True):
        assert np.allclose(one.numpy(), other, atol=1e-4)


def test_a_network_of_bfloat16_grows_by_what_it_learns() -> None:
    start = imported(Residual().bfloat16(), torch.zeros(2, 1, 8, 8, dtype=torch.bfloat16))
    policy = {"name": "nash", "children": 1, "child_steps": 2, "moves": 1}
    result = grown(start, arrays(), policy=policy, budget={"steps": 1})
    (growth,) = [event for event in result.events if isinstance(event, records.Growth)]
    assert [step["pass"] for step in growth.passes][-1] == "update"
    assert result.network.dtype == start.dtype
    assert result.network.graph.costs().parameters > start.graph.costs().parameters


def test_nothing_copies_the_inputs_of_an_imported_network() -> None:
    """Batches are views of the arrays in order, and training gathers from the arrays themselves."""
    from growir.growth.config import parse_run
    from growir.growth.problem import Problem
    from growir.growth.session import Session

    x = np.zeros((64, 1, 8, 8), np.float32)
    problem = Problem.of_data(Data.from_arrays(x, np.zeros(64, np.int64)))
    session = Session(imported(Residual()), problem, parse_run({"policy": "random"}, "test"))
    session.standing()
    ready = session.reading.ready(session.data.everything())
    (batch,) = list(ready.batches(64, None))
    assert isinstance(batch.inputs, tuple)
    assert batch.inputs[0].data_ptr() == x.ctypes.data
    assert not session.reading._known  # pyright: ignore[reportPrivateUsage]


# -- what is wrong with data, objective and optimizer ------------------------------------------------------------------


class Wrong(Shifted):
    def __init__(self, spoil: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(40, augment=False)
        self.x = spoil(self.x)


def scalar(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, target)


def endless(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, target, reduction="none") * torch.nan


def square(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return outputs


@pytest.mark.parametrize(
    ("data", "more", "said"),
    [
        (
            lambda: Data.from_dataset(Wrong(lambda x: x[:, :, :7])),
            {},
            "x is (36, 1, 7, 8), but the network takes",
        ),
        (lambda: Data.from_dataset(Wrong(lambda x: x * torch.nan)), {}, "NaN or infinite"),
        (lambda: Data.from_loaders([], select=[(X, Y)]), {}, "no"),
        (arrays, {"objective": scalar}, "gives a scalar"),
        (arrays, {"objective": endless}, "nan"),
        (arrays, {"objective": square}, "gives shape"),
        (arrays, {"optimizer": lambda p: torch.optim.SGD(p[1:], lr=0.1)}, "leaves out 1 parameter"),
        (arrays, {"optimizer": "sdg"}, "Did you mean 'SGD'?"),
        (arrays, {"device": "cuda:7"}, "CUDA device"),
        (arrays, {"device": "gpu"}, "is no device"),
        (arrays, {"amp": "float16"}, "needs a CUDA device"),
        (arrays, {"policy": "ramdom"}, "Did you mean 'random'?"),
        (arrays, {"schedule": "evry"}, "Did you mean 'every'?"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(data: Callable[[], Data], more: dict[str, Any], said: str) -> None:
    with pytest.raises((DataError, RunError)) as caught:
        grown(imported(Residual()), data(), **more)
    assert said in str(caught.value)
