"""Small training loops that the tests of live growth share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from growir.graph import Graph
from growir.params import param_table
from growir.testing import random_network

Optimizer = torch.optim.Optimizer


def module_of(graph: Graph, dtype: torch.dtype = torch.float64) -> fx.GraphModule:
    """A module with random weights, in eval mode: no statistics move between two runs that are compared."""
    return random_network(graph).to_torch(dtype=dtype).eval()


def loss_of(module: Callable[..., Any], batch: Sequence[torch.Tensor], seed: int = 7) -> torch.Tensor | None:
    """A fixed random mixture of the outputs; None if nothing in them is learned."""
    found = module(*batch)
    generator = torch.Generator().manual_seed(seed)
    parts: list[torch.Tensor] = []
    for value in found if isinstance(found, tuple) else (found,):
        # For every output, since growth may make another one depend on a parameter; float64 for every dtype alike.
        mixture = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if value.requires_grad:
            parts.append((value * mixture.to(value)).sum())
    return torch.stack(parts).sum() if parts else None


def one_step(module: Callable[..., Any], optimizer: Optimizer, batch: Sequence[torch.Tensor]) -> None:
    optimizer.zero_grad()
    loss = loss_of(module, batch)
    if loss is not None:
        torch.autograd.backward(loss)
    optimizer.step()


def twins(module: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
    """A copy of both that goes its own way."""
    copied: tuple[nn.Module, Optimizer] = copy.deepcopy((module, optimizer))
    return copied


def params_of(graph: Graph, module: nn.Module) -> dict[str, nn.Parameter]:
    """The learned parameters by key."""
    found = dict(module.named_parameters(remove_duplicate=False))
    return {key: found[key] for key, param in param_table(graph).items() if not param.buffer}


def snapshot(module: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    """Remember everything; the function that comes back asserts that nothing has changed."""
    tensors = {key: (id(t), t.detach().clone(), t.requires_grad) for key, t in _everything(module).items()}
    modes = {name: part.training for name, part in module.named_modules()}
    groups = [(id(group), id(group["params"]), list(map(id, group["params"]))) for group in optimizer.param_groups]
    others: list[dict[str, Any]] = copy.deepcopy(
        [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    )
    state = {id(p): {k: copy.deepcopy(v) for k, v in slots.items()} for p, slots in optimizer.state.items()}

    def unchanged() -> None:
        now = _everything(module)
        assert now.keys() == tensors.keys()
        for key, tensor in now.items():
            number, value, grad = tensors[key]
            assert id(tensor) == number
            assert torch.equal(tensor, value)
            assert tensor.requires_grad == grad
        assert {name: part.training for name, part in module.named_modules()} == modes
        found = [(id(group), id(group["params"]), list(map(id, group["params"]))) for group in optimizer.param_groups]
        assert found == groups
        assert [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups] == others
        assert {id(p) for p in optimizer.state} == state.keys()
        for p, slots in optimizer.state.items():
            for entry, value in slots.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(state[id(p)][entry])), entry

    return unchanged


def _everything(module: nn.Module) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = module.state_dict(keep_vars=True)
    return found
