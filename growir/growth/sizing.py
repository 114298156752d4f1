"""How large a network should be, and how long its fit: what several sizes and lengths come to on held-out data.

Loss after a fit falls with size, and from some size on it no longer does. Two networks are judged on the same samples,
so it is the standard error of their difference that says what is noise: it is far below that of either loss. The rule
is the one-standard-error rule of Breiman et al. (1984, section 3.4.3) with paired differences.

    parameters     11      97     193     385     769
    loss         .250    .061    .042    .041    .040
    behind       .210    .021    .002    .001       0
    error        .009    .004    .003    .002       0     so 193 it is: .002 is within .003
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from growir.growth.contest import ERROR, Trial, contest
from growir.growth.loss import mean_and_error
from growir.runs.records import Compared, Event, Point, Selected, Sized


@dataclass(frozen=True, slots=True, eq=False)
class Sizing:
    """Which of several networks goes on.

    Attributes:
        chosen: The smallest that is within one standard error of the best.
        points: All of them, as records, by parameters.
    """

    chosen: Trial
    points: tuple[Point, ...]


def sized(trials: Sequence[Trial]) -> Sizing:
    """The network that goes on, of one or more; of two as small as each other, the one of the earlier branch."""
    found = sorted(trials, key=lambda trial: trial.parameters)
    behind = _behind(found)
    chosen = next(trial for trial, (loss, error) in zip(found, behind, strict=True) if loss <= error)
    return Sizing(chosen, _points(found, chosen))


def selected(trials: Sequence[Trial]) -> tuple[Trial, list[Event]]:
    """The network that goes on, of all branches and sizes that were tried, and what a run says of it.

    Where each branch has one network the contest decides, else the sizes of all branches are one curve.
    """
    told: list[Event] = []
    if all(trial.ended is not None for trial in trials):
        best, found = contest(trials)
        why = (
            "no other is better, on the selection part, by more than chance would be"
            if best is trials[0]
            else "it is better than those before it, on the selection part, by more than chance would be"
        )
        tried, chance = trials, ERROR
    else:
        sizing = sized(trials)
        best, found, chance = sizing.chosen, list[Compared](), None
        told.append(Sized(branch=best.name, step=best.step, parameters=best.parameters, points=sizing.points))
        why = "its network is the smallest that is as good, on the selection part, as the best of all"
        each = {trial.name: [other for other in trials if other.name == trial.name] for trial in trials}
        tried = [sized(of).chosen for of in each.values()]
    if best.name is not None:
        records = tuple(trial.record for trial in tried)
        told.append(Selected(branch=best.name, tried=records, compared=tuple(found), significance=chance, why=why))
    return best, told


def timed(trials: Sequence[Trial], epochs: int) -> tuple[Point, ...]:
    """The fits of one network of several lengths, as records, by length; `epochs` is one of them, which was chosen."""
    found = sorted(trials, key=lambda trial: trial.epochs)
    return _points(found, next(trial for trial in found if trial.epochs == epochs))


def _behind(trials: Sequence[Trial]) -> list[tuple[float, float]]:
    """By how much the loss of each is higher than of the best, with the standard error."""
    best = min(trials, key=lambda trial: (trial.loss, trial.parameters))
    return [mean_and_error(trial.losses - best.losses) for trial in trials]


def _points(trials: Sequence[Trial], chosen: Trial) -> tuple[Point, ...]:
    return tuple(
        Point(
            branch=trial.name,
            step=trial.step,
            parameters=trial.parameters,
            epochs=trial.epochs,
            loss=trial.loss,
            loss_error=trial.error,
            behind=loss,
            behind_error=error,
            chosen=trial is chosen,
        )
        for trial, (loss, error) in zip(trials, _behind(trials), strict=True)
    )


def compared(trial: Trial, before: Sequence[Trial]) -> Mapping[str, float | None]:
    """What a schedule is told of a trial: its size and loss, and by how much it is lower than of the last that paid.

    A trial pays if its loss is lower than of the last one that did, by more than the standard error of the difference.

    Args:
        trial: The latest.
        before: Those before it in this branch, in order.
    """
    paid: Trial | None = None
    gain = error = None
    for each in (*before, trial):
        if paid is None:
            paid, gain, error = each, None, None
            continue
        gain, error = mean_and_error(paid.losses - each.losses)
        paid = each if gain > error else paid
    return {"parameters": float(trial.parameters), "loss": trial.loss, "gain": gain, "error": error}
