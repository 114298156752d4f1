"""Stop and go on: training that was saved, rebuilt and gone on with has the bits of training without the stop."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import fx, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.optim.swa_utils import AveragedModel

from growir import live
from growir.network import Network
from growir.passes import PASSES, AddNode, Widen
from growir.testing import candidates, graphs, random_batch, random_network
from tests.live.test_carried import averaged
from tests.live.test_laws import FEW
from tests.live.training import Optimizer, one_step
from tests.samples import mlp, residual_convnet

GROWN = [kind for kind in PASSES if kind.name not in ("extend", "sequence")]  # whose batches stay as they are


def saved(what: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as torch has it on disk, read as it reads what others made."""
    file = io.BytesIO()
    torch.save(what, file)
    file.seek(0)
    found: dict[str, Any] = torch.load(file, weights_only=True)
    return found


def by_dict(module: nn.Module) -> fx.GraphModule:
    return Network.from_dict(saved(live.network_of(module).to_dict())).to_torch()


def by_folder(module: nn.Module) -> fx.GraphModule:
    with TemporaryDirectory() as folder:
        live.network_of(module).save(Path(folder) / "net")
        return Network.load(Path(folder) / "net").to_torch()


def by_state(module: nn.Module) -> fx.GraphModule:
    """The architecture from a document alone, the numbers from torch's own state_dict."""
    network = live.network_of(module)
    state = saved(module.state_dict())
    made = Network.init(network.graph, seed=5, dtype=network.dtype).to_torch()
    made.load_state_dict(state, strict=True)
    return made


REBUILT: dict[str, Callable[[nn.Module], fx.GraphModule]] = {"dict": by_dict, "folder": by_folder, "state": by_state}


def grouped(module: nn.Module) -> list[dict[str, Any]]:
    """Parameters as people group them: matrices decay, vectors do not."""
    params = list(module.parameters())
    return [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]


OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01),
    "groups": lambda m: torch.optim.AdamW(grouped(m), lr=0.01, amsgrad=True),
    "named": lambda m: torch.optim.AdamW(m.named_parameters(), lr=0.01),
}


def cosine(optimizer: Optimizer) -> LRScheduler:
    return CosineAnnealingLR(optimizer, 20)


def train(
    module: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, batch: Sequence[torch.Tensor], steps: int
) -> None:
    for _ in range(steps):
        one_step(module, optimizer, batch)
        scheduler.step()


def bits(module: nn.Module) -> dict[str, bytes]:
    return {key: tensor.numpy().tobytes() for key, tensor in module.state_dict().items()}


@FEW
@given(st.data())
def test_a_stop_changes_no_bit(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    module = random_network(graph).to_torch(dtype=dtype)
    params = list(module.parameters())
    assume(params)
    for param in data.draw(st.lists(st.sampled_from(params), max_size=1)):
        param.requires_grad_(False)
    kind = data.draw(st.sampled_from(sorted(OPTIMIZERS)))
    optimizer = OPTIMIZERS[kind](module)
    scheduler = cosine(optimizer)
    batch = tuple(t.to(dtype) if t.is_floating_point() else t for t in random_batch(graph, 4))
    torch.manual_seed(3)
    train(module, optimizer, scheduler, batch, 2)
    for _ in range(data.draw(st.integers(0, 2))):
        step = data.draw(candidates(data.draw(st.sampled_from(GROWN)), live.network_of(module).graph))
        module, _ = live.grow(module, step, optimizer)
        train(module, optimizer, scheduler, batch, 1)
    assume(list(module.parameters()))  # torch makes no optimizer of none
    again = REBUILT[data.draw(st.sampled_from(sorted(REBUILT)))](module)
    stored = saved({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()})
    other = OPTIMIZERS[kind](again)
    if kind == "groups":  # growth puts what it makes beside its relatives, which need not be where its shape would
        other = torch.optim.AdamW(regrouped(module, optimizer, again), lr=0.01, amsgrad=True)
    other.load_state_dict(stored["optimizer"])
    schedule = cosine(other)
    schedule.load_state_dict(stored["scheduler"])
    assert bits(again) == bits(module)
    torch.manual_seed(9)
    train(module, optimizer, scheduler, batch, 3)
    torch.manual_seed(9)
    train(again, other, schedule, batch, 3)
    assert bits(again) == bits(module)
    assert live.network_of(again).graph.hash == live.network_of(module).graph.hash


def regrouped(module: nn.Module, optimizer: Optimizer, again: nn.Module) -> list[dict[str, Any]]:
    """The groups of an optimizer over another module of the same names."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [
        {"params": [again.get_parameter(names[id(p)]) for p in group["params"]]} for group in optimizer.param_groups
    ]


def named_groups(module: nn.Module, stored: dict[str, Any]) -> list[dict[str, Any]]:
    """The groups that a saved optimizer had, by the names that torch keeps with it."""
    named = dict(module.named_parameters())
    return [{"params": [(name, named[name]) for name in group["param_names"]]} for group in stored["param_groups"]]


def test_groups_are_made_anew_from_the_names_that_torch_keeps() -> None:
    module = random_network(mlp()).to_torch(dtype=torch.float32)
    named = list(module.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": named[2:], "lr": 1e-3, "name": "head"},
        {"params": named[:2], "name": "body"},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    batch = (torch.randn(5, *module_inputs(module)),)
    train(module, optimizer, cosine(optimizer), batch, 2)
    step = AddNode(source="x", target=live.network_of(module).graph.outputs[0], width=3)
    module, _ = live.grow(
        module, step, optimizer, groups=lambda key, parameter: "body" if parameter.ndim > 1 else "head"
    )
    train(module, optimizer, cosine(optimizer), batch, 2)
    stored = saved(optimizer.state_dict())
    again = by_dict(module)
    other = torch.optim.AdamW(named_groups(again, stored))
    other.load_state_dict(stored)
    assert [group["name"] for group in other.param_groups] == ["head", "body"]
    train(module, optimizer, cosine(optimizer), batch, 2)
    train(again, other, cosine(other), batch, 2)
    assert bits(again) == bits(module)


def module_inputs(module: nn.Module) -> tuple[int, ...]:
    return tuple(size for size in live.network_of(module).graph.inputs[0].shape if isinstance(size, int))


def test_an_average_and_batch_statistics_go_on() -> None:
    module = random_network(residual_convnet()).to_torch(dtype=torch.float32)
    average = averaged(module, use_buffers=True)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    batch = (torch.randn(4, *module_inputs(module)),)

    def go_on(module: nn.Module, optimizer: Optimizer, average: AveragedModel) -> None:
        for _ in range(2):
            one_step(module, optimizer, batch)
            average.update_parameters(module)

    go_on(module, optimizer, average)
    module, _ = live.grow(module, Widen(node="stem", by=2), optimizer, ema=[average])
    go_on(module, optimizer, average)
    stored = saved({"optimizer": optimizer.state_dict(), "average": average.state_dict()})
    again = by_folder(module)
    other = torch.optim.AdamW(again.parameters(), lr=0.01)
    other.load_state_dict(stored["optimizer"])
    mean = averaged(again, use_buffers=True)
    mean.load_state_dict(stored["average"])
    go_on(module, optimizer, average)
    go_on(again, other, mean)
    assert bits(again) == bits(module)
    assert bits(mean) == bits(average)


def test_numbers_from_before_a_growth_are_grown_by_the_history() -> None:
    network = random_network(mlp())
    grown = network.apply(Widen(node="fc1", by=3)).apply(AddNode(source="x", target="fc1", width=2))
    old = {key: tensor.numpy() for key, tensor in network.to_torch().state_dict().items()}
    with pytest.raises(RuntimeError, match=r"size mismatch for fc1.weight"):
        grown.to_torch().load_state_dict(network.to_torch().state_dict())
    again = grown.replayed(old)
    assert all(np.array_equal(again.arrays[key], array) for key, array in grown.arrays.items())
