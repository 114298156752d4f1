"""Numpy arrays as torch tensors and back, bfloat16 included, for which the two have no way to each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from growir.errors import cut
from growir.params import BFLOAT16


def to_tensor(array: NDArray[Any]) -> torch.Tensor:
    """A tensor on the CPU with a copy of an array's numbers, of the same dtype."""
    return sharing(np.array(array))


def sharing(array: NDArray[Any]) -> torch.Tensor:
    """A tensor on the CPU in the memory of an array, of the same dtype."""
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(tensor: torch.Tensor) -> NDArray[Any]:
    """An array with a copy of a tensor's numbers, of the same dtype."""
    whole = tensor.detach().cpu().contiguous()
    found: NDArray[Any]
    if whole.dtype == torch.bfloat16:
        found = whole.view(torch.int16).numpy().view(BFLOAT16)
    else:
        found = whole.numpy()
    return found.copy()


def read_tensor(value: object) -> NDArray[Any] | str:
    """An array with a copy of the numbers of what ought to be a tensor, or what keeps it from being one."""
    if not isinstance(value, torch.Tensor):
        return f"a tensor is needed, but this is of type {cut(type(value).__name__)}"
    if value.is_meta:
        return "the tensor is on the device meta, without numbers; load it with map_location='cpu'"
    if value.layout is not torch.strided:
        return f"the tensor is {str(value.layout).removeprefix('torch.')}, but a dense one is needed"
    try:
        return to_array(value)
    except (TypeError, RuntimeError) as error:  # a dtype that numpy has not, numbers kept in another form
        return f"the tensor is of {str(value.dtype).removeprefix('torch.')}, which cannot be read: {cut(error)}"
