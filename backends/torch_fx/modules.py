"""Modules for operators with state that torch.nn lacks."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn


class Bias(nn.Module):
    """A learned vector for every sample: (N, ...) -> (N, features, 1 x dims); the input only gives N."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims = dims
        self.bias: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # A copy, not a view: whoever writes into an output must not write into the parameter.
        return self.bias.reshape(1, -1, *(1,) * self.dims).repeat(x.size(0), *(1,) * (self.dims + 1))


class Standardise(nn.Module):
    """(x - mean) / std with kept statistics, 0 where std is at most eps times the largest; or its inverse."""

    def __init__(self, eps: float, inverse: bool) -> None:
        super().__init__()
        self.eps = eps
        self.inverse = inverse
        self.mean: torch.Tensor
        self.std: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.inverse:
            return x * self.std + self.mean
        varies = self.std > self.eps * self.std.max()
        # The inner where keeps 1/0 out of the backward pass.
        factor = torch.where(varies, 1 / torch.where(varies, self.std, 1), 0)
        return (x - self.mean) * factor

    def extra_repr(self) -> str:
        return f"eps={self.eps}, inverse={self.inverse}"


class Attention(nn.Module):
    """Scaled dot product attention with dropout in train mode, which torch's function knows nothing of."""

    def __init__(self, dropout_p: float, is_causal: bool, scale: float | None, seen: bool = False) -> None:
        super().__init__()
        self.dropout_p = dropout_p
        self.is_causal = is_causal
        self.scale = scale
        self.seen = seen  # whether the mask says what is seen

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        rate = self.dropout_p if self.training else 0.0
        if mask is not None and self.seen:
            mask = mask != 0
        return F.scaled_dot_product_attention(q, k, v, mask, rate, self.is_causal, scale=self.scale)

    def extra_repr(self) -> str:
        return f"dropout_p={self.dropout_p}, is_causal={self.is_causal}, scale={self.scale}"


class Select(nn.Module):
    """Fixed positions of one axis; the indices move with the module but are no part of its state_dict."""

    indices: torch.Tensor

    def __init__(self, axis: int, indices: tuple[int, ...]) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("indices", torch.tensor(indices), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.index_select(self.axis, self.indices)

    def extra_repr(self) -> str:
        return f"axis={self.axis}, {len(self.indices)} positions"


class FixedSizes(nn.Module):
    """Refuses inputs on which the network would compute something else than the model it was imported from.

    Args:
        rules: For each axis with one right size: the input's place among the arguments, its name, the axis, the size,
            and the line of the model that uses it as a number, or "".
        most: For each axis that may be shorter: the place, the name, the axis, the largest size, and the table that
            holds no more.

    Raises:
        ValueError: In forward, for an input of another size.
    """

    _is_impure = True  # for torch.fx, which takes out calls whose result nothing reads
    most: tuple[tuple[int, str, int, int, str], ...] = ()  # of modules that were pickled before there were any

    def __init__(
        self,
        rules: tuple[tuple[int, str, int, int, str], ...],
        most: tuple[tuple[int, str, int, int, str], ...] = (),
    ) -> None:
        super().__init__()
        self.rules = rules
        self.most = most

    def forward(self, *inputs: torch.Tensor) -> None:
        for place, name, axis, size, why in self.rules:
            found = inputs[place].size(axis)
            right = cast("object", found == size)
            cause = f" ({why})" if why else ""
            self._check(right, name, axis, found, f"needs {size}, a number in it{cause}; resize")
        for place, name, axis, size, table in self.most:
            found = inputs[place].size(axis)
            right = cast("object", found <= size)
            self._check(right, name, axis, found, f"takes at most {size}, the length of its table {table}; cut")

    @staticmethod
    def _check(right: object, name: str, axis: int, found: int, needed: str) -> None:
        remedy = f"but this network {needed} the input, or import the model again with an example of the size you need"
        if not isinstance(right, bool):  # while torch traces the code: the check becomes part of the trace
            text = f"{name}: axis {axis} has another size, {remedy}"
            torch._assert(right, text)  # type: ignore[no-untyped-call]
        elif not right:
            raise ValueError(f"{name}: axis {axis} has the size {found}, {remedy}")

    def extra_repr(self) -> str:
        only = [f"{name} axis {axis}: {size}" for _, name, axis, size, _ in self.rules]
        most = [f"{name} axis {axis}: at most {size}" for _, name, axis, size, _ in self.most]
        return ", ".join(only + most)


class Cast(nn.Module):
    """Any numbers as floats of the dtype that the module has been moved to."""

    like: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.like.dtype)
