"""Numpy arrays as torch tensors and back, bfloat16 included, for which the two have no way to each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growir.params import BFLOAT16


def to_tensor(array: NDArray[Any]) -> torch.Tensor:
    """A tensor on the CPU with a copy of an array's numbers, of the same dtype."""
    whole = np.array(array)
    if whole.dtype == BFLOAT16:
        return torch.from_numpy(whole.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(whole)


def to_array(tensor: torch.Tensor) -> NDArray[Any]:
    """An array with a copy of a tensor's numbers, of the same dtype."""
    whole = tensor.detach().cpu().contiguous()
    found: NDArray[Any]
    if whole.dtype == torch.bfloat16:
        found = whole.view(torch.int16).numpy().view(BFLOAT16)
    else:
        found = whole.numpy()
    return found.copy()
