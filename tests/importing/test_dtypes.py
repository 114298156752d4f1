"""Models of one dtype and of several: a network has one, the widest of weights and inputs."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import growir
from growir import live
from growir.backends.torch_source.saving import save_source
from growir.passes import Split, Widen
from tests.importing.models import Model

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.fc, self.head = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = F.relu(self.norm(self.conv(x))).mean((2, 3))
        out: torch.Tensor = self.head(torch.relu(self.fc(h)))
        return out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_network_of_any_float_goes_everywhere(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Convolutional().to(dtype), torch.randn(4, 3, 8, 8).to(dtype)
    network = growir.from_torch(model, x)
    assert f"torch.{network.dtype}" == str(dtype)
    assert torch.equal(network.to_torch().eval()(x), model.eval()(x))
    module = network.to_torch()
    optimizer = torch.optim.SGD(module.parameters(), 1e-3, momentum=0.9)
    module(x).float().square().mean().backward()
    optimizer.step()
    for step in (Widen(node="fc", by=2), Split(node="conv", channels=(0, 1), theta=0.1)):
        module, _ = live.grow(module, step, optimizer)
    live.network_of(module).save(tmp_path / "net")
    loaded = growir.Network.load(tmp_path / "net")
    state = loaded.to_torch().state_dict()
    for key, tensor in module.state_dict().items():
        assert state[key].dtype == tensor.dtype
        assert torch.equal(state[key], tensor)
    grown = loaded.apply(Widen(node="fc", by=1), verify=True).apply(Split(node="fc", channels=(1,)), verify=True)
    assert grown.updated(grown.to_torch()).dtype == network.dtype
    assert grown.replayed().graph.hash == grown.graph.hash
    notices = grown.to_onnx(tmp_path / "net.onnx")
    assert notices == (
        []
        if dtype == torch.float32
        else [f"the network's weights are {network.dtype}; the ONNX file holds them as float32"]
    )
    save_source(grown.graph, grown.arrays, tmp_path / "net.py")
    names = runpy.run_path(str(tmp_path / "net.py"))
    exported: nn.Module = names["Net"]()
    exported.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert torch.equal(exported.eval()(x), grown.to_torch().eval()(x))


class Standardised(Model):
    """Takes off a mean that numpy worked out, in float64, before the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.arange(4, dtype=torch.float64) / 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.fc((x - self.mean).float())


class Halved(Model):
    """Computes its first layer in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.half_fc = nn.Linear(4, 4).half()

    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(torch.relu(self.half_fc(x.half())).float())


class Narrowed(Model):
    """Takes float64 and computes in float32."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(x.float())


@pytest.mark.parametrize(
    ("model", "given", "dtype", "told"),
    [
        (Standardised, torch.float32, "float32", "torch.float64"),
        (Halved, torch.float32, "float32", "torch.float16"),
        (Narrowed, torch.float64, "float64", "torch.float32"),
    ],
)
def test_mixed_dtypes_import_as_one(model: type[Model], given: torch.dtype, dtype: str, told: str) -> None:
    torch.manual_seed(0)
    made, x = model().eval(), torch.randn(5, 4).to(given)
    with pytest.warns(UserWarning, match=f"computes a part in {told}; the network computes it in one dtype"):
        network = growir.from_torch(made, x)
    assert {array.dtype.name for array in network.arrays.values()} == {dtype}
    assert torch.allclose(network.to_torch().eval()(x).double(), made(x).double(), atol=1e-3)


def test_a_constant_of_a_coarser_dtype_neither_widens_the_comparison_nor_is_told(
    recwarn: pytest.WarningsRecorder,
) -> None:
    class Scaled(Model):
        def forward(self, x: torch.Tensor) -> Any:
            return self.fc(x) * torch.tensor([2.0, 0.1, 3.0, 4.0])

    model, x = Scaled().double(), torch.randn(3, 4, dtype=torch.float64)
    network = growir.from_torch(model, x)
    assert torch.equal(network.to_torch()(x), model(x))
    assert not [w for w in recwarn if w.category is UserWarning]


def test_a_part_in_a_coarser_dtype_is_told_although_a_constant_has_it() -> None:
    class Coarse(Model):
        def forward(self, x: torch.Tensor) -> Any:
            return (self.fc(x).to(torch.float32) * torch.tensor(2.0)).softmax(-1).to(x.dtype)

    with pytest.warns(UserWarning, match="computes a part in torch.float32"):
        growir.from_torch(Coarse().double(), torch.randn(3, 4, dtype=torch.float64))


def test_a_finer_constant_is_told_although_nothing_computes_with_it() -> None:
    class Joined(Model):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("two", torch.arange(2, dtype=torch.float64) / 7)

        def forward(self, x: torch.Tensor) -> Any:
            return self.fc(torch.cat([x[:, :2], self.two.expand(x.shape[0], 2)], 1).float())

    with pytest.warns(UserWarning, match="computes a part in torch.float64"):
        growir.from_torch(Joined(), torch.randn(3, 4))
