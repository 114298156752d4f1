"""Statistics of norms, taken anew from batches.

Running means and variances follow the weights with a delay, and fresh channels have none. What is measured in eval mode
before that is mended says more of the delay than of a growth: losses that are off by .02 to 2 were seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]  # every norm with statistics

from growir.data.shuffling import Shuffle
from growir.errors import RunError

if TYPE_CHECKING:
    from growir.growth.session import Session


def recalibrate(session: Session, batches: int, *key: int) -> int:
    """Put in place of all running statistics the mean of those of so many batches that are trained on.

    The rest of the network is in eval mode meanwhile, so that nothing is dropped out, and no weight changes.

    Args:
        session: The network.
        batches: The most batches; fewer where an epoch has fewer.
        key: Of their order.

    Returns:
        How many were read; 0 where the network keeps no statistics.

    Raises:
        RunError: Statistics are not finite. Those of before stay then, as they do where batches cannot be read.
    """
    ready = session.reading.ready(session.data.train)
    norms = [part for part in ready.module.modules() if _keeps(part)]
    if not norms or not batches:
        return 0
    known = [(norm, norm.momentum, _count(norm)) for norm in cast("list[_NormBase]", norms)]
    before = [(buffer, buffer.clone()) for norm, _, _ in known for buffer in _statistics(norm)]
    ready.module.eval()
    read, kept = 0, False
    try:
        for norm, _, _ in known:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # a mean over all batches, each counting alike
        size, shuffle = session.train_config.batch_size or 64, Shuffle((session.seed, 32, *key))
        with torch.no_grad():
            for batch in ready.batches(size, shuffle):
                if len(batch) < 2:  # of which there is no variance
                    continue
                ready.forward(batch)
                read += 1
                if read == batches:
                    break
        if not all(bool(buffer.isfinite().all()) for buffer, _ in before):
            raise RunError(
                "growing: statistics of norms are NaN or infinite on the training data, so nothing can be measured, "
                "and the network stays as it was; look for huge numbers in the data or in weights"
            )
        kept = read > 0
    finally:
        if not kept:
            for buffer, value in before:
                buffer.copy_(value)
        for norm, momentum, count in known:
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.fill_(count)
            norm.eval()
    session.meter.count(2.0 * session.graph.costs().macs * read * size)
    return read


def _keeps(part: nn.Module) -> bool:
    return isinstance(part, _NormBase) and part.track_running_stats and part.running_mean is not None


def _statistics(norm: _NormBase) -> list[torch.Tensor]:
    return [buffer for buffer in (norm.running_mean, norm.running_var) if buffer is not None]


def _count(norm: _NormBase) -> int | None:
    return None if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
