"""A network trains as its model does, or `train_differs` says where it does not."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import growir
from growir.network import Network
from tests.importing.models import vectors
from tests.importing.trained import ALIKE, DIFFERENT
from tests.sampling import thinned
from tests.zoo import ZOO
from tests.zoo.imported import dropless, varied

STEPS = 3


def made(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return varied(make().double())


def quietly(model: nn.Module, *example: torch.Tensor) -> Network:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return growir.from_torch(model, example)


def trains_apart(model: nn.Module, network: Network, batches: list[tuple[torch.Tensor, ...]]) -> float:
    """The largest difference of outputs and gradients over some steps of train mode, by another code than import's.

    Every parameter of both takes a step, too, so that what differs once shows in all that follows.
    """
    model, module = copy.deepcopy(model).train(), network.to_torch().train()
    known = {p.detach().numpy().tobytes(): name for name, p in model.named_parameters()}
    pairs = [
        (dict(model.named_parameters())[known[p.detach().numpy().tobytes()]], p)
        for p in module.parameters()
        if p.detach().numpy().tobytes() in known
    ]
    worst = 0.0
    for batch in batches:
        for side in (model, module):
            side.zero_grad()
        wanted, found = model(*batch), module(*batch)
        weights = torch.linspace(0.5, 1.5, wanted.numel(), dtype=wanted.dtype).view(wanted.shape)
        for value in (wanted, found):
            (value * weights).square().mean().backward()
        worst = max(worst, float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1e-3)))
        largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
        for one, two in pairs:
            grads = [torch.zeros_like(one) if p.grad is None else p.grad.reshape(one.shape) for p in (one, two)]
            worst = max(worst, float((grads[0] - grads[1]).abs().max()) / largest)
        for side in (model, module):
            for p in side.parameters():
                if p.grad is not None:
                    p.data -= 0.01 * p.grad / largest
    return worst


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_trains_otherwise_is_marked_with_its_line(name: str) -> None:
    make, says = DIFFERENT[name]
    model = made(make)
    with pytest.warns(UserWarning, match="train mode|gradients|trains otherwise") as caught:
        network = growir.from_torch(model, vectors(3))
    marks = network.graph.train_differs
    assert any(says in mark for mark in marks)
    assert any(says in str(warning.message) for warning in caught)
    if "# here" in "".join(marks):
        assert any(mark.startswith("trained.py:") and "# here" in mark for mark in marks)
    else:
        assert name in ("module hook", "parameter hook", "counts in python", "noise")


@pytest.mark.parametrize("name", ALIKE)
def test_what_trains_the_same_has_no_mark(name: str) -> None:
    model = made(ALIKE[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = growir.from_torch(model, vectors(3))
    assert network.graph.train_differs == ()


@pytest.mark.parametrize("name", thinned([*ALIKE, *DIFFERENT, *ZOO]))
def test_it_trains_the_same_or_is_marked(name: str) -> None:
    if name in ZOO:
        model, network = dropless(name)
        batches = [ZOO[name].inputs(4, seed=k) for k in range(STEPS)]
    else:
        model = made(ALIKE[name] if name in ALIKE else DIFFERENT[name][0])
        network, batches = quietly(model, vectors(3)), [(vectors(4 + k),) for k in range(STEPS)]
    if name in ("checkpointed", "dropped attention", "drops in training"):  # what drops is compared below
        assert network.graph.train_differs == ()
        return
    if network.graph.train_differs == ():
        assert trains_apart(model, network, batches) <= 1e-8
    else:
        assert name in DIFFERENT


def test_a_dropout_of_train_mode_alone_is_one_of_the_network() -> None:
    graph = quietly(made(ALIKE["drops in training"]), vectors(3)).graph
    assert [node.op.attributes().get("p") for node in graph.nodes if node.op.kind() == "dropout"] == [0.3]


def test_a_bias_that_eval_mode_keeps_is_learned() -> None:
    network = quietly(made(ALIKE["keeps its bias"]), vectors(3))
    assert "table.weight" in network.arrays
    assert "table.weight" in dict(network.to_torch().named_parameters())


def test_without_a_comparison_everything_that_may_differ_is_marked() -> None:
    for make in (DIFFERENT["straight through"][0], ALIKE["saves memory"], ALIKE["watched"]):
        with pytest.warns(UserWarning, match="changes gradients on their way"):
            assert growir.from_torch(made(make), vectors(3), check=False).graph.train_differs


def test_a_zero_gate_hides_nothing_from_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    from growir.backends.torch_export import table
    from tests.importing.models import Model

    class Gated(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) + self.gate * torch.relu(self.other(x))

    monkeypatch.setitem(table.TABLE, "relu", table.TABLE["silu"])
    model = Gated(gate=nn.Parameter(torch.zeros(4)), other=nn.Linear(4, 4))
    with pytest.raises(growir.errors.ModelError, match="with its numbers drawn anew: the import reads"):
        growir.from_torch(model.double(), vectors(3))


def test_the_hooks_of_torch_are_put_back() -> None:
    from torch.autograd.function import _SingleLevelFunction

    before = torch.Tensor.register_hook
    quietly(made(DIFFERENT["hook"][0]), vectors(3))
    assert torch.Tensor.register_hook is before
    assert "apply" not in vars(_SingleLevelFunction)


def test_a_constant_of_another_dtype_hides_no_dtype() -> None:
    from tests.importing.models import Model

    class Coarse(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.fc(x).to(torch.float32) * torch.tensor(2.0), -1).to(x.dtype)

    with pytest.warns(UserWarning, match="the model computes a part in torch.float32"):
        growir.from_torch(Coarse().double(), vectors(3))
