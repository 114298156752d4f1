"""What DAG growth has to say of a growth that no other policy has: its amplitude, and every candidate it measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from growir.growth.policies.dag.scored import Scored
from growir.runs.records import AtAmplitude, Measured, Tried


def notes_of(choice: Scored, scored: Sequence[Scored]) -> dict[str, Any]:
    """The notes of a growth, as its record holds them; `choice` is of `scored`, or one of them made idle."""
    return Measured(
        amplitude=choice.amplitude,
        probation=choice.outcome == "on probation",
        improving=sum(each.improves for each in scored),
        loss_before=choice.loss_before,
        loss_after=choice.loss,
        tried=tuple(_tried(each, each is choice or each.idle is choice.step) for each in scored),
    ).to_json()


def _tried(scored: Scored, chosen: bool) -> Tried:
    """A candidate as the log keeps it; numbers that are not finite are none."""
    measured = None if scored.outcome == "no amplitude" else scored.gain
    gain, error = (None if x is None or not math.isfinite(x) else x for x in (measured, scored.error))
    fields = scored.step.model_dump(mode="json", exclude={"values", "seed"}, exclude_defaults=True)
    return Tried(
        passes=({"pass": scored.step.name, **fields},),
        map=scored.convolves,
        predicted_gain=scored.predicted,
        measured_gain=gain,
        gain_error=error,
        amplitude=scored.amplitude,
        parameters=scored.parameters,
        outcome="chosen" if chosen else scored.outcome,
        small=AtAmplitude(**scored.small._asdict()) if all(map(math.isfinite, scored.small)) else None,
    )
