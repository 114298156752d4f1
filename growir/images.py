"""Images as maps: which axis of a sample counts the channels, and what brings it to the front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from growir.errors import GraphError
from growir.ops import Op, Permute, Unsqueeze

CHANNELS: Final = (1, 3, 4)  # of images, which tells (C, H, W) from (H, W, C)


def to_maps(sample: Sequence[int]) -> list[Op]:
    """What makes (N, C, H, W) of samples, if anything needs to. Raises GraphError if they are no images."""
    whole = all(type(size) is int and size > 0 for size in sample)
    if len(sample) == 2 and whole:
        return [Unsqueeze(dim=1)]
    if len(sample) == 3 and whole and sample[0] in CHANNELS:
        return []
    if len(sample) == 3 and whole and sample[-1] in CHANNELS:
        return [Permute(dims=(0, 3, 1, 2))]
    raise GraphError(
        "convolutions read images, (H, W), (C, H, W) or (H, W, C) with 1, 3 or 4 channels, but samples are "
        f"{tuple(sample)}"
    )
