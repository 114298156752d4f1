"""Muon for the matrices of a network, and AdamW for all else: torch's Muon takes nothing but matrices.

Both go at one learning rate: Muon's steps are scaled to the size that AdamW's have (Liu et al. 2025, "Muon is scalable
for LLM training"), unless `adjust_lr_fn` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from growir.live.rows import register
from growir.moments import ADAM

_BY = "by"  # in a group: the name of the class that steps it
_KINDS: tuple[Any, ...] = (torch.optim.Muon, torch.optim.AdamW)


class MuonByRank(torch.optim.Optimizer):
    """Steps weights of rank two by torch's Muon and all others by AdamW, in one optimizer that grows as one.

    Its groups are "matrices" (rank 2), "decayed" (kernels) and "plain" (biases and norms).

    Args:
        parameters: By key.
        lr: Of all.
        weight_decay: Of matrices and kernels.
        decay_all: Whether biases and norms decay too.
        muon: Further keywords of torch.optim.Muon. Raises ValueError or TypeError as that does.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        *,
        decay_all: bool = False,
        **muon: Any,
    ) -> None:
        values = list(parameters.values())
        settings: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "adjust_lr_fn": "match_rms_adamw", **muon}
        stand_in = [nn.Parameter(torch.zeros(1, 1))]
        of_muon: dict[str, Any] = torch.optim.Muon(stand_in, **settings).defaults | {_BY: "Muon"}
        of_adamw: dict[str, Any] = torch.optim.AdamW(stand_in, lr=lr, weight_decay=weight_decay).defaults | {
            _BY: "AdamW"
        }
        groups: list[dict[str, Any]] = [
            {**of_muon, "params": [p for p in values if p.ndim == 2], "name": "matrices"},
            {**of_adamw, "params": [p for p in values if p.ndim > 2], "name": "decayed"},
            {**of_adamw, "params": [p for p in values if p.ndim < 2], "name": "plain"},
        ]
        if not decay_all:
            groups[2]["weight_decay"] = 0.0
        # No betas among the defaults: OneCycleLR would look for them in every group.
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": of_muon["momentum"]})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of each. Returns what `closure` gives, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for kind in _KINDS:
            chosen = [group for group in self.param_groups if group[_BY] == kind.__name__]
            # The same state under another class, which then sees its own groups only. Hooks of steps ran already.
            view = object.__new__(kind)
            vars(view).update(vars(self), param_groups=chosen, defaults=chosen[0])
            vars(view).update(_optimizer_step_pre_hooks={}, _optimizer_step_post_hooks={})
            kind.step(view)
        return loss


register(MuonByRank, {"momentum_buffer": "gradient", **ADAM}, coordinatewise=False)
