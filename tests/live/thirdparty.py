"""Optimizers of other packages, each small and faithful to how the package keeps its state."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

Params = Iterable[nn.Parameter]


def gradient(p: torch.Tensor) -> torch.Tensor:
    assert p.grad is not None
    return p.grad


class _Simple(Optimizer):
    """Steps parameter by parameter; state starts when none is found."""

    def __init__(self, params: Params, lr: float = 1e-2, **defaults: Any) -> None:
        super().__init__(params, {"lr": lr, **defaults})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.one(p, gradient(p), self.state[p], group)

    def one(self, p: torch.Tensor, g: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        raise NotImplementedError


class Lion(_Simple):
    """Chen et al. 2023: the sign of an average; lion_pytorch, timm."""

    def one(self, p: torch.Tensor, g: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        average = state.setdefault("exp_avg", torch.zeros_like(p))
        p.sub_(group["lr"] * (0.9 * average + 0.1 * g).sign())
        average.lerp_(g, 0.01)


class Lamb(_Simple):
    """You et al. 2020: Adam's direction, as long as the tensor's weights; timm, apex."""

    def one(self, p: torch.Tensor, g: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        first = state.setdefault("exp_avg", torch.zeros_like(p)).lerp_(g, 0.1)
        second = state.setdefault("exp_avg_sq", torch.zeros_like(p)).lerp_(g * g, 0.01)
        direction = first / (second.sqrt() + 1e-12)
        p.sub_(group["lr"] * direction * p.norm() / direction.norm().clamp_min(1e-12))


class KellerMuon(_Simple):
    """Jordan et al. 2024: momentum, orthogonalised as a matrix; named and kept like torch's SGD's."""

    def one(self, p: torch.Tensor, g: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        momentum = state.setdefault("momentum_buffer", torch.zeros_like(p)).mul_(0.95).add_(g)
        if p.ndim == 2:
            u, _, v = torch.linalg.svd(momentum, full_matrices=False)
            p.sub_(group["lr"] * u @ v)
        else:
            p.sub_(group["lr"] * momentum)


class ScheduleFree(_Simple):
    """Defazio et al. 2024, AdamWScheduleFree in train mode: parameters lie between z and its average."""

    def one(self, p: torch.Tensor, g: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if "z" not in state:
            state.update(z=p.detach().clone(), exp_avg_sq=torch.zeros_like(p))
        group["k"] = group.get("k", 0) + 1
        state["exp_avg_sq"].lerp_(g * g, 0.01)
        step = g / (state["exp_avg_sq"].sqrt() + 1e-12)
        weight = 1 / group["k"]
        p.lerp_(state["z"], weight)
        p.add_(step, alpha=group["lr"] * (0.9 * (1 - weight) - 1))
        state["z"].sub_(group["lr"] * step)


class Prodigy(_Simple):
    """Mishchenko and Defazio 2024: where each weight began, and one rate for the whole network worked out from that."""

    def one(self, p: torch.Tensor, g: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if "p0" not in state:
            state.update(p0=p.detach().clone(), s=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        state["s"].mul_(0.99).add_(g)
        state["exp_avg_sq"].lerp_(g * g, 0.01)
        found = float((g * (state["p0"] - p)).sum() / state["s"].abs().sum().clamp_min(1e-12))
        group["d"] = max(group.get("d", 1e-3), found)
        p.sub_(group["d"] * group["lr"] * g / (state["exp_avg_sq"].sqrt() + 1e-12))


class Shampoo(_Simple):
    """Gupta et al. 2018: a preconditioner for each axis, in a list; SOAP keeps the like."""

    def one(self, p: torch.Tensor, g: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state.update(step=0, precond=[torch.eye(n, dtype=p.dtype) for n in p.shape])
        state["step"] += 1
        for axis, matrix in enumerate(state["precond"]):
            flat = g.movedim(axis, 0).flatten(1) if g.ndim > 1 else g.view(-1, 1)
            matrix.add_(flat @ flat.T)
        first = torch.linalg.inv(state["precond"][0])
        p.sub_(group["lr"] * (first @ g.flatten(1) if g.ndim > 1 else first @ g).view_as(p))


class EightBit(_Simple):
    """bitsandbytes: moments as codes in uint8."""

    def one(self, p: torch.Tensor, g: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if not state:
            state.update(state1=torch.full(p.shape, 128, dtype=torch.uint8), absmax=torch.zeros(1, dtype=p.dtype))
        old = (state["state1"].to(p.dtype) - 128) / 127 * state["absmax"]
        new = old.lerp(g, 0.1)
        state["absmax"].copy_(new.abs().max())
        state["state1"].copy_((new / state["absmax"].clamp_min(1e-12) * 127 + 128).round())
        p.sub_(group["lr"] * new.sign())


# -- optimizers that hold another -------------------------------------------------------------------------------------


class Lookahead(Optimizer):
    """timm's: shares the groups of the one it holds, keeps slow weights in a state of its own."""

    def __init__(self, base: Optimizer, alpha: float = 0.5, k: int = 2) -> None:
        self._optimizer_step_pre_hooks: Any = {}
        self._optimizer_step_post_hooks: Any = {}
        self._base_optimizer = base
        self.param_groups = base.param_groups
        self.defaults = base.defaults
        self.state: defaultdict[torch.Tensor, Any] = defaultdict(dict)
        for group in self.param_groups:
            group.update(lookahead_alpha=alpha, lookahead_k=k, lookahead_step=0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            self._base_optimizer.step(closure)
        for group in self.param_groups:
            group["lookahead_step"] += 1
            if group["lookahead_step"] % group["lookahead_k"] == 0:
                for p in group["params"]:
                    if p.grad is not None:
                        slow = self.state[p].setdefault("lookahead_slow_buff", p.clone())
                        slow.lerp_(p, group["lookahead_alpha"])
                        p.copy_(slow)


class ListLookahead(Optimizer):
    """An older one: slow weights in a list beside the state, by position."""

    def __init__(self, base: Optimizer) -> None:
        self._optimizer_step_pre_hooks: Any = {}
        self._optimizer_step_post_hooks: Any = {}
        self.optimizer = base
        self.param_groups = base.param_groups
        self.state = base.state
        self.defaults = base.defaults
        self.slow_weights = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]

    def step(self, closure: Any = None) -> Any:
        self.optimizer.step(closure)


class Sam(Optimizer):
    """Foret et al. 2021, as davda54/sam: climbs first, then lets the optimizer it holds step from where it was."""

    def __init__(self, params: Params, base: type[Optimizer], rho: float = 0.05, **options: Any) -> None:
        super().__init__(params, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        scale = self.param_groups[0]["rho"] / (math.hypot(*(float(gradient(p).norm()) for p in params)) + 1e-12)
        for p in params:
            self.state[p]["old_p"] = p.clone()
            p.add_(gradient(p), alpha=scale)
        if closure is not None:
            with torch.enable_grad():
                closure()
        for p in params:
            p.copy_(self.state[p]["old_p"])
        self.base_optimizer.step()


class Clipping(Optimizer):
    """Stands for the one it holds: the very state and groups, as Lightning's and Accelerate's wrappers have."""

    def __init__(self, base: Optimizer) -> None:
        self._optimizer_step_pre_hooks: Any = {}
        self._optimizer_step_post_hooks: Any = {}
        self.optimizer = base

    @property
    def state(self) -> Any:  # type: ignore[override]  # as Accelerate has it
        return self.optimizer.state

    @property
    def param_groups(self) -> Any:  # type: ignore[override]
        return self.optimizer.param_groups

    def step(self, closure: Any = None) -> Any:
        self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


class LightningOptimizer:
    """Lightning's: imitates the class of the one it holds, and has all it lacks from there."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._strategy: Any = None
        self.__class__ = type(f"Lightning{type(optimizer).__name__}", (type(self), type(optimizer)), {})

    def step(self, closure: Any = None) -> Any:
        return self._optimizer.step(closure)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)
