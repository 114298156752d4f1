"""Why a model may differ from its import through no fault of the import: the model itself is no fixed function.

A model that draws a number with Python's own `random`, counts its calls, or asks how large the batch is, does so unseen
by torch.export, which keeps the number of one run. Running it again tells.
"""

from __future__ import annotations

from growir.backends.torch_export.comparing import Closeness, alike
from growir.backends.torch_export.exporting import run
from growir.backends.torch_export.preparing import Prepared

_UNSTEADY = (
    "the model gives another output each time that it runs on the same inputs, in eval mode too: it draws random "
    "numbers outside of torch, reads a clock, or changes what it holds. Keep such a number fixed, or make it an input"
)
_BATCH = (
    "what the model gives for a sample depends on the batch size or on the other samples, and a graph treats each "
    "sample alike: len(x), int(x.shape[0]) or an `if` on it may stand in forward. Leave it out, or make it an input"
)
MISREAD = "the import reads the model wrongly, which is a fault of growir: please report it with the model"


def why_apart(prepared: Prepared, close: Closeness) -> str:
    """Whether the model, its batch or the import is to blame for a difference between model and network.

    Args:
        prepared: The model with its inputs.
        close: How far apart outputs that count as equal may be.
    """
    first, *others = (run(prepared, 2) for _ in range(6))  # a toss of a coin in forward may come out alike
    if not all(alike(first, other, close) for other in others):
        return _UNSTEADY
    for count in (3, prepared.batch):
        if not alike(first, tuple(output[:2] for output in run(prepared, count)), close):
            return _BATCH
    return MISREAD
