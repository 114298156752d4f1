"""Growth inside one's own training loop: a new module, with optimizer, averages and masks carried along.

module, report = growir.live.grow(module, Widen(node="fc1", by=8), optimizer)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from growir.live.branching import branch
from growir.live.checkpoint import grow_checkpoint
from growir.live.growing import graph_of, grow, network_of
from growir.live.into import Filled, grow_into
from growir.live.report import Place, Report, TensorChange
from growir.live.rows import register
from growir.live.rules import Plateau, Progress, Slope
from growir.live.schedule import Growth, Schedule
from growir.moments import CopyState, Follows, FreshState

if TYPE_CHECKING:
    from growir.growth.grower import Grower as Grower

__all__ = [
    "CopyState",
    "Filled",
    "Follows",
    "FreshState",
    "Growth",
    "Place",
    "Plateau",
    "Progress",
    "Report",
    "Schedule",
    "Slope",
    "TensorChange",
    "branch",
    "graph_of",
    "grow",
    "grow_checkpoint",
    "grow_into",
    "network_of",
    "register",
]


def __getattr__(name: str) -> Any:
    # A policy in one's own loop stands on the engine, which stands on this package: imported when it is asked for.
    if name == "Grower":
        return import_module("growir.growth.grower").Grower
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
