"""Growth where several processes train together: all ranks alike and outside of every wrapper, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import distributed

from growir.errors import ModelError

T = TypeVar("T")


def world_size() -> int:
    """How many ranks the process group has that is up; 1 without one."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def alike_on_all_ranks(work: Callable[[], T], summary: Callable[[T], str], on_all_ranks: bool) -> T:
    """The result of work that changes nothing yet, once it is known to be the same on every rank.

    Args:
        work: What every rank does.
        summary: Of its result, what must be the same everywhere.
        on_all_ranks: Whether the caller says that every rank comes here, and that no wrapper holds the old parameters.

    Raises:
        ModelError: Several ranks are up and the caller does not say that, or they come to different results.
        Exception: What the work raised here.
    """
    size = world_size()
    if size > 1 and not on_all_ranks:
        raise ModelError(
            f"torch.distributed runs with {size} ranks: a DistributedDataParallel around what holds the module cannot "
            "be seen from here, and would go on with the old parameters while the ranks part; let its training end "
            "(or take ddp.module), call live.grow(..., on_all_ranks=True) on every rank alike, and wrap what comes "
            "back anew"
        )
    if size == 1:
        return work()
    # A rank that fails takes part in the comparison too: the others would wait for it.
    result: list[T] = []
    failure: Exception | None = None
    try:
        result.append(work())
        mine = summary(result[0])
    except Exception as error:
        failure, mine = error, f"failed: {error}"
    found: list[str] = [""] * size
    distributed.all_gather_object(found, mine)
    if failure is not None:
        raise failure
    other = next((rank for rank, theirs in enumerate(found) if theirs != mine), None)
    if other is not None:
        raise ModelError(
            f"the ranks do not grow alike, and nothing was applied: rank {distributed.get_rank()} has "
            f"{_short(mine)}, and rank {other} {_short(found[other])}; grow the same network by the same pass on "
            "every rank"
        )
    return result[0]


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}..."
