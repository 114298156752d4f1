"""What each operator of torch.aten becomes: its name to the function that writes the graph's nodes for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from growir.backends.torch_export import cuts, joints, layers, layout, pointwise, pools, products, reductions
from growir.backends.torch_export.calls import Call
from growir.backends.torch_export.reading import Reader

TABLE: dict[str, Callable[[Reader, Call], Any]] = {
    **layout.TABLE,
    **cuts.TABLE,
    **joints.TABLE,
    **pointwise.TABLE,
    **layers.TABLE,
    **products.TABLE,
    **reductions.TABLE,
    **pools.TABLE,
}
