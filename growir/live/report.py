"""What a growth did to a live module, its optimizer and whatever else was carried along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from growir.columns import folded
from growir.rewrite import Preserves


class Place(NamedTuple):
    """Where a parameter is trained: the number of the optimizer among those given, and of its parameter group."""

    optimizer: int
    group: int

    def __str__(self) -> str:
        return f"group {self.group}" + (f" of optimizer {self.optimizer}" if self.optimizer else "")


@dataclass(frozen=True, slots=True)
class TensorChange:
    """What became of one tensor.

    Attributes:
        key: Its key, the new one if it was renamed.
        old: The key it had; None if it is new.
        before: The shape it had; None if it is new.
        after: The shape it has; None if it is gone.
        place: Where it is trained; None for buffers and for what no optimizer holds.
    """

    key: str
    old: str | None
    before: tuple[int, ...] | None
    after: tuple[int, ...] | None
    place: Place | None

    def __str__(self) -> str:
        before, after = _shown(self.before), _shown(self.after)
        if self.after is None:
            return f"- {self.key}  {before}"
        if self.before is None:
            text = f"+ {self.key}  {after}"
        elif self.old != self.key:
            text = f"~ {self.old} -> {self.key}  " + (after if before == after else f"{before} -> {after}")
        else:
            text = f"~ {self.key}  " + (f"{before}, other numbers" if before == after else f"{before} -> {after}")
        return text if self.place is None else f"{text}, {self.place}"


def _shown(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else "x".join(map(str, shape)) or "scalar"


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What `grow` did.

    Attributes:
        what: The rewrite in one line, as a history tells it.
        before: The graph's hash before.
        after: The graph's hash after.
        created: The names of the nodes that came into being.
        preserves: What the rewrite promises of the function.
        changes: Every tensor that changed, in the order of the new document, those that are gone last.
        untrained: Parameters that require a gradient and are in none of the optimizers given; empty without optimizer.
        ema: The grown averages, in the order they were given.
        masks: The grown masks, by their new keys.
        values: The arrays the pass was given, by sha256, as a network's history keeps them.
        measured: With `verify`, the largest change of an output as a part of its largest value, in eval mode.
        rng: The states of torch's random generators when growth began, by device; growth draws from none of them.
        notes: What is left to the caller: compile anew, register hooks again.
        seconds: How long it took.
        callers: What callers of the module do now: its inputs or outputs became longer, or a table knows more.
    """

    what: str
    before: str
    after: str
    created: tuple[str, ...]
    preserves: Preserves
    changes: tuple[TensorChange, ...]
    untrained: tuple[str, ...]
    ema: tuple[Any, ...]
    masks: Mapping[str, torch.Tensor]
    values: Mapping[str, NDArray[Any]]
    measured: float | None
    rng: Mapping[str, torch.Tensor]
    notes: tuple[str, ...]
    seconds: float
    callers: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.what, f"  {self.before[:12]} -> {self.after[:12]}, preserves {self.preserves}"]
        lines += [f"  {change}" for change in self.changes]
        if self.untrained:
            lines.append(f"  in no optimizer: {', '.join(self.untrained)}")
        if self.measured is not None:
            lines.append(f"  largest change of an output: {self.measured:.1e} of its largest value")
        lines += [f"  callers: {text}" for text in self.callers]
        return folded("\n".join([*lines, *(f"  note: {note}" for note in self.notes)]))
