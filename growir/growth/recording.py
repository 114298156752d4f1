"""The records that the engine makes of a run: what each event says, taken from session, policy and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from growir.costs import Costs
from growir.document import step_data
from growir.growth.contest import Branch
from growir.growth.loss import mean_and_error
from growir.growth.policy import Describes, Explains, Policy, Score, Standing
from growir.growth.progress import Progress
from growir.growth.session import Session
from growir.network import Network
from growir.runs import records
from growir.runs.words import describe

MOST_NOTED = 200  # candidates in the log of one growth


@dataclass(frozen=True, slots=True, eq=False)
class Grown:
    """One growth, done.

    Attributes:
        scores: What every candidate was worth.
        chosen: Those that grew.
        created: The nodes that are new.
        before: How the network stood before it.
        after: How it stands now.
        costs: What the network cost before it.
        seconds: How long it took.
        trims: Whether it only takes away what the network does as well without.
        because: Why that could go, where the policy says it.
    """

    scores: Sequence[Score]
    chosen: Sequence[Score]
    created: Sequence[str]
    before: Standing
    after: Standing
    costs: Costs
    seconds: float
    trims: bool = False
    because: str | None = None


def of_start(session: Session) -> records.Started:
    """What a run starts from."""
    problem, graph, test = session.problem, session.graph, session.data.test
    dataset = problem.dataset
    shape = dataset.description.sample if dataset is not None else graph.inputs[0].shape[1:]
    return records.Started(
        name=session.config.name,
        seed=session.seed,
        threads=torch.get_num_threads(),
        task=problem.task,
        samples=problem.samples,
        selection_samples=None if session.data.select is None else len(session.data.select),
        test_samples=0 if test is None else len(test),
        held_out=None if dataset is None else dataset.held_out,
        sample_shape=tuple(size for size in shape if isinstance(size, int)),
        outputs=None if dataset is None else dataset.outputs,
        hash=graph.hash,
        parameters=graph.costs().parameters,
    )


def of_growth(session: Session, policy: Policy, branch: str | None, step: int, grown: Grown) -> records.Growth:
    """What grew, what it was chosen from, and what it did to the loss."""
    graph, gains = session.graph, _gains(grown.chosen, grown.before, grown.after)
    assert graph.history is not None, "it has grown"
    passes = _passes(step_data(graph.history.steps[-1]), grown.created)
    moved = [each for each in passes if each["pass"] != "update"]
    costs = graph.costs()
    return records.Growth(
        branch=branch,
        step=step,
        policy=policy.name,
        what=describe(moved or passes),
        passes=passes,
        created=tuple(grown.created),
        candidates=len(grown.scores),
        chosen=tuple(map(_chosen, grown.chosen)),
        before=_finite_parts(grown.before.metrics),
        after=_finite_parts(grown.after.metrics),
        predicted_gain=gains.predicted,
        measured_gain=gains.measured,
        gain_error=gains.error,
        parameters_before=grown.costs.parameters,
        macs_before=grown.costs.macs,
        parameters=costs.parameters,
        macs=costs.macs,
        hash=graph.hash,
        seconds=round(grown.seconds, 4),
        units=_units(grown.scores, grown.chosen),
        notes=_notes(policy, grown),
    )


def of_training(
    session: Session, policy: Policy, branch: str | None, step: int, standing: Standing, loss: float, seconds: float
) -> records.Trained:
    """What a phase of training between growths came to."""
    parts = _finite_parts(standing.metrics)
    return records.Trained(
        branch=branch,
        step=step,
        train_loss=loss,
        selection_loss=parts["selection"]["loss"],
        train=parts["train"],
        selection=parts["selection"],
        dead_units=_described(policy, session).get("dead_units"),
        seconds=round(seconds, 4),
    )


def of_end(
    session: Session,
    branch: Branch,
    progress: Progress,
    grown: Network,
    loss: float | None,
    seconds: float,
    ends: Sequence[str | None],
) -> records.Finished:
    """What came of a run; reads the test data.

    Args:
        session: Holds the network after the final fit.
        branch: That it is from.
        progress: How far the run came.
        grown: The network before the final fit.
        loss: Of the final fit.
        seconds: Of the run in all.
        ends: Why growth ended, in each branch.
    """
    graph, test = session.graph, session.data.test
    costs = graph.costs()
    return records.Finished(
        branch=branch.name,
        name=session.config.name,
        task=session.problem.task,
        ended=progress.ended,
        reproducible="seconds" not in ends,
        test_before_fit=None if test is None else finite(session.measure(test, network=grown).metrics),
        test_after_fit=None if test is None else finite(session.measure(test).metrics),
        train_loss_final=loss,
        parameters=costs.parameters,
        macs=costs.macs,
        steps=progress.step,
        dead_units=_described(branch.policy, session).get("dead_units"),
        seconds=round(seconds, 3),
        seconds_growing=round(progress.growing, 3),
        phases=session.meter.to_json(),
        threads=torch.get_num_threads(),
        seed=session.seed,
        hash=graph.hash,
    )


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON can hold them: test data far from all training data may leave float32's range."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _finite_parts(parts: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    return {part: finite(metrics) for part, metrics in parts.items()}


def _chosen(score: Score) -> records.Chosen:
    cost = score.candidate.cost
    error = score.error if score.error is not None and math.isfinite(score.error) else None
    gain = score.gain if math.isfinite(score.gain) and not score.ordinal else None
    return records.Chosen(name=score.candidate.name, parameters=cost.parameters, macs=cost.macs, gain=gain, error=error)


class _Gains(NamedTuple):
    predicted: float | None
    measured: float | None
    error: float | None


def _gains(chosen: Sequence[Score], before: Standing, after: Standing) -> _Gains:
    """What was predicted and what was measured, of the mean loss on the part that selects."""
    if len(chosen) == 1 and chosen[0].predicted is not None:
        (choice,) = chosen
        return _Gains(choice.predicted, choice.gain, choice.error)
    predicted = sum(score.gain for score in chosen)
    if not math.isfinite(predicted):  # nobody says what it will gain: there is nothing to hold it to yet
        return _Gains(None, None, None)
    promised = not any(score.ordinal for score in chosen)
    return _Gains(predicted if promised else None, *mean_and_error(before.losses - after.losses))


def _described(policy: Policy, session: Session) -> Mapping[str, Any]:
    return policy.describe(session) if isinstance(policy, Describes) else dict[str, Any]()


def _notes(policy: Policy, grown: Grown) -> Mapping[str, Any]:
    reason = {} if grown.because is None else {"because": grown.because}
    if isinstance(policy, Explains):
        return {**policy.explain(grown.scores, grown.chosen), **reason}
    best = sorted(grown.scores, key=lambda score: -score.gain)[:MOST_NOTED]
    picked = {id(score) for score in grown.chosen}
    return {
        "trimmed" if grown.trims else "tried": [
            {
                **_chosen(score).to_json(),
                **({"rank": score.gain} if score.ordinal else {}),
                **score.notes,
                "outcome": "chosen" if id(score) in picked else "left",
            }
            for score in best
        ],
        **reason,
    }


def _units(scores: Sequence[Score], chosen: Sequence[Score]) -> tuple[records.UnitScores, ...]:
    """The scores of candidates that are units, by space and kind, to four digits."""
    picked = {score.candidate.name for score in chosen}
    found: dict[tuple[str, str], dict[int, Score]] = {}
    for score in scores:
        if (unit := score.candidate.unit) is not None:
            found.setdefault((unit.space, unit.kind), {})[unit.index] = score
    return tuple(
        records.UnitScores(
            space=space,
            kind=kind,
            gains=tuple(_digits(known[k].gain) if k in known else None for k in range(max(known) + 1)),
            chosen=tuple(sorted(k for k, score in known.items() if score.candidate.name in picked)),
            ordinal=any(score.ordinal for score in known.values()),
        )
        for (space, kind), known in found.items()
    )


def _digits(gain: float) -> float | None:
    return float(f"{gain:.4g}") if math.isfinite(gain) else None


def _passes(step: dict[str, Any], created: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """A recorded step as the passes that it consists of; where only one of them makes nodes, it is said which."""
    if step["pass"] != "sequence":
        return (step,)
    inner = [dict(each) for each in step["passes"]]
    moved = [each for each in inner if each["pass"] != "update"]
    if len(moved) == 1:
        moved[0]["created"] = list(created)
    return tuple(inner)
