"""Edits on torch tensors, on their own device, differentiable in the tensors that go in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growir.edits import Backend


class TorchBackend:
    """Edits on torch tensors; every operation returns a new tensor, so autograd can follow."""

    def take(self, array: torch.Tensor, axis: int, index: NDArray[np.int64]) -> torch.Tensor:
        return array.index_select(axis, torch.from_numpy(index).to(array.device))

    def scale(self, array: torch.Tensor, axis: int, factor: NDArray[np.float64]) -> torch.Tensor:
        shape = [-1 if k == axis else 1 for k in range(array.ndim)]
        return array * torch.from_numpy(factor).to(array.device, array.dtype).reshape(shape)

    def put(
        self, array: torch.Tensor, axis: int, index: NDArray[np.int64], block: NDArray[Any] | float
    ) -> torch.Tensor:
        where = torch.from_numpy(index).to(array.device)
        if isinstance(block, float):
            return array.index_fill(axis, where, block)
        return array.index_copy(axis, where, torch.from_numpy(np.array(block)).to(array.device, array.dtype))

    def add(self, array: torch.Tensor, block: NDArray[Any]) -> torch.Tensor:
        return array + torch.from_numpy(np.array(block)).to(array.device, array.dtype)

    def shape(self, array: torch.Tensor) -> tuple[int, ...]:
        return tuple(array.shape)

    def mean(self, array: torch.Tensor) -> float:
        return float(array.double().mean()) if array.numel() else 0.0

    def create(self, block: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.array(block))


TORCH: Backend[torch.Tensor] = TorchBackend()
