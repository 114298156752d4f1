"""What each operator of torch.aten becomes: its name to the function that writes the graph's nodes for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from growir.backends.torch_export import (
    cuts,
    experts,
    joints,
    layers,
    layout,
    pointwise,
    pools,
    products,
    reductions,
    truths,
    windows,
)
from growir.backends.torch_export.calls import Call, name_of
from growir.backends.torch_export.reading import Reader

TABLE: dict[str, Callable[[Reader, Call], Any]] = {
    **layout.TABLE,
    **cuts.TABLE,
    **joints.TABLE,
    **pointwise.TABLE,
    **truths.TABLE,
    **layers.TABLE,
    **experts.TABLE,
    **products.TABLE,
    **reductions.TABLE,
    **pools.TABLE,
    **windows.TABLE,
}


def knows(call: fx.Node) -> bool:
    """Whether the table reads a call as it is; otherwise torch's definition of it may be read instead."""
    return name_of(call) in TABLE and (name_of(call) != "einsum" or products.is_product(call))
