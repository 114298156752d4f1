"""Edits on torch tensors, on their own device, differentiable in the tensors that go in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growir.backends.torch_arrays import to_array, to_tensor
from growir.edits import NUMPY, Backend


class TorchBackend:
    """Edits on torch tensors; every operation returns a new tensor, so autograd can follow.

    Attributes:
        like: A tensor whose device, and float dtype, created tensors take; the CPU and their own if None.
    """

    def __init__(self, like: torch.Tensor | None = None) -> None:
        self.like = like

    def take(self, array: torch.Tensor, axis: int, index: NDArray[np.int64]) -> torch.Tensor:
        return array.index_select(axis, torch.from_numpy(index).to(array.device))

    def scale(self, array: torch.Tensor, axis: int, factor: NDArray[np.float64]) -> torch.Tensor:
        shape = [-1 if k == axis else 1 for k in range(array.ndim)]
        return array * torch.from_numpy(factor).to(array.device, array.dtype).reshape(shape)

    def put(
        self, array: torch.Tensor, axis: int, index: NDArray[np.int64], block: torch.Tensor | NDArray[Any] | float
    ) -> torch.Tensor:
        where = torch.from_numpy(index).to(array.device)
        if isinstance(block, float | int):
            return array.index_fill(axis, where, block)
        return array.index_copy(axis, where, _tensor(block).to(array.device, array.dtype))

    def add(self, array: torch.Tensor, block: torch.Tensor | NDArray[Any]) -> torch.Tensor:
        return array + _tensor(block).to(array.device, array.dtype)

    def join(self, arrays: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(arrays))

    def reshape(self, array: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        return array.reshape(shape)

    def shape(self, array: torch.Tensor) -> tuple[int, ...]:
        return tuple(array.shape)

    def deviation(self, array: torch.Tensor) -> float:
        # By numpy, so that both executors agree to the bit.
        return NUMPY.deviation(to_array(array.detach()))

    def mean_along(self, array: torch.Tensor, axis: int) -> torch.Tensor:
        return array.double().mean(axis, keepdim=True).to(array.dtype)

    def create(self, block: NDArray[Any]) -> torch.Tensor:
        made = to_tensor(block)
        if self.like is None:
            return made
        return made.to(self.like.device, self.like.dtype if made.is_floating_point() else None)

    def copy(self, array: torch.Tensor) -> torch.Tensor:
        return array.clone()

    def cast(self, block: torch.Tensor | NDArray[Any], array: torch.Tensor) -> torch.Tensor:
        return _tensor(block).to(array.device, array.dtype)


def _tensor(block: torch.Tensor | NDArray[Any]) -> torch.Tensor:
    return block if isinstance(block, torch.Tensor) else to_tensor(block)


TORCH: Backend[torch.Tensor] = TorchBackend()
