"""Gradients are the model's: what is detached stays detached, and a call that takes one tensor twice keeps both."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import growir
from growir.errors import ModelError
from growir.network import Network
from tests.importing.models import Model, imported, kinds, vectors


def gradients(module: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradient of every parameter that gets one, and of the input."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    found = module(x)
    weights = torch.linspace(0.5, 1.5, found.shape[1], dtype=found.dtype)
    (found * weights).square().sum().backward()
    named = dict(module.named_parameters()) | {"the input": x}
    return {name: p.grad for name, p in named.items() if p.grad is not None}


def assert_same_gradients(model: nn.Module, network: Network) -> None:
    wanted, found = gradients(model.eval(), vectors(3)), gradients(network.to_torch().eval(), vectors(3))
    # A parameter that is a node of its own has another name: by their numbers.
    left = [grad for grad in found.values() if grad.any()]
    for name, grad in wanted.items():
        if grad.any():
            same = [k for k, other in enumerate(left) if other.numel() == grad.numel() and close(other, grad)]
            assert same, f"no gradient of the network is that of {name}"
            left.pop(same[0])
    assert not left


def close(one: torch.Tensor, two: torch.Tensor) -> bool:
    return torch.allclose(one.reshape(-1), two.reshape(-1), rtol=1e-9, atol=1e-12)


class Detached(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * torch.sigmoid(self.gate(x)).detach()


class DetachedInPlace(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.gate(x))
        shown = gate.view(-1, 2, 2)
        return self.fc(x) * gate.detach_() + shown.flatten(1)


class Data(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * torch.sigmoid(self.gate(x)).data + self.fc(x.data)


class DetachedParameter(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.fc(x), self.gate.weight.detach(), self.gate.bias) + self.gate.weight.data[0]


class StraightThrough(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.gate(self.fc(x))
        return y + (y.clamp(0, 1) - y).detach()


class NoGrad(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = torch.relu(self.gate(x))
            z = y * 2
        return self.fc(y) + z


class NoGradMethod(Model):
    @torch.no_grad()
    def target(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            y = self.gate(x)
        return y * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * self.target(x)


class Inference(Model):
    @torch.inference_mode()
    def target(self, x: torch.Tensor) -> torch.Tensor:
        return self.gate(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            y = torch.relu(self.gate(x))
        return self.fc(x) + y + self.target(x)


class DetachedInput(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.detach()) + self.gate(x)


@pytest.mark.parametrize(
    "model",
    [
        Detached,
        DetachedInPlace,
        Data,
        DetachedParameter,
        StraightThrough,
        NoGrad,
        NoGradMethod,
        Inference,
        DetachedInput,
    ],
)
def test_what_is_detached_stays_detached(model: type[Model]) -> None:
    made = model(gate=nn.Linear(4, 4))
    network = imported(made)
    assert "detach" in kinds(network)
    assert network.graph.train_differs == ()
    assert_same_gradients(made, network)


def test_integers_and_constants_need_no_detaching() -> None:
    class Plain(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) * torch.arange(4, dtype=x.dtype).detach() + torch.tensor([1.0, 2, 3, 4]).data.double()

    assert "detach" not in kinds(imported(Plain()))


def test_a_detached_weight_is_widened_with_its_layer() -> None:
    class Target(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) + F.linear(torch.relu(self.first(x)), self.second.detach())

    network = imported(Target(first=nn.Linear(4, 3), second=nn.Parameter(torch.randn(4, 3))))
    grown = network.apply(growir.passes.Widen(node="first", by=2), verify=True)
    assert grown.arrays["second.weight"].shape == (4, 5)


# -- one tensor twice ---------------------------------------------------------------------------------------------

TWICE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "view_as": lambda h: h.view_as(h),
    "reshape_as": lambda h: h.reshape_as(h),
    "expand_as": lambda h: h.expand_as(h),
    "type_as": lambda h: h.type_as(h),
    "add": lambda h: h + h,
    "add_": lambda h: h.mul(2).add_(h).add_(h),
    "twice in place": lambda h: (y := h * 3).add_(y),
    "mul": lambda h: h * h,
    "sub": lambda h: torch.sub(h, h, alpha=3),
    "div": lambda h: h / (h + 9),
    "rsub": lambda h: torch.rsub(h, h, alpha=3),
    "maximum": lambda h: torch.maximum(h, h),
    "minimum": lambda h: torch.minimum(h, h),
    "where": lambda h: torch.where(torch.tensor([True, False, True, False]), h, h),
    "cat": lambda h: torch.cat([h, h], 1),
    "stack": lambda h: torch.stack([h, h], 1).flatten(1),
    "matmul": lambda h: (h.view(-1, 2, 2) @ h.view(-1, 2, 2)).flatten(1),
    "bmm": lambda h: torch.bmm(g := h.view(-1, 2, 2), g).flatten(1),
    "einsum": lambda h: torch.einsum("nij,njk->nik", g := h.view(-1, 2, 2), g).flatten(1),
    "attention": lambda h: F.scaled_dot_product_attention(g := h.view(-1, 2, 2), g, g).flatten(1),
    "like itself": lambda h: h.view_as(h).expand_as(h) * torch.ones_like(h).expand_as(h),
    "like another": lambda h: torch.arange(4.0, dtype=h.dtype).expand_as(h) * h.view(-1, 4, 1).view_as(h),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_tensor_given_twice_is_read_twice(name: str) -> None:
    """Behind a gate that is zero: outputs and gradients are compared with all parameters drawn anew."""

    class Gated(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x).repeat(1, 2)[:, :4] + (self.zero * TWICE[name](self.gate(x)))[:, :4]

    model = Gated(gate=nn.Linear(4, 4), zero=nn.Parameter(torch.zeros(1)))
    network = growir.from_torch(model.double(), vectors())
    assert {"gate.weight", "zero.weight"} <= set(network.arrays)
    with torch.no_grad():
        model.zero.fill_(1.0)
    opened = Network(network.graph, {**network.arrays, "zero.weight": model.zero.detach().numpy()})
    module = opened.to_torch()
    torch.testing.assert_close(module(vectors(3)), model(vectors(3)))
    assert_same_gradients(model, opened)


def test_a_constant_that_takes_its_sizes_from_an_unknown_is_a_constant() -> None:
    class Filled(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x)
            return y * torch.full_like(y, 2).type_as(y) + y.new_ones(4).expand_as(y)

    assert kinds(imported(Filled())) == ["linear", "parameter", "mul", "parameter", "add"]


class Constant(Model):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.fc(x), self.fc.weight.detach()


def test_a_detached_parameter_is_no_output() -> None:
    with pytest.raises(ModelError, match="output 1 does not depend on the inputs"):
        growir.from_torch(Constant(), vectors().float())
